//! An update that ranks share, on their devices: the tree of the grains' gradients, the exchange of its parts, and the norm and
//! the loss, summed in the order of the blocks and of the grains, so that no number of ranks changes a bit (see
//! [`crate::ranks`]).
//!
//! A rank's part of the weights begins and ends where blocks of the norm do. Each rank updates its part of the f32 weights, with
//! moments and averages of that part alone; the weights are then gathered, and their bf16 copies made of them.

use super::cuda::{EACH_OF_NORM, EACH_OF_UPDATE, Optimizer, THREADS, blocks_of_norm};
use super::{AdamW, Update};
use crate::error::Result;
use crate::kernels::cuda::driver::{Address, Argument, Command, DType, Ticket};
use crate::kernels::cuda::weights::Allocation;
use crate::kernels::cuda::{Cuda, Gradients};
use crate::ranks::{Cut, PIECE, Sharing};

/// Bytes of an f64.
const DOUBLE: usize = size_of::<f64>();

/// What a rank has on its device beside its optimizer.
pub struct SharedUpdate {
    sharing: Sharing,
    /// Of the arena of weights.
    cut: Cut,
    /// The sum of the gradients of 2^i grains that waits for its neighbour, at i, and whether it waits.
    waiting: Vec<(Allocation, bool)>,
    /// Own grains that have ended since the last update.
    ended: u32,
    /// The loss of each grain of the batch, f64.
    losses: Allocation,
    /// The sum of squares of each block of the norm, f64.
    partials: Allocation,
    /// Every rank's piece of this rank's part.
    received: Allocation,
}

impl SharedUpdate {
    /// How the arena of weights is cut.
    #[must_use]
    pub fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Forgets the grains since the last update.
    pub fn forget(&mut self) {
        self.ended = 0;
        self.waiting.iter_mut().for_each(|(_, waits)| *waits = false);
    }
}

impl Cuda {
    /// What a training that is shared like this needs, with the optimizer of this rank's part in place of another.
    ///
    /// # Errors
    /// Out of memory, or the devices cannot be joined.
    pub fn share(&self, sharing: Sharing) -> Result<(SharedUpdate, Optimizer)> {
        let count = self.arena_count()?;
        let rank = sharing.ranks.rank();
        let cut = Cut::at_multiples(count, EACH_OF_NORM * THREADS, rank.world);
        let part = cut.of(rank);
        let optimizer = self.optimizer_of(part.clone())?;
        let allocation = |bytes: usize| Allocation::new(&self.queue, bytes.max(1));
        let levels = sharing.own_grains().len().max(1).ilog2();
        let slots = (0..levels).map(|_| Ok((allocation(count * DType::F32.bytes())?, false)));
        let received = match rank.world {
            1 => 0,
            world => part.len().min(PIECE) * world as usize,
        };
        if rank.world > 1 {
            self.driver().join(&sharing.ranks)?;
        }
        let shared = SharedUpdate {
            cut,
            waiting: slots.collect::<Result<_>>()?,
            ended: 0,
            losses: allocation(sharing.grains as usize * DOUBLE)?,
            partials: allocation(blocks_of_norm(count) * DOUBLE)?,
            received: allocation(received * DType::F32.bytes())?,
            sharing,
        };
        Ok((shared, optimizer))
    }

    /// Bytes that the tree of the gradients of so many grains takes on one device that computes all of them.
    ///
    /// # Errors
    /// The weights are not in one arena.
    pub fn grain_bytes(&self, grains: u32) -> Result<usize> {
        Ok(self.arena_count()? * DType::F32.bytes() * grains.max(1).ilog2() as usize)
    }

    /// into += from, of so many elements.
    fn add(&self, into: Address, from: Address, count: usize) -> Result<()> {
        let at = [into, from].map(Argument::At);
        self.over("add_gradients", EACH_OF_UPDATE, 0, &at, count)
    }

    /// Queues the end of a grain: its gradient goes into the tree, and is left zero but for the last of this rank's grains, in
    /// whose place their sum is left. Its loss is kept apart.
    ///
    /// # Errors
    /// Out of memory, or the device failed.
    pub fn end_grain(
        &self,
        shared: &mut SharedUpdate,
        optimizer: &Optimizer,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let count = self.arena_count()?;
        let bytes = count * DType::F32.bytes();
        let gradient = self.gradient_arena(gradients, 0)?;
        let own = shared.sharing.own_grains();
        let grain = own.start + shared.ended;
        self.queue.push(Command::Copy {
            from: optimizer.totals.at(),
            to: shared.losses.at().offset(grain as usize * DOUBLE),
            bytes: DOUBLE,
        });
        self.queue.push(Command::Clear {
            at: optimizer.totals.at(),
            bytes: DOUBLE,
        });
        shared.ended += 1;
        let is_last = shared.ended as usize == own.len();
        for (sum, waits) in &mut shared.waiting {
            if !*waits {
                if !is_last {
                    *waits = true;
                    let (from, to) = (gradient, sum.at());
                    self.queue.push(Command::Copy { from, to, bytes });
                    self.queue.push(Command::Clear { at: gradient, bytes });
                }
                break;
            }
            *waits = false;
            self.add(gradient, sum.at(), count)?;
        }
        Ok(())
    }

