//! How many rows may go through a network at a time, and what memory a stage took.

use crate::error::Result;
use crate::kernels::gemm::Precision;
use crate::model::footprint::Footprint;
use crate::model::{Device, Network, on_device};
use crate::shapes::Shape;

/// Token rows that go through the network at a time: enough for the matrix products to be at their speed, and few enough
/// for an operation to find in the caches what the one before it has written. Measured with `mdlm bench --micro-batch`:
/// `tiny` and `mini` train fastest with 16 rows of 128 tokens, a few per cent slower with 8 and 32, a quarter with 2.
const TOKENS: usize = 2048;
/// The same on a GPU: every one of its multiprocessors has some tiles of each product to do.
const DEVICE_TOKENS: usize = 1 << 16;
/// Memory for the activations of a micro-batch in training, beside weights, gradients and moments: bounds the large shapes.
const ACTIVATIONS: usize = 1 << 30;

/// Rows of a micro-batch in training: the largest divisor of the batch within [`TOKENS`] and [`ACTIVATIONS`]. The result
/// of training does not depend on it.
#[must_use]
pub fn micro_batch(shape: &Shape, batch: u32) -> u32 {
    let fitting = (TOKENS / shape.length).min(ACTIVATIONS / Footprint::of(shape).training_per_row);
    (1..=batch)
        .rev()
        .find(|&rows| batch.is_multiple_of(rows) && rows as usize <= fitting)
        .unwrap_or(1)
}

/// Rows of a micro-batch in training, by that network: those that are told, or as many as its device's memory holds, or the
/// processor's caches.
///
/// # Errors
/// Not even one row fits into the device's memory, or not as many as are told; or the device failed.
pub fn micro_batch_of(
    network: &mut dyn Network,
    precision: Precision,
    batch: u32,
    told: Option<u32>,
) -> Result<u32> {
    let shape = network.shape();
    let Some(resident) = network.resident() else {
        return Ok(told.unwrap_or_else(|| micro_batch(shape, batch)));
    };
    let (element, room) = (on_device::element(precision), resident.room()?);
    let rows = match told {
        Some(rows) => on_device::fits(shape, element, rows, batch, room).map(|()| rows),
        None => on_device::fitting(shape, element, batch, room),
    }?;
    resident.reserve(rows as usize, batch as usize)?;
    Ok(rows)
}

/// Rows that evaluation and sampling put through the network at a time.
#[must_use]
pub fn rows_at_a_time(shape: &Shape, device: Device) -> usize {
    let tokens = if device == Device::Cuda {
        DEVICE_TOKENS
    } else {
        TOKENS
    };
    (tokens / shape.length).max(1)
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

/// The machine's memory in bytes, where the system tells (Linux).
#[must_use]
pub fn installed() -> Option<u64> {
    number("/proc/meminfo", "MemTotal:")
}

/// Memory that processes may still take in bytes, where the system tells (Linux): of the machine, and of the control group
/// that the process is in.
#[must_use]
pub fn available() -> Option<u64> {
    let of_machine = number("/proc/meminfo", "MemAvailable:");
    let group = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let of_group = group("max").map(|max| max.saturating_sub(group("current").unwrap_or(0)));
    of_machine.into_iter().chain(of_group).min()
}

fn field(name: &str) -> Option<u64> {
    number("/proc/self/status", name)
}

/// A number of kilobytes that a file of the system tells, in bytes.
fn number(file: &str, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(file).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Memory as a person reads it, in whole megabytes: `1.25 GB`.
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
    fn micro_batches_divide_and_shrink_with_the_rows() {
        for shape in SHAPES {
            let rows = micro_batch(shape, 512);
            assert_eq!(512 % rows, 0);
            let (tokens, bytes) = (shape.length, Footprint::of(shape).training_per_row);
            assert!(rows == 1 || rows as usize * tokens <= TOKENS && rows as usize * bytes <= ACTIVATIONS);
            assert!(rows_at_a_time(shape, Device::Cpu) >= 1);
            assert!(rows_at_a_time(shape, Device::Cuda) > rows_at_a_time(shape, Device::Cpu));
        }
        let of = |name, batch| micro_batch(Shape::find(name).unwrap(), batch);
        assert_eq!(
            (of("nano", 512), of("mini", 512), of("lm1b-small", 512)),
            (64, 16, 8)
        );
        assert_eq!((of("nano", 7), of("mini", 24), of("mini", 23)), (7, 12, 1));
        assert_eq!(of("owt-medium", 512), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_told() {
        assert!(peak().unwrap() >= 1 << 20);
        assert!(resident().unwrap() <= peak().unwrap());
        assert!((1 << 20..=installed().unwrap()).contains(&available().unwrap()));
        assert_eq!(readable(1_250_000_000), "1.25 GB");
        assert_eq!(readable(3_400_000), "3 MB");
    }
}
