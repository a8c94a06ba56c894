//! The optimizer on the device: moments and averages beside the weights, an update in three launches, and its outcome
//! on the host while the device continues.

use std::ops::Range;

use super::{AdamW, Arena, Factors, Update};
use crate::error::{Error, Result};
use crate::kernels::Operation;
use crate::kernels::cuda::driver::{Address, Argument, Command, DType, Launch, Ticket, Value};
use crate::kernels::cuda::weights::Allocation;
use crate::kernels::cuda::{Buffer, Cuda, Gradients, narrowed, widened};

/// Threads of a block.
pub(super) const THREADS: usize = 256;
/// Elements of a thread: enough loads at once to hide the memory's latency.
pub(super) const EACH_OF_NORM: usize = 16;
pub(super) const EACH_OF_UPDATE: usize = 4;

/// The optimizer's memory on the device.
pub struct Optimizer {
    /// The elements of the arena that it updates.
    pub(super) part: Range<usize>,
    /// Average of the gradient, f32, laid out as this part of the weights.
    first: Allocation,
    /// Average of the squared gradient.
    second: Allocation,
    /// Moving average of the weights.
    average: Allocation,
    /// The loss so far and whether a step was not finite, f64.
    pub(super) totals: Allocation,
    /// The gradient's factor and whether weights move, f32.
    control: Allocation,
    /// Loss, norm and whether a step was not finite, f64.
    outcome: Allocation,
}

