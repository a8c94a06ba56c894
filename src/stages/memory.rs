//! How many rows may go through a network at a time, and what memory a stage took.

use crate::model::footprint::Footprint;
use crate::shapes::Shape;

/// Memory for the activations of a micro-batch in training: with weights, gradients and moments beside it, a machine of
/// 4 GB still trains the small shapes, and a few hundred tokens already keep the matrix products busy.
const TRAINING_BUDGET: u64 = 1 << 30;
/// The same for evaluation and sampling, where only the current layer's activations live.
const INFERENCE_BUDGET: u64 = 1 << 28;

/// Bytes of activations that a row keeps for its gradient.
fn row_bytes(shape: &Shape) -> u64 {
    Footprint::of(shape).training_per_row as u64
}

/// Bytes a row while one layer is computed, about.
fn inference_bytes(shape: &Shape) -> u64 {
    let token = 16 * shape.width + shape.heads * shape.length;
    (4 * shape.length * (token + shape.vocabulary)) as u64
}

/// The largest divisor of the batch whose activations fit the budget: fewer, larger micro-batches lose less time
/// between them. The result of training does not depend on it.
#[must_use]
pub fn micro_batch(shape: &Shape, batch: u32) -> u32 {
    let fitting = (TRAINING_BUDGET / row_bytes(shape)).max(1);
    (1..=batch)
        .rev()
        .find(|&rows| batch.is_multiple_of(rows) && u64::from(rows) <= fitting)
        .unwrap_or(1)
}

/// Rows that evaluation and sampling put through the network at a time.
#[must_use]
pub fn rows_at_a_time(shape: &Shape) -> usize {
    (INFERENCE_BUDGET / inference_bytes(shape)).clamp(1, 64) as usize
}

/// Lets [`peak`] begin anew. Where the system refuses, the peak stays that of the process's whole life.
pub fn reset_peak() {
    // man 5 proc: 5 resets the peak resident set size.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The process's peak resident memory since [`reset_peak`] in bytes, where the system tells (Linux).
#[must_use]
pub fn peak() -> Option<u64> {
    field("VmHWM:")
}

/// The process's resident memory in bytes, where the system tells (Linux).
#[must_use]
pub fn resident() -> Option<u64> {
    field("VmRSS:")
}

fn field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Bytes as a person reads them: `1.25 GB`.
#[must_use]
pub fn readable(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 {
        format!("{:.2} GB", bytes / 1e9)
    } else {
        format!("{:.0} MB", bytes / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    #[test]
    fn micro_batches_divide_and_shrink_with_the_shape() {
        for shape in SHAPES {
            let rows = micro_batch(shape, 512);
            assert_eq!(512 % rows, 0);
            assert!(rows == 1 || u64::from(rows) * row_bytes(shape) <= TRAINING_BUDGET);
            assert!(rows_at_a_time(shape) >= 1);
        }
        let of = |name| micro_batch(Shape::find(name).unwrap(), 512);
        assert!(of("nano") > of("tiny") && of("tiny") > of("lm1b-small"));
        assert_eq!(micro_batch(Shape::find("nano").unwrap(), 7), 7);
        assert_eq!(of("owt-medium"), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_told() {
        assert!(peak().unwrap() >= 1 << 20);
        assert!(resident().unwrap() <= peak().unwrap());
        assert_eq!(readable(1_250_000_000), "1.25 GB");
        assert_eq!(readable(3_400_000), "3 MB");
    }
}
