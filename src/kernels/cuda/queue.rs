//! What a device is to do, gathered and handed over at once.
//!
//! Operations do not run when they are called: they add commands to a queue, and ask for buffers in a [`BufferPlan`], a plan of
//! one arena whose address is not known yet. When a result is wanted, or a step is complete, the queue is flushed: the arena
//! is made as large as the plan needs it, addresses become the device's, the host's inputs (tokens, lists, weights of
//! positions) go to the device in one copy, and the driver gets the commands. Hence a step has no synchronization within,
//! its memory is planned, not guessed, and a driver that sees the same commands again can launch them as one graph: all that
//! changes from step to step lies in memory.
//!
//! Three kinds of memory: the arena, for activations; the feed, which the host fills; and what is kept, for weights.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::buffer_plan::BufferPlan;
use super::driver::{Address, Command, Driver, Ticket};
use crate::error::Result;
use crate::ranks::Cut;

/// Where the plans' addresses begin: no device's memory lies there.
const ARENA: u64 = 1 << 62;
const FEED: u64 = 1 << 61;

/// A device, its memory, and what it is still to do.
pub struct Queue {
    driver: Box<dyn Driver>,
    state: RefCell<QueueState>,
}

#[derive(Default)]
struct QueueState {
    commands: Vec<Command>,
    arena: PlannedMemory,
    /// Bytes of the arena that held buffers when the queue was last flushed.
    arena_kept: usize,
    feed: PlannedMemory,
    /// What the feed holds, as the host knows it.
    host: Vec<u8>,
    /// What of it the device does not know yet.
    news: Option<Range<usize>>,
    /// Places of the feed that were let go: commands that wait may still read them.
    leaving: Vec<(usize, usize)>,
    kept: Vec<(Address, usize)>,
    /// What of it was let go: commands that wait may still use it.
    kept_leaving: Vec<(Address, usize)>,
}

/// A plan, and the memory that it is carried out in.
#[derive(Default)]
struct PlannedMemory {
    plan: BufferPlan,
    /// Bytes that it is to have at least.
    least: usize,
    there: Option<(Address, usize)>,
}

impl PlannedMemory {
    /// Bytes that it needs.
    fn needed(&self) -> usize {
        self.plan.peak().max(self.least)
    }

    /// Makes the memory as large as the plan, its first `kept` bytes kept. True if it has moved.
    fn fit(&mut self, driver: &dyn Driver, kept: usize) -> Result<bool> {
        let needed = self.needed();
        match self.there {
            Some((_, size)) if size >= needed => return Ok(false),
            None if needed == 0 => return Ok(false),
            None => self.there = Some((driver.allocate(needed)?, needed)),
            Some((at, size)) if kept == 0 => {
                // Not both at once: the larger one may need the smaller one's room.
                self.there = None;
                driver.free(at, size);
                self.there = Some((driver.allocate(needed)?, needed));
            }
            Some((at, size)) => self.there = Some((driver.grow(at, size, kept, needed)?, needed)),
        }
        Ok(true)
    }
}

/// The device's memory that is taken, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What is kept: weights, gradients, moments.
    pub kept: usize,
    /// What the host fills.
    pub feed: usize,
    /// The arena: its plan at most so far, or what was reserved.
    pub arena: usize,
    /// Buffers of the arena that were there at once, at most: what a perfect plan would need.
    pub arena_used: usize,
}

impl Taken {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        self.kept + self.feed + self.arena
    }
}

impl Queue {
    /// All of the device's.
    #[must_use]
    pub fn new(driver: Box<dyn Driver>) -> Self {
        Self {
            driver,
            state: RefCell::default(),
        }
    }

    /// The driver.
    #[must_use]
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// What is taken, and planned.
    #[must_use]
    pub fn taken(&self) -> Taken {
        let state = self.state.borrow();
        Taken {
            kept: state.kept.iter().map(|(_, bytes)| bytes).sum(),
            feed: state.feed.needed(),
            arena: state.arena.needed(),
            arena_used: state.arena.plan.most_used(),
        }
    }

    /// Has the arena taken so large at once, from the next flush on.
    pub fn reserve(&self, bytes: usize) {
        let arena = &mut self.state.borrow_mut().arena;
        arena.least = arena.least.max(bytes);
    }

    /// Adds a command.
    pub fn push(&self, command: Command) {
        self.state.borrow_mut().commands.push(command);
    }

    /// Memory for good; what is in it is undefined.
    ///
    /// # Errors
    /// Out of memory.
    pub fn keep(&self, bytes: usize) -> Result<Address> {
        let bytes = BufferPlan::size(bytes);
        let at = self.driver.allocate(bytes)?;
        self.state.borrow_mut().kept.push((at, bytes));
        Ok(at)
    }

    /// A buffer; what is in it is undefined.
    #[must_use]
    pub fn buffer(self: &Rc<Self>, bytes: usize) -> Buffer {
        let mut state = self.state.borrow_mut();
        let place = state.arena.plan.take(bytes);
        let at = Address(ARENA).offset(place);
        state.commands.push(Command::Live { at, bytes });
        Buffer {
            at,
            bytes,
            place,
            queue: Rc::clone(self),
        }
    }

    /// A buffer of zeros.
    #[must_use]
    pub fn zeros(self: &Rc<Self>, bytes: usize) -> Buffer {
        let buffer = self.buffer(bytes);
        self.push(Command::Clear { at: buffer.at, bytes });
        buffer
    }

