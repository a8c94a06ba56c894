//! Where the time goes: wall time and matrix products of each operation, forward and backward, added up over the
//! process.
//!
//! Two clock readings an operation, some 50 ns beside tens of microseconds at least, so it is always on. Products are
//! counted where they are computed, whichever thread does it, and claimed by the operation that waits for them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Operation;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An operation; the readout's forward pass includes its gradients in training.
    Operation(Operation),
    /// Rows read and noised.
    Noise,
    /// Norm of the gradient, optimizer, moving average.
    Update,
    /// Numbers that ranks send each other, and the wait for the other ranks.
    Exchange,
}

impl From<Operation> for Part {
    fn from(operation: Operation) -> Self {
        Self::Operation(operation)
    }
}

impl Part {
    /// How many parts there are.
    const COUNT: usize = Operation::ALL.len() + 3;

    /// Every part, in the order of [`Part::index`].
    fn all() -> impl Iterator<Item = Self> {
        let operations = Operation::ALL.into_iter().map(Self::Operation);
        operations.chain([Self::Noise, Self::Update, Self::Exchange])
    }

    fn index(self) -> usize {
        match self {
            Self::Operation(operation) => operation as usize,
            Self::Noise => Operation::ALL.len(),
            Self::Update => Operation::ALL.len() + 1,
            Self::Exchange => Operation::ALL.len() + 2,
        }
    }

    /// Its name in profiles.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operation(operation) => operation.name(),
            Self::Noise => "noise",
            Self::Update => "update",
            Self::Exchange => "exchange",
        }
    }
}

/// Nanoseconds, calls and floating-point operations, forward then backward.
static SPENT: [[[AtomicU64; 3]; 2]; Part::COUNT] =
    [const { [const { [const { AtomicU64::new(0) }; 3] }; 2] }; Part::COUNT];

/// Floating-point operations of all matrix products so far.
static FLOPS: AtomicU64 = AtomicU64::new(0);

/// Counts a matrix product: 2 m n k operations.
pub(super) fn count_product(m: usize, n: usize, k: usize) {
    FLOPS.fetch_add(2 * (m * n * k) as u64, Relaxed);
}

/// Adds the time until it is dropped.
pub struct Timer {
    spent: &'static [AtomicU64; 3],
    start: Instant,
    flops: u64,
}

impl Drop for Timer {
    fn drop(&mut self) {
        let flops = FLOPS.load(Relaxed) - self.flops;
        let amounts = [self.start.elapsed().as_nanos() as u64, 1, flops];
        for (sum, amount) in self.spent.iter().zip(amounts) {
            sum.fetch_add(amount, Relaxed);
        }
    }
}

/// Times a forward pass until the answer is dropped.
#[must_use]
pub fn forward(part: impl Into<Part>) -> Timer {
    timer(part.into(), 0)
}

/// Times a backward pass until the answer is dropped.
#[must_use]
pub fn backward(part: impl Into<Part>) -> Timer {
    timer(part.into(), 1)
}

fn timer(part: Part, direction: usize) -> Timer {
    Timer {
        spent: &SPENT[part.index()][direction],
        start: Instant::now(),
        flops: FLOPS.load(Relaxed),
    }
}

/// What an operation took in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Wall time.
    pub time: Duration,
    /// Calls.
    pub calls: u64,
    /// Floating-point operations of its matrix products.
    pub flops: u64,
}

impl Amount {
    fn read([nanoseconds, calls, flops]: &[AtomicU64; 3]) -> Self {
        Self {
            time: Duration::from_nanos(nanoseconds.load(Relaxed)),
            calls: calls.load(Relaxed),
            flops: flops.load(Relaxed),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            time: self.time.saturating_sub(before.time),
            calls: self.calls - before.calls,
            flops: self.flops - before.flops,
        }
    }
}

/// What an operation took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The operation.
    pub operation: &'static str,
    /// Forward.
    pub forward: Amount,
    /// Backward.
    pub backward: Amount,
}

impl Spent {
    /// What was added since an earlier snapshot.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            operation: self.operation,
            forward: self.forward.since(before.forward),
            backward: self.backward.since(before.backward),
        }
    }

    /// Floating-point operations of its matrix products, both ways.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.forward.flops + self.backward.flops
    }
}

/// What every operation took since the process began.
#[must_use]
pub fn snapshot() -> Vec<Spent> {
    Part::all()
        .zip(&SPENT)
        .map(|(part, [forward, backward])| Spent {
            operation: part.name(),
            forward: Amount::read(forward),
            backward: Amount::read(backward),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_added_to_its_operation() {
        let indices: Vec<usize> = Part::all().map(Part::index).collect();
        assert_eq!(indices, (0..Part::COUNT).collect::<Vec<_>>());
        let gather = Part::from(Operation::Gather);
        let before = snapshot()[gather.index()];
        drop(backward(gather));
        let after = snapshot()[gather.index()];
        assert_eq!(after.operation, "gather");
        assert!(after.backward.calls > before.backward.calls && after.backward.time >= before.backward.time);
    }
}