/// Blocks that the norm of so many elements takes, with a partial sum each.
pub(super) fn blocks_of_norm(count: usize) -> usize {
    count.div_ceil(EACH_OF_NORM * THREADS)
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
        self.optimizer_of(0..self.arena_count()?)
    }

    /// An optimizer for this part of the arena.
    pub(super) fn optimizer_of(&self, part: Range<usize>) -> Result<Optimizer> {
        let bytes = part.len() * DType::F32.bytes();
        let zeros = |bytes: usize| {
            let kept = Allocation::new(&self.queue, bytes)?;
            self.queue.push(Command::Clear { at: kept.at(), bytes });
            Ok::<_, Error>(kept)
        };
        let from = self.master().offset(part.start * DType::F32.bytes());
        let optimizer = Optimizer {
            part,
            first: zeros(bytes)?,
            second: zeros(bytes)?,
            average: zeros(bytes)?,
            totals: zeros(2 * size_of::<f64>())?,
            control: zeros(2 * size_of::<f32>())?,
            outcome: zeros(3 * size_of::<f64>())?,
        };
        self.queue.push(Command::Copy {
            from,
            to: optimizer.average.at(),
            bytes,
        });
        self.losses.set(Some(optimizer.totals.at()));
        Ok(optimizer)
    }

    /// Elements of the one arena.
    pub(super) fn arena_count(&self) -> Result<usize> {
        match &self.arenas.borrow()[..] {
            [arena] => Ok(arena.count),
            arenas => Err(Error::internal(format!("weights in {} arenas", arenas.len()))),
        }
    }

    /// Queues a kernel over so many elements.
    pub(super) fn over(
        &self,
        kernel: &'static str,
        each: usize,
        shared: usize,
        arguments: &[Argument],
        count: usize,
    ) -> Result<()> {
        let blocks = count.div_ceil(each * THREADS);
        if blocks == 0 {
            return Ok(());
        }
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
        Ok(())
    }

    /// Queues a kernel of one block.
    pub(super) fn one_block(
        &self,
        kernel: &'static str,
        threads: usize,
        shared: usize,
        arguments: Vec<Argument>,
    ) {
        self.queue.push(Command::Launch(Launch {
            kernels: Operation::AdamW.kernels(),
            kernel,
            element: self.element,
            constants: vec![("EACH", Value::Whole(EACH_OF_NORM))],
            grid: [1, 1, 1],
            threads,
            shared,
            arguments,
        }));
    }

    /// The weights.
    pub(super) fn master(&self) -> Address {
        self.arenas.borrow()[0].master.at()
    }

    /// The working copies of the weights, where there are none the weights themselves.
    pub(super) fn working(&self) -> Address {
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
        let blocks = blocks_of_norm(self.arena_count()?);
        let partial = self.queue.buffer(blocks * size_of::<f64>());
        let settings = self.settings(adam, update, clip);
        self.squares(gradient, optimizer.part.len(), partial.at())?;
        self.decide(optimizer, partial.at(), blocks, settings.at());
        self.move_weights(optimizer, gradient, settings.at())?;
        drop((partial, settings));
        self.queue.flush(true)?;
        self.fetch_outcome(optimizer)
    }

    /// The constants of an update on the device.
    pub(super) fn settings(&self, adam: AdamW, update: Update, clip: f64) -> Buffer {
        let settings = [&Factors::new(adam, update).all()[..], &[clip as f32]].concat();
        self.constants(&settings)
    }

    /// Queues the sums of squares of so many elements, one of each block, into `partial`.
    pub(super) fn squares(&self, gradient: Address, count: usize, partial: Address) -> Result<()> {
        let at = [gradient, partial].map(Argument::At);
        let shared = THREADS / 32 * size_of::<f64>();
        self.over("squares", EACH_OF_NORM, shared, &at, count)
    }

    /// Queues what the sums of all blocks decide: the factor of the gradient, and whether weights move.
    pub(super) fn decide(&self, optimizer: &Optimizer, partial: Address, blocks: usize, settings: Address) {
        let count = Argument::Number(u32::try_from(blocks).unwrap_or(u32::MAX));
        let at = [
            settings,
            optimizer.totals.at(),
            optimizer.control.at(),
            optimizer.outcome.at(),
        ];
        let arguments = [&[Argument::At(partial), count], &at.map(Argument::At)[..]].concat();
        self.one_block("decide", THREADS, THREADS * size_of::<f64>(), arguments);
    }

    /// Queues the update of the optimizer's part by the gradient of all, which is left zero in that part.
    pub(super) fn move_weights(
        &self,
        optimizer: &Optimizer,
        gradient: Address,
        settings: Address,
    ) -> Result<()> {
        let start = optimizer.part.start;
        let at = [
            self.master().offset(start * DType::F32.bytes()),
            self.working().offset(start * self.element.bytes()),
            gradient.offset(start * DType::F32.bytes()),
            optimizer.first.at(),
            optimizer.second.at(),
            optimizer.average.at(),
            settings,
            optimizer.control.at(),
        ];
        let count = optimizer.part.len();
        self.over("update", EACH_OF_UPDATE, 0, &at.map(Argument::At), count)
    }

    /// Begins to copy the outcome of what is queued to the host.
    pub(super) fn fetch_outcome(&self, optimizer: &Optimizer) -> Result<Ticket> {
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

    /// The weights and their average change places, in the optimizer's part.
    ///
    /// # Errors
    /// The device failed.
    pub fn swap_average(&self, optimizer: &Optimizer) -> Result<()> {
        let start = optimizer.part.start;
        let at = [
            self.master().offset(start * DType::F32.bytes()),
            self.working().offset(start * self.element.bytes()),
            optimizer.average.at(),
        ];
        let count = optimizer.part.len();
        self.over("swap_average", 1, 0, &at.map(Argument::At), count)?;
        self.queue.flush(false)
    }

    /// Where the number of the weight's element at `offset` is.
    fn number(&self, optimizer: Option<&Optimizer>, arena: Arena, offset: usize) -> Result<Address> {
        let moments = |of: &dyn Fn(&Optimizer) -> Address| {
            let optimizer = optimizer.ok_or_else(|| Error::internal("moments without an optimizer"))?;
            let within = offset.checked_sub(optimizer.part.start);
            let within = within.ok_or_else(|| Error::internal("moments of another rank's part"))?;
            Ok::<_, Error>(of(optimizer).offset(within * DType::F32.bytes()))
        };
        match arena {
            Arena::Weights => Ok(self.master().offset(offset * DType::F32.bytes())),
            Arena::FirstMoment => moments(&|optimizer| optimizer.first.at()),
            Arena::SecondMoment => moments(&|optimizer| optimizer.second.at()),
            Arena::Average => moments(&|optimizer| optimizer.average.at()),
        }
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
