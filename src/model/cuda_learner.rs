//! Learning on a CUDA device: gradients, moments and averages stay beside the weights, and nothing waits for results.

use std::collections::VecDeque;
use std::ops::Range;

use super::cuda_memory::{answered, fits, fitting, plan};
use super::cuda_network::CudaNetwork;
use super::dit::Arch;
use super::footprint::Workload;
use super::{Arena, Batch, GradientNorm, Learner, Network, Reduction, StepOutcome, total};
use crate::error::{Error, Result};
use crate::kernels::VocabSupport;
use crate::kernels::adamw::cuda::Optimizer;
use crate::kernels::adamw::shared::SharedUpdate;
use crate::kernels::adamw::{AdamW, Moments, Update};
use crate::kernels::cuda::driver::Ticket;
use crate::kernels::cuda::planning::Planning;
use crate::kernels::cuda::{Cuda, Gradients, Taken};
use crate::ranks::{Cut, Sharing};
use crate::shapes::Backbone;

/// Updates by which the device may be ahead of what is known of it: it never waits for the host to prepare the next one.
const AHEAD: usize = 2;

/// Memory of the device that is left alone, at least: for compiled kernels, graphs, products' partial sums, a screen.
const RESERVE: usize = 768 << 20;

/// A network on a device with its optimizer.
pub struct CudaLearner<A: Arch> {
    network: CudaNetwork<A>,
    gradients: Gradients,
    optimizer: Optimizer,
    /// Updates whose outcome was not collected yet, the oldest first.
    updates: VecDeque<Ticket>,
    /// Of a training whose batches are cut.
    shared: Option<OnDevice>,
}

/// What a training whose batches are cut has beside its optimizer.
struct OnDevice {
    sharing: Sharing,
    update: SharedUpdate,
    /// The flat vector, cut where the weights' arena is.
    cut: Cut,
}

impl<A: Arch> CudaLearner<A> {
    /// A learner that begins from these weights in the flat order.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(cuda: Cuda, backbone: Backbone, weights: &[f32]) -> Result<Self> {
        let network = CudaNetwork::new(cuda, backbone, weights)?;
        Ok(Self {
            optimizer: network.cuda.optimizer()?,
            network,
            gradients: Gradients::default(),
            updates: VecDeque::new(),
            shared: None,
        })
    }

    /// The device's memory that is taken.
    #[must_use]
    pub fn taken(&self) -> Taken {
        self.network.cuda.taken()
    }

    /// Bytes of the device's memory that a learner may take. They are a share of all there is, not of what is free just now:
    /// what fits decides the micro-batch, and that the order of sums, which must be the same when a run resumes.
    fn room(&self) -> Result<usize> {
        let total = self.network.cuda.driver().capacity()?.total;
        let grains = self.shared.as_ref().map_or(1, |shared| shared.sharing.grains);
        // As much for any number of ranks, since the micro-batch decides bits.
        let tree = self.network.cuda.grain_bytes(grains)?;
        Ok(total.saturating_sub(RESERVE.max(total / 16)).saturating_sub(tree))
    }

    /// The part of the flat vector of these numbers that this rank's device has.
    fn part_of(&self, arena: Arena) -> Range<usize> {
        let all = 0..total(&self.network.parameters);
        match &self.shared {
            Some(shared) if arena != Arena::Weights => shared.cut.of(shared.sharing.ranks.rank()),
            _ => all,
        }
    }

    /// The weights and their average change places, on all ranks.
    fn swap_average(&self) -> Result<()> {
        let cuda = &self.network.cuda;
        cuda.swap_average(&self.optimizer)?;
        match &self.shared {
            Some(shared) => cuda.gather_weights(&shared.update, &self.optimizer),
            None => Ok(()),
        }
    }

    /// Has memory for activations taken at once that is enough for micro-batches of `rows` rows of a batch of so many: it would
    /// else grow with their share of answered tokens, and what steps were captured with it would be of no use any more.
    fn reserve(&mut self, rows: usize, batch: usize, workload: Workload) -> Result<()> {
        let planning = Cuda::new(Box::new(Planning::default()), self.network.cuda.element());
        let answered = answered(A::SHAPE, workload.answered, rows, Some(batch));
        let planned = plan::<A>(planning, self.network.backbone, workload, rows, answered)?;
        self.network.cuda.reserve_activations(planned.arena);
        Ok(())
    }
}

impl<A: Arch> Learner for CudaLearner<A> {
    fn network(&self) -> &dyn Network {
        &self.network
    }

