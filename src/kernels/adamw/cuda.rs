//! The optimizer on the device: moments and averages beside the weights, an update in three launches, and its outcome
//! on the host while the device continues.

use super::{AdamW, Arena, Factors, Update};
use crate::error::{Error, Result};
use crate::kernels::Operation;
use crate::kernels::cuda::driver::{Address, Argument, Command, DType, Launch, Ticket, Value};
use crate::kernels::cuda::weights::Allocation;
use crate::kernels::cuda::{Cuda, Gradients, narrowed, widened};

/// Threads of a block.
const THREADS: usize = 256;
/// Elements of a thread: enough loads at once to hide the memory's latency.
const EACH_OF_NORM: usize = 16;
const EACH_OF_UPDATE: usize = 4;

/// The optimizer's memory on the device.
pub struct Optimizer {
    /// Average of the gradient, f32, laid out as the weights.
    first: Allocation,
    /// Average of the squared gradient.
    second: Allocation,
    /// Moving average of the weights.
    average: Allocation,
    /// The loss so far and whether a step was not finite, f64.
    totals: Allocation,
    /// The gradient's factor and whether weights move, f32.
    control: Allocation,
    /// Loss, norm and whether a step was not finite, f64.
    outcome: Allocation,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateOutcome {
    /// Σ weight · loss of its positions.
    pub loss: f64,
    /// The global norm of its gradient, before it was clipped.
    pub norm: f64,
    /// This step's loss or norm was not finite, or an earlier one's: nothing has changed since.
    pub halted: bool,
}

impl Cuda {
    /// An optimizer for the weights made so far, its moments zero and its average that of the weights. They lie in one arena
    /// ([`Cuda::reserve`]). From here on losses are added up for it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn optimizer(&self) -> Result<Optimizer> {
        let bytes = self.arena_count()? * DType::F32.bytes();
        let zeros = |bytes: usize| {
            let kept = Allocation::new(&self.queue, bytes)?;
            self.queue.push(Command::Clear { at: kept.at(), bytes });
            Ok::<_, Error>(kept)
        };
        let optimizer = Optimizer {
            first: zeros(bytes)?,
            second: zeros(bytes)?,
            average: zeros(bytes)?,
            totals: zeros(2 * size_of::<f64>())?,
            control: zeros(2 * size_of::<f32>())?,
            outcome: zeros(3 * size_of::<f64>())?,
        };
        self.queue.push(Command::Copy {
            from: self.arenas.borrow()[0].master.at(),
            to: optimizer.average.at(),
            bytes,
        });
        self.losses.set(Some(optimizer.totals.at()));
        Ok(optimizer)
    }

    /// Elements of the one arena.
    fn arena_count(&self) -> Result<usize> {
        match &self.arenas.borrow()[..] {
            [arena] => Ok(arena.count),
            arenas => Err(Error::internal(format!("weights in {} arenas", arenas.len()))),
        }
    }

    fn of_all(
        &self,
        kernel: &'static str,
        each: usize,
        shared: usize,
        arguments: &[Argument],
    ) -> Result<usize> {
        let count = self.arena_count()?;
        let blocks = count.div_ceil(each * THREADS);
        let all = u32::try_from(count).map_err(|_| Error::internal(format!("{count} weights")))?;
        self.queue.push(Command::Launch(Launch {
            kernels: Operation::AdamW.kernels(),
            kernel,
            element: self.element,
            constants: vec![("EACH", Value::Whole(each))],
            grid: [blocks, 1, 1],
            threads: THREADS,
            shared,
            arguments: [arguments, &[Argument::Number(all)]].concat(),
        }));
        Ok(blocks)
    }

    /// The working copies of the weights, where there are none the weights themselves.
    fn working(&self) -> Address {
        let arena = &self.arenas.borrow()[0];
        arena.working.as_ref().unwrap_or(&arena.master).at()
    }

    /// Queues an update by the gradients, whose norm is kept within `clip` (0: no limit), and begins to fetch its outcome.
    ///
    /// # Errors
    /// The device failed.
    pub fn update(
        &self,
        optimizer: &Optimizer,
        gradients: &mut Gradients,
        adam: AdamW,
        update: Update,
        clip: f64,
    ) -> Result<Ticket> {
        // A step in which nothing was masked has none: it is zero.
        let gradient = self.gradient_arena(gradients, 0)?;
        let blocks = self.arena_count()?.div_ceil(EACH_OF_NORM * THREADS);
        let partial = self.queue.buffer(blocks * size_of::<f64>());
        let settings = [&Factors::new(adam, update).all()[..], &[clip as f32]].concat();
        let settings = self.constants(&settings);
        let at = [gradient, partial.at()].map(Argument::At);
        self.of_all("squares", EACH_OF_NORM, THREADS / 32 * size_of::<f64>(), &at)?;
        let count = Argument::Number(u32::try_from(blocks).unwrap_or(u32::MAX));
        let at = [
            settings.at(),
            optimizer.totals.at(),
            optimizer.control.at(),
            optimizer.outcome.at(),
        ];
        self.queue.push(Command::Launch(Launch {
            kernels: Operation::AdamW.kernels(),
            kernel: "decide",
            element: self.element,
            constants: vec![("EACH", Value::Whole(EACH_OF_NORM))],
            grid: [1, 1, 1],
            threads: THREADS,
            shared: THREADS * size_of::<f64>(),
            arguments: [&[Argument::At(partial.at()), count], &at.map(Argument::At)[..]].concat(),
        }));
        let at = [
            self.arenas.borrow()[0].master.at(),
            self.working(),
            gradient,
            optimizer.first.at(),
            optimizer.second.at(),
            optimizer.average.at(),
            settings.at(),
            optimizer.control.at(),
        ];
        self.of_all("update", EACH_OF_UPDATE, 0, &at.map(Argument::At))?;
        drop((partial, settings));
        self.queue.flush(true)?;
        self.queue
            .fetch(optimizer.outcome.at(), optimizer.outcome.bytes())
    }

