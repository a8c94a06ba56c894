//! Where the time goes: wall time and matrix products of each operation, forward and backward, added up over the
//! process.
//!
//! Two clock readings an operation, some 50 ns beside tens of microseconds at least, so it is always on. Products are
//! counted where they are computed, whichever thread does it, and claimed by the operation that waits for them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What is timed: an operation and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Token rows looked up.
    Embed,
    /// Linear layers.
    Linear,
    /// Linear layers with GELU.
    LinearGelu,
    /// Activations of the conditioning.
    Silu,
    /// LayerNorm and modulation.
    ModulatedNorm,
    /// Rotary, scores, softmax, values.
    Attention,
    /// Gate, dropout, residual.
    GatedResidual,
    /// Rows picked.
    Gather,
    /// Output layer, softmax, loss; in training with their gradients.
    Readout,
    /// Rows read and noised.
    Noise,
    /// Norm of the gradient, optimizer, moving average.
    Update,
    /// Tokens drawn from logits.
    Categorical,
}

/// Every part, in the order of [`Part`], with its name.
const PARTS: [(Part, &str); 12] = [
    (Part::Embed, "embed"),
    (Part::Linear, "linear"),
    (Part::LinearGelu, "linear_gelu"),
    (Part::Silu, "silu"),
    (Part::ModulatedNorm, "modulated_norm"),
    (Part::Attention, "attention"),
    (Part::GatedResidual, "gated_residual"),
    (Part::Gather, "gather"),
    (Part::Readout, "readout"),
    (Part::Noise, "noise"),
    (Part::Update, "update"),
    (Part::Categorical, "categorical"),
];

/// Nanoseconds, calls and floating-point operations, forward then backward.
static SPENT: [[[AtomicU64; 3]; 2]; PARTS.len()] =
    [const { [const { [const { AtomicU64::new(0) }; 3] }; 2] }; PARTS.len()];

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
pub fn forward(part: Part) -> Timer {
    timer(part, 0)
}

/// Times a backward pass until the answer is dropped.
#[must_use]
pub fn backward(part: Part) -> Timer {
    timer(part, 1)
}

fn timer(part: Part, direction: usize) -> Timer {
    Timer {
        spent: &SPENT[part as usize][direction],
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
    PARTS
        .iter()
        .zip(&SPENT)
        .map(|((_, operation), [forward, backward])| Spent {
            operation,
            forward: Amount::read(forward),
            backward: Amount::read(backward),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_added_to_its_part() {
        for (i, (part, _)) in PARTS.iter().enumerate() {
            assert_eq!(*part as usize, i, "PARTS is in the order of Part");
        }
        let before = snapshot()[Part::Gather as usize];
        drop(backward(Part::Gather));
        let after = snapshot()[Part::Gather as usize];
        assert!(after.backward.calls > before.backward.calls && after.backward.time >= before.backward.time);
    }
}
