//! Learning on a CUDA device: gradients, moments and averages stay beside the weights, and nothing waits for results.

use std::collections::VecDeque;

use super::cuda_memory::{answered, fits, fitting, plan};
use super::cuda_network::CudaNetwork;
use super::dit::Arch;
use super::footprint::Workload;
use super::grains::Grains;
use super::{Arena, Batch, GradientNorm, Learner, Network, Reduction, StepOutcome, total};
use crate::error::{Error, Result};
use crate::kernels::VocabSupport;
use crate::kernels::adamw::cuda::Optimizer;
use crate::kernels::adamw::{AdamW, Moments, Update};
use crate::kernels::cuda::driver::Ticket;
use crate::kernels::cuda::planning::Planning;
use crate::kernels::cuda::{Cuda, Gradients, Taken};
use crate::ranks::Sharing;
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
    /// Of a training whose batches are cut: the grains are added on the host.
    grains: Option<OnHost>,
}

/// Grains that are added on the host, with the gradient of one of them.
struct OnHost {
    grains: Grains,
    flat: Vec<f32>,
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
            grains: None,
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
        Ok(total.saturating_sub(RESERVE.max(total / 16)))
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
        if let Some(OnHost { grains, .. }) = &mut self.grains {
            grains.forget();
        }
        let optimizer = Some(&self.optimizer);
        for (arena, values) in [
            (Arena::Weights, weights),
            (Arena::FirstMoment, &moments.first),
            (Arena::SecondMoment, &moments.second),
            (Arena::Average, &moments.ema),
        ] {
            self.network.write_flat(optimizer, arena, values)?;
        }
        self.network.cuda.forget_steps(&self.optimizer)
    }

    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<()> {
        self.network.read_flat(Some(&self.optimizer), arena, into)
    }

    fn share(&mut self, sharing: Sharing) -> Result<()> {
        if sharing.grains > 1 || sharing.is_shared() {
            self.grains = Some(OnHost {
                grains: Grains::new(sharing, &self.network.parameters),
                flat: Vec::new(),
            });
        }
        Ok(())
    }

    fn end_grain(&mut self) -> Result<()> {
        let Some(mut host) = self.grains.take() else {
            return Err(Error::internal("a grain of a batch that is not cut"));
        };
        let OnHost { grains, flat } = &mut host;
        self.reduce(&mut |gradient, loss| {
            grains.end(gradient, *loss);
            flat.clear();
            flat.extend_from_slice(gradient);
            *loss = 0.0;
            gradient.fill(0.0);
            Ok(())
        })?;
        self.grains = Some(host);
        Ok(())
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
        if let Some(OnHost { mut grains, mut flat }) = self.grains.take() {
            grains.sum(&mut flat)?;
            let (sum, _) = grains.outcome(&self.network.parameters, &flat)?;
            grains.gather(&mut flat)?;
            self.reduce(&mut |gradient, loss| {
                gradient.copy_from_slice(&flat);
                *loss = sum;
                Ok(())
            })?;
            self.grains = Some(OnHost { grains, flat });
        }
        let cuda = &self.network.cuda;
        let ticket = cuda.update(&self.optimizer, &mut self.gradients, adam, update, clip)?;
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
        self.network.cuda.swap_average(&self.optimizer)?;
        let result = f(&self.network);
        self.network.cuda.swap_average(&self.optimizer)?;
        result
    }
}