    /// Queues an update by the sum of all ranks' gradients, otherwise as [`Cuda::update`]. All ranks call it.
    ///
    /// # Errors
    /// The device or the exchange failed.
    pub fn update_shared(
        &self,
        (shared, optimizer): (&mut SharedUpdate, &Optimizer),
        gradients: &mut Gradients,
        adam: AdamW,
        update: Update,
        clip: f64,
    ) -> Result<Ticket> {
        shared.forget();
        let gradient = self.gradient_arena(gradients, 0)?;
        self.sum_of_ranks(shared, gradient)?;
        let (count, part, grains) = (self.arena_count()?, optimizer.part.clone(), shared.sharing.grains);
        let block = EACH_OF_NORM * THREADS;
        let first = part.start / block;
        let from = gradient.offset(part.start * DType::F32.bytes());
        self.squares(from, part.len(), shared.partials.at().offset(first * DOUBLE))?;
        if shared.sharing.is_shared() {
            let words = DOUBLE / DType::F32.bytes();
            let of_block = |at: usize| at.div_ceil(block) * words;
            self.queue
                .gather(shared.partials.at(), &shared.cut.mapped(of_block))?;
            let of_losses = Cut::at_multiples(grains as usize, 1, shared.sharing.ranks.rank().world);
            let of_losses = of_losses.mapped(|grain| grain * words);
            self.queue.gather(shared.losses.at(), &of_losses)?;
        }
        let settings = self.settings(adam, update, clip);
        let at = [shared.losses.at(), optimizer.totals.at()].map(Argument::At);
        let arguments = [&at[..], &[Argument::Number(grains)]].concat();
        // One warp, of which a thread works.
        self.one_block("fold_losses", 32, 0, arguments);
        self.decide(
            optimizer,
            shared.partials.at(),
            blocks_of_norm(count),
            settings.at(),
        );
        self.move_weights(optimizer, gradient, settings.at())?;
        drop(settings);
        for rest in [0..part.start, part.end..count] {
            if !rest.is_empty() {
                self.queue.push(Command::Clear {
                    at: gradient.offset(rest.start * DType::F32.bytes()),
                    bytes: rest.len() * DType::F32.bytes(),
                });
            }
        }
        self.gather_weights(shared, optimizer)?;
        self.queue.flush(true)?;
        self.fetch_outcome(optimizer)
    }

    /// Queues the sum over all ranks of their gradients: it takes the place of this rank's part.
    fn sum_of_ranks(&self, shared: &SharedUpdate, gradient: Address) -> Result<()> {
        let rank = shared.sharing.ranks.rank();
        if rank.world == 1 {
            return Ok(());
        }
        for number in 0..shared.cut.pieces(PIECE) {
            let runs = shared.cut.piece(number, PIECE);
            let own = runs[rank.rank as usize].clone();
            let received = shared.received.at();
            self.queue.exchange(gradient, &runs, received)?;
            let bytes = own.len() * DType::F32.bytes();
            // As `ranks::fold` adds on the host.
            let mut stride = 1;
            while stride < rank.world as usize {
                for first in (0..rank.world as usize).step_by(2 * stride) {
                    let second = received.offset((first + stride) * bytes);
                    self.add(received.offset(first * bytes), second, own.len())?;
                }
                stride *= 2;
            }
            let to = gradient.offset(own.start * DType::F32.bytes());
            if bytes > 0 {
                let from = received;
                self.queue.push(Command::Copy { from, to, bytes });
            }
        }
        Ok(())
    }

    /// Queues the gathering of the weights, of which every rank has its part.
    ///
    /// # Errors
    /// The exchange failed.
    pub fn gather_weights(&self, shared: &SharedUpdate, optimizer: &Optimizer) -> Result<()> {
        if !shared.sharing.is_shared() {
            return Ok(());
        }
        self.queue.gather(self.master(), &shared.cut)?;
        if self.element == DType::F32 {
            return Ok(());
        }
        let (part, count) = (&optimizer.part, self.arena_count()?);
        for rest in [0..part.start, part.end..count] {
            let at = [
                self.master().offset(rest.start * DType::F32.bytes()),
                self.working().offset(rest.start * self.element.bytes()),
            ];
            self.over("refresh", EACH_OF_UPDATE, 0, &at.map(Argument::At), rest.len())?;
        }
        Ok(())
    }
}