    /// A buffer with this content, for commands to come.
    #[must_use]
    pub fn upload(self: &Rc<Self>, content: &[u8]) -> Buffer {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let place = state.feed.plan.take(content.len());
        let end = place + content.len();
        if state.host.len() < end {
            state.host.resize(end, 0);
        }
        state.host[place..end].copy_from_slice(content);
        state.news = Some(match state.news.take() {
            None => place..end,
            Some(news) => news.start.min(place)..news.end.max(end),
        });
        Buffer {
            at: Address(FEED).offset(place),
            bytes: content.len(),
            place,
            queue: Rc::clone(self),
        }
    }

    /// Hands everything over to the driver; see [`Driver::run`] for `again`.
    ///
    /// # Errors
    /// Out of memory, or the device failed.
    pub fn flush(&self, again: bool) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let driver = &*self.driver;
        let kept = std::mem::take(&mut state.arena_kept);
        state.arena.fit(driver, kept)?;
        state.arena_kept = state.arena.plan.end();
        if state.feed.fit(driver, 0)? {
            state.news = Some(0..state.host.len());
        }
        if let (Some(news), Some((at, _))) = (state.news.take(), state.feed.there) {
            driver.write(at.offset(news.start), &state.host[news])?;
        }
        let mut commands = std::mem::take(&mut state.commands);
        for command in &mut commands {
            command.relocate(|at| *at = state.real(*at));
        }
        for (place, bytes) in std::mem::take(&mut state.leaving) {
            state.feed.plan.give(place, bytes);
        }
        if !commands.is_empty() {
            driver.run(commands, again)?;
        }
        for (at, bytes) in std::mem::take(&mut state.kept_leaving) {
            driver.free(at, bytes);
        }
        Ok(())
    }

    /// Gives memory back that [`Queue::keep`] gave, when what is queued is done.
    pub fn drop_kept(&self, at: Address) {
        let mut state = self.state.borrow_mut();
        if let Some(index) = state.kept.iter().position(|(kept, _)| *kept == at) {
            let kept = state.kept.swap_remove(index);
            state.kept_leaving.push(kept);
        }
    }

    /// Copies memory to the host, after all that is queued.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self, at: Address, bytes: usize) -> Result<Vec<u8>> {
        self.flush(false)?;
        let at = self.state.borrow().real(at);
        let mut content = vec![0; bytes];
        self.driver.read(at, &mut content)?;
        Ok(content)
    }

    /// Begins to copy memory to the host, after all that is queued.
    ///
    /// # Errors
    /// The device failed.
    pub fn fetch(&self, at: Address, bytes: usize) -> Result<Ticket> {
        self.flush(false)?;
        let at = self.state.borrow().real(at);
        self.driver.fetch(at, bytes)
    }

    /// Exchanges runs of kept memory between the ranks, after all that is queued; see [`Driver::exchange`].
    ///
    /// # Errors
    /// The device or the exchange failed.
    pub fn exchange(&self, own: Address, runs: &[Range<usize>], received: Address) -> Result<()> {
        self.flush(true)?;
        self.driver.exchange(own, runs, received)
    }

    /// Gathers words of kept memory from the ranks, after all that is queued; see [`Driver::gather`].
    ///
    /// # Errors
    /// The device or the exchange failed.
    pub fn gather(&self, at: Address, cut: &Cut) -> Result<()> {
        self.flush(true)?;
        self.driver.gather(at, cut)
    }

    /// Writes to kept memory, after all that is queued.
    ///
    /// # Errors
    /// The device failed.
    pub fn write(&self, at: Address, content: &[u8]) -> Result<()> {
        self.flush(false)?;
        self.driver.write(at, content)
    }
}

impl QueueState {
    /// The device's address of a planned one.
    fn real(&self, at: Address) -> Address {
        let (base, piece) = match at.0 {
            ARENA.. => (ARENA, &self.arena),
            FEED.. => (FEED, &self.feed),
            _ => return at,
        };
        piece
            .there
            .map_or(at, |(start, _)| start.offset((at.0 - base) as usize))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Buffers hold the queue: none is left.
        let state = self.state.get_mut();
        let pieces = [state.arena.there, state.feed.there];
        let kept = state.kept.drain(..).chain(state.kept_leaving.drain(..));
        for (at, bytes) in pieces.into_iter().flatten().chain(kept) {
            self.driver.free(at, bytes);
        }
    }
}

/// Memory of the device, given back when it is dropped.
pub struct Buffer {
    at: Address,
    bytes: usize,
    place: usize,
    queue: Rc<Queue>,
}

impl Buffer {
    /// Where it begins, for commands.
    #[must_use]
    pub fn at(&self) -> Address {
        self.at
    }

    /// Whether it is of that device.
    #[must_use]
    pub fn is_of(&self, queue: &Rc<Queue>) -> bool {
        Rc::ptr_eq(&self.queue, queue)
    }

    /// Its length in bytes, as asked for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies it to the host, after all that is queued.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self) -> Result<Vec<u8>> {
        self.queue.read(self.at, self.bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.queue.state.borrow_mut();
        if self.at.0 >= ARENA {
            state.commands.push(Command::Idle { at: self.at });
            state.arena.plan.give(self.place, self.bytes);
        } else {
            state.leaving.push((self.place, self.bytes));
        }
    }
}