    /// Waits for the outcome of an update.
    ///
    /// # Errors
    /// The device failed.
    pub fn outcome(&self, ticket: Ticket) -> Result<UpdateOutcome> {
        let bytes = self.queue.driver().collect(ticket)?;
        let mut values = bytes
            .chunks_exact(size_of::<f64>())
            .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        let mut next = || values.next().unwrap_or(f64::NAN);
        Ok(UpdateOutcome {
            loss: next(),
            norm: next(),
            halted: next() != 0.0,
        })
    }

    /// The weights and their average change places.
    ///
    /// # Errors
    /// The device failed.
    pub fn swap_average(&self, optimizer: &Optimizer) -> Result<()> {
        let master = self.arenas.borrow()[0].master.at();
        let at = [master, self.working(), optimizer.average.at()].map(Argument::At);
        self.of_all("swap_average", 1, 0, &at)?;
        self.queue.flush(false)
    }

    /// Where the number of the weight's element at `offset` is.
    fn number(&self, optimizer: Option<&Optimizer>, arena: Arena, offset: usize) -> Result<Address> {
        let without = || Error::internal("moments without an optimizer");
        let base = match arena {
            Arena::Weights => self.arenas.borrow()[0].master.at(),
            Arena::FirstMoment => optimizer.ok_or_else(without)?.first.at(),
            Arena::SecondMoment => optimizer.ok_or_else(without)?.second.at(),
            Arena::Average => optimizer.ok_or_else(without)?.average.at(),
        };
        Ok(base.offset(offset * DType::F32.bytes()))
    }

    /// Copies numbers of the weight at `offset` of the arena out.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_numbers(
        &self,
        optimizer: Option<&Optimizer>,
        arena: Arena,
        offset: usize,
        into: &mut [f32],
    ) -> Result<()> {
        let at = self.number(optimizer, arena, offset)?;
        let bytes = self.queue.read(at, into.len() * DType::F32.bytes())?;
        into.copy_from_slice(&widened(&bytes, DType::F32));
        Ok(())
    }

    /// Replaces numbers of the weight at `offset` of the arena.
    ///
    /// # Errors
    /// The device failed.
    pub fn write_numbers(
        &self,
        optimizer: Option<&Optimizer>,
        arena: Arena,
        offset: usize,
        values: &[f32],
    ) -> Result<()> {
        let at = self.number(optimizer, arena, offset)?;
        self.queue.write(at, &narrowed(values, DType::F32))?;
        if arena == Arena::Weights && self.element != DType::F32 {
            let at = self.working().offset(offset * self.element.bytes());
            self.queue.write(at, &narrowed(values, self.element))?;
        }
        Ok(())
    }

    /// The gradient of the weight at `offset` of the arena; zeros where there is none yet.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_gradient(&self, gradients: &Gradients, offset: usize, into: &mut [f32]) -> Result<()> {
        let Some(arena) = gradients.arenas.get(&0) else {
            into.fill(0.0);
            return Ok(());
        };
        let at = arena.at().offset(offset * DType::F32.bytes());
        let bytes = self.queue.read(at, into.len() * DType::F32.bytes())?;
        into.copy_from_slice(&widened(&bytes, DType::F32));
        Ok(())
    }

    /// Replaces the gradient of the weight at `offset` of the arena.
    ///
    /// # Errors
    /// Out of memory, or the device failed.
    pub fn write_gradient(&self, gradients: &mut Gradients, offset: usize, values: &[f32]) -> Result<()> {
        let at = self.gradient_arena(gradients, 0)?;
        let at = at.offset(offset * DType::F32.bytes());
        self.queue.write(at, &narrowed(values, DType::F32))
    }

    /// The loss that micro-batches have added up since the last update.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_loss(&self, optimizer: &Optimizer) -> Result<f64> {
        let bytes = self.queue.read(optimizer.totals.at(), size_of::<f64>())?;
        let loss = bytes.first_chunk().copied().map(f64::from_le_bytes);
        loss.ok_or_else(|| Error::internal("a loss of no bytes"))
    }

    /// Replaces it.
    ///
    /// # Errors
    /// The device failed.
    pub fn write_loss(&self, optimizer: &Optimizer, loss: f64) -> Result<()> {
        self.queue.write(optimizer.totals.at(), &loss.to_le_bytes())
    }

    /// Drops the loss that micro-batches have added up, and that a step was not finite.
    ///
    /// # Errors
    /// The device failed.
    pub fn forget_steps(&self, optimizer: &Optimizer) -> Result<()> {
        self.queue
            .write(optimizer.totals.at(), &vec![0; optimizer.totals.bytes()])
    }

    /// Hands a step over: it is expected to come again as it is, but for the contents of memory.
    ///
    /// # Errors
    /// Out of memory, or the device failed.
    pub fn run_again(&self) -> Result<()> {
        self.queue.flush(true)
    }
}
