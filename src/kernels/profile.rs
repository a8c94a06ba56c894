//! Where the time goes: wall time of each operation, forward and backward, added up over the process.
//!
//! Two clock readings an operation, some 50 ns beside tens of microseconds at least, so it is always on.

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
    /// Output layer, softmax, likelihood; in training with their gradients.
    Nll,
}

/// Every part, in the order of [`Part`], with its name.
const PARTS: [(Part, &str); 9] = [
    (Part::Embed, "embed"),
    (Part::Linear, "linear"),
    (Part::LinearGelu, "linear_gelu"),
    (Part::Silu, "silu"),
    (Part::ModulatedNorm, "modulated_norm"),
    (Part::Attention, "attention"),
    (Part::GatedResidual, "gated_residual"),
    (Part::Gather, "gather"),
    (Part::Nll, "nll"),
];

/// Nanoseconds and calls, forward then backward.
static SPENT: [[[AtomicU64; 2]; 2]; PARTS.len()] =
    [const { [const { [const { AtomicU64::new(0) }; 2] }; 2] }; PARTS.len()];

/// Adds the time until it is dropped.
pub struct Timer {
    spent: &'static [AtomicU64; 2],
    start: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.spent[0].fetch_add(self.start.elapsed().as_nanos() as u64, Relaxed);
        self.spent[1].fetch_add(1, Relaxed);
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
    }
}

/// The time spent in an operation since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The operation.
    pub operation: &'static str,
    /// Forward time and calls.
    pub forward: (Duration, u64),
    /// Backward time and calls.
    pub backward: (Duration, u64),
}

/// The time spent in every operation since the process began.
#[must_use]
pub fn snapshot() -> Vec<Spent> {
    let read = |[nanoseconds, calls]: &[AtomicU64; 2]| {
        (
            Duration::from_nanos(nanoseconds.load(Relaxed)),
            calls.load(Relaxed),
        )
    };
    PARTS
        .iter()
        .zip(&SPENT)
        .map(|((_, operation), [forward, backward])| Spent {
            operation,
            forward: read(forward),
            backward: read(backward),
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
        assert!(after.backward.1 > before.backward.1 && after.backward.0 >= before.backward.0);
    }
}
