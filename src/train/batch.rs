//! The rows of a step, under noise, in micro-batches.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use super::config::TrainConfig;
use crate::data::rows::{RowOrder, Rows};
use crate::diffusion::{NoisedBatch, Objective, RowIndex};
use crate::error::Result;
use crate::event::Cancel;
use crate::kernels::Dropout;
use crate::kernels::profile::{self, Part};
use crate::model::Batch;
use crate::ranks::Sharing;
use crate::rng::{Random, Stream};

/// Rows of a further pass have their own dropout: that of rows so much further on, where no training comes to. Numbers of
/// rows are below 2^48 ([`Random::counter`]), which leaves room for 16 passes.
const FURTHER_PASS: u64 = 1 << 44;

/// The rows of a step that are this rank's.
pub(super) struct GlobalBatch<'a> {
    rows: &'a Rows,
    objective: &'a dyn Objective,
    config: &'a TrainConfig,
    /// Asks to end in the midst of a step. Absent where other ranks take part, which agree between steps.
    cancel: Option<&'a Cancel>,
    order: RowOrder,
    /// Which rows of the batch are this rank's.
    own: Range<u32>,
    /// Seconds spent on reading.
    pub(super) waited: f64,
    /// (own rows, L).
    tokens: Vec<u32>,
    /// Valid tokens of each row.
    valid: Vec<usize>,
    noised: NoisedBatch,
    /// Numbers of the updates whose outcome was not collected yet.
    pub(super) waiting: VecDeque<u64>,
    /// Whether an update was halted: its loss or gradient, which all ranks have, is not finite.
    pub(super) is_halted: bool,
}

impl<'a> GlobalBatch<'a> {
    pub(super) fn new(
        rows: &'a Rows,
        objective: &'a dyn Objective,
        config: &'a TrainConfig,
        cancel: &'a Cancel,
        sharing: &Sharing,
    ) -> Self {
        let rank = sharing.ranks.rank();
        let own = rank.part(config.batch);
        let count = own.len();
        Self {
            rows,
            objective,
            config,
            cancel: (!sharing.is_shared()).then_some(cancel),
            order: RowOrder::new(config.seed, rows.len(), config.batch, rank),
            own,
            waited: 0.0,
            tokens: vec![0; count * rows.length()],
            valid: vec![0; count],
            noised: NoisedBatch::default(),
            waiting: VecDeque::new(),
            is_halted: false,
        }
    }

    /// Reads this rank's rows of a step and returns how many of their tokens are scored.
    pub(super) fn read(&mut self, step: u64) -> Result<u64> {
        let start = Instant::now();
        let rows = self.tokens.chunks_mut(self.rows.length()).zip(&mut self.valid);
        for ((_, row), (tokens, valid)) in self.order.step(step).zip(rows) {
            // No row begins with context: the stage checks it.
            *valid = self.rows.read(row, tokens)?.end;
        }
        self.waited += start.elapsed().as_secs_f64();
        let predicted = self
            .valid
            .iter()
            .map(|&n| self.objective.predicted(&(0..n)) as u64);
        Ok(predicted.sum())
    }

    /// Calls `each` with a grain of the batch under noise, micro-batch by micro-batch: weights are such that Σ weights · nll of
    /// all grains is the loss in nats per scored token, of which the whole batch has `scored`. Where rows have several passes,
    /// all rows' first ones come first: the order of the positions does not depend on where the grain is cut.
    pub(super) fn micro_batches(
        &mut self,
        step: u64,
        scored: u64,
        grain: Range<u32>,
        each: &mut dyn FnMut(&Batch<'_>) -> Result<()>,
    ) -> Result<()> {
        let config = self.config;
        let length = self.rows.length();
        let scale = 1.0 / scored.max(1) as f64;
        let first_row = step * u64::from(config.batch);
        let cuts = grain.clone().step_by(config.micro_batch as usize);
        let passes = self.objective.passes();
        for (pass, start) in (0..passes).flat_map(|pass| cuts.clone().map(move |start| (pass, start))) {
            // A step of a large network on a small machine takes minutes.
            self.cancel.map_or(Ok(()), Cancel::check)?;
            let timer = profile::forward(Part::Noise);
            let noised = &mut self.noised;
            noised.clear();
            for index in start..(start + config.micro_batch).min(grain.end) {
                let at = RowIndex {
                    step,
                    row: first_row + u64::from(index),
                    index,
                    batch: config.batch,
                };
                let own = (index - self.own.start) as usize;
                let tokens = &self.tokens[own * length..][..length];
                self.objective.noise(at, pass, tokens, self.valid[own], noised);
            }
            if noised.positions.is_empty() {
                continue;
            }
            for weight in &mut noised.weights {
                *weight = (f64::from(*weight) * scale) as f32;
            }
            drop(timer);
            let dropout = (config.dropout > 0.0).then(|| Dropout {
                rate: config.dropout as f32,
                random: Random::new(config.seed, Stream::Dropout),
                step,
                first_row: first_row + u64::from(start) + u64::from(pass) * FURTHER_PASS,
            });
            let micro_batch = Batch {
                tokens: &noised.tokens,
                sigma: &noised.sigma,
                positions: &noised.positions,
                targets: &noised.targets,
                weights: &noised.weights,
                loss: self.objective.loss(),
                constants: &noised.constants,
                pattern: self.objective.pattern(),
                dropout,
            };
            each(&micro_batch)?;
        }
        Ok(())
    }
}
