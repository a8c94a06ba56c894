//! The gradient of a batch that is cut into grains, some of which other ranks compute.

use std::ops::Range;

use super::{GradientNorm, Parameter};
use crate::error::Result;
use crate::kernels::adamw::cpu::Chunks;
use crate::kernels::profile::{self, Part};
use crate::ranks::{Cut, GrainTree, PIECE, Sharing, fold};

/// The sum of the gradients of a batch's grains, and of their losses.
pub struct Grains {
    sharing: Sharing,
    chunks: Chunks,
    cut: Cut,
    tree: GrainTree,
    /// Of this rank's grains since the last update, in their order.
    losses: Vec<f64>,
    received: Vec<f32>,
}

impl Grains {
    /// Of a network with these parameters.
    #[must_use]
    pub fn new(sharing: Sharing, parameters: &[Parameter]) -> Self {
        let ranges: Vec<_> = parameters.iter().map(Parameter::range).collect();
        let chunks = Chunks::of(&ranges);
        Self {
            cut: Cut::at_chunks(chunks.iter(), sharing.ranks.rank().world),
            tree: GrainTree::over(sharing.own_grains().len() as u32),
            sharing,
            chunks,
            losses: Vec::new(),
            received: Vec::new(),
        }
    }

    /// The part of the flat vector that this rank updates.
    #[must_use]
    pub fn own(&self) -> Range<usize> {
        self.cut.of(self.sharing.ranks.rank())
    }

    /// Whether other ranks update other parts.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.sharing.is_shared()
    }

    /// Ends a grain: its gradient goes into the tree, and is left zero but for the last grain, in whose place the sum of this
    /// rank's is left.
    pub fn end(&mut self, gradient: &mut [f32], loss: f64) {
        let _timer = profile::forward(Part::Update);
        self.losses.push(loss);
        self.tree.take(gradient);
    }

    /// Forgets the grains since the last update.
    pub fn forget(&mut self) {
        self.losses.clear();
        self.tree.clear();
    }

    /// Replaces this rank's part of the gradient by the sum over all ranks.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn sum(&mut self, gradient: &mut [f32]) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let _timer = profile::forward(Part::Exchange);
        let rank = self.sharing.ranks.rank();
        for number in 0..self.cut.pieces(PIECE) {
            let runs = self.cut.piece(number, PIECE);
            let own = runs[rank.rank as usize].clone();
            self.received.resize(own.len() * rank.world as usize, 0.0);
            self.sharing.ranks.exchange(gradient, &runs, &mut self.received)?;
            fold(&mut self.received, own.len());
            gradient[own.clone()].copy_from_slice(&self.received[..own.len()]);
        }
        Ok(())
    }

    /// The loss of the batch, and the norm of its gradient, of which this rank has its part: both summed in the order of the
    /// grains and of the chunks, whatever the number of ranks.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn outcome(&mut self, parameters: &[Parameter], gradient: &[f32]) -> Result<(f64, GradientNorm)> {
        let world = self.sharing.ranks.rank().world;
        let of_part = |part: Range<usize>| self.chunks.within(&part);
        let own = of_part(self.own());
        let mut numbers = std::mem::take(&mut self.losses);
        let grains = numbers.len();
        {
            let _timer = profile::forward(Part::Update);
            numbers.extend(self.chunks.sums_of_squares(own, gradient));
        }
        let counts: Vec<usize> = self
            .cut
            .parts()
            .map(|part| grains + of_part(part).len())
            .collect();
        let all = {
            let _timer = profile::forward(Part::Exchange);
            self.sharing.ranks.all_gather(&numbers, &counts)?
        };
        let (mut loss, mut squares, mut rest) = (0.0, Vec::new(), &all[..]);
        for rank in 0..world as usize {
            let (of_rank, others) = rest.split_at(counts[rank]);
            let (losses, sums) = of_rank.split_at(grains);
            losses.iter().for_each(|of_grain| loss += of_grain);
            squares.extend_from_slice(sums);
            rest = others;
        }
        Ok((
            loss,
            GradientNorm::from_squares(parameters, &self.chunks.fold(&squares)),
        ))
    }

    /// Replaces every rank's part of `values` by that rank's own.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn gather(&self, values: &mut [f32]) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let _timer = profile::forward(Part::Exchange);
        self.sharing.ranks.gather(values, &self.cut)
    }
}