    fn micro_batch(&mut self, batch: u32, wanted: Option<u32>, workload: Workload) -> Result<u32> {
        let (element, room) = (self.network.cuda.element(), self.room()?);
        let backbone = self.network.backbone;
        let rows = match wanted {
            Some(rows) => fits(A::SHAPE, backbone, workload, element, rows, batch, room).map(|()| rows),
            None => fitting(A::SHAPE, backbone, workload, element, batch, room),
        }?;
        self.reserve(rows as usize, batch as usize, workload)?;
        Ok(rows)
    }

    fn load(&mut self, weights: &[f32], moments: Moments) -> Result<()> {
        while self.outcome()?.is_some() {}
        self.gradients = Gradients::default();
        if let Some(shared) = &mut self.shared {
            shared.update.forget();
        }
        for (arena, values) in [
            (Arena::Weights, weights),
            (Arena::FirstMoment, &moments.first),
            (Arena::SecondMoment, &moments.second),
            (Arena::Average, &moments.ema),
        ] {
            let part = self.part_of(arena);
            self.network
                .write_flat(Some(&self.optimizer), arena, values, part)?;
        }
        self.network.cuda.forget_steps(&self.optimizer)
    }

    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<()> {
        let part = self.part_of(arena);
        let is_part = part.len() < into.len();
        self.network.read_flat(Some(&self.optimizer), arena, into, part)?;
        match &self.shared {
            Some(shared) if is_part => shared.sharing.ranks.gather(into, &shared.cut),
            _ => Ok(()),
        }
    }

    fn share(&mut self, sharing: Sharing) -> Result<()> {
        if sharing.grains == 1 && !sharing.is_shared() {
            return Ok(());
        }
        let cuda = &self.network.cuda;
        let (update, optimizer) = cuda.share(sharing.clone())?;
        let places: Vec<_> = self.network.places().collect();
        // Weights lie in the arena in the flat order, with gaps.
        let flat = |bound: usize| {
            let before = places.iter().rev().find(|(_, place)| *place <= bound);
            before.map_or(0, |(own, place)| (own.start + bound - place).min(own.end))
        };
        self.shared = Some(OnDevice {
            cut: update.cut().mapped(flat),
            sharing,
            update,
        });
        self.optimizer = optimizer;
        Ok(())
    }

    fn joined(&self) -> Option<String> {
        self.network.cuda.driver().joined()
    }

    fn end_grain(&mut self) -> Result<()> {
        let Some(shared) = &mut self.shared else {
            return Err(Error::internal("a grain of a batch that is not cut"));
        };
        let cuda = &self.network.cuda;
        cuda.end_grain(&mut shared.update, &self.optimizer, &mut self.gradients)
    }

    fn accumulate(&mut self, batch: &Batch<'_>, support: VocabSupport) -> Result<()> {
        let gradients = std::mem::take(&mut self.gradients);
        self.gradients = self.network.accumulate(gradients, batch, support)?;
        Ok(())
    }

    fn reduce(&mut self, reduction: &mut Reduction<'_>) -> Result<()> {
        let (network, cuda) = (&self.network, &self.network.cuda);
        let mut flat = vec![0.0; total(&network.parameters)];
        for (own, place) in network.places() {
            cuda.read_gradient(&self.gradients, place, &mut flat[own])?;
        }
        let mut loss = cuda.read_loss(&self.optimizer)?;
        reduction(&mut flat, &mut loss)?;
        for (own, place) in network.places() {
            cuda.write_gradient(&mut self.gradients, place, &flat[own])?;
        }
        cuda.write_loss(&self.optimizer, loss)
    }

    fn update(&mut self, adam: AdamW, update: Update, clip: f64) -> Result<()> {
        let (cuda, optimizer) = (&self.network.cuda, &self.optimizer);
        let gradients = &mut self.gradients;
        let ticket = match &mut self.shared {
            Some(shared) => {
                cuda.update_shared((&mut shared.update, optimizer), gradients, adam, update, clip)
            }
            None => cuda.update(optimizer, gradients, adam, update, clip),
        }?;
        self.updates.push_back(ticket);
        Ok(())
    }

    fn outcome(&mut self) -> Result<Option<StepOutcome>> {
        let Some(ticket) = self.updates.pop_front() else {
            return Ok(None);
        };
        let outcome = self.network.cuda.outcome(ticket)?;
        Ok(Some(StepOutcome {
            loss: outcome.loss,
            // The device keeps the sum alone.
            norm: GradientNorm {
                total: outcome.norm,
                largest: None,
            },
            halted: outcome.halted,
        }))
    }

    fn queued_updates(&self) -> usize {
        AHEAD
    }

    fn with_average(&mut self, f: &mut dyn FnMut(&dyn Network) -> Result<()>) -> Result<()> {
        self.swap_average()?;
        let result = f(&self.network);
        self.swap_average()?;
        result
    }
}
