//! How many rows evaluation and sampling put through a network at a time, and what memory a stage took.

use crate::manifest::{Objective, Stage};
use crate::model::Device;
use crate::model::footprint::{Footprint, TOKENS, cache_per_row, cached_rows};
use crate::sample::Query;
use crate::shapes::{Backbone, SHAPES, Shape};

/// What source, tokenize and pack hold at a time, whatever the corpus: 1 GB of text through all three takes 105 MB on two
/// threads; each further stage brings its buffers and tables.
pub const DATA_BYTES: u64 = 256 << 20;
/// Token rows that evaluation and sampling put through a GPU at a time: every one of its multiprocessors has some tiles of
/// each product to do.
const DEVICE_TOKENS: usize = 1 << 16;
/// Bytes of a drawn token: 4 each as the sampler sees it, in the network's chain and in the text, and a question of a step.
const DRAWN_TOKEN: u64 = 12 + size_of::<Query>() as u64;
/// Bytes of a given token: as it is read, and as the sampler keeps it.
const GIVEN_TOKEN: u64 = 8;

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

/// Memory in bytes that evaluation or sampling is estimated to take, by the stages that it consumes: two copies of the weights
/// of the model, and the activations of its rows.
pub(super) fn of_inference(inputs: &[&Stage]) -> Option<u64> {
    let (shape, objective) = model_of(inputs)?;
    let (backbone, answered) = (objective.backbone(), objective.answered());
    let footprint = Footprint::of(shape, backbone, answered);
    let bytes = 8 * footprint.parameters + rows_at_a_time(shape, Device::Cpu) * footprint.training_per_row;
    Some(bytes as u64)
}

/// The same of sampling `count` rows, or `count` of each of `texts` given ones where there are some: the tokens of all rows, and
/// keys and values, which a model keeps that draws from left to right.
pub(super) fn of_sampling(inputs: &[&Stage], count: u32, texts: u32) -> Option<u64> {
    let (shape, objective) = model_of(inputs)?;
    let rows = u64::from(count) * u64::from(texts.max(1));
    let tokens = (rows * DRAWN_TOKEN + u64::from(texts) * GIVEN_TOKEN) * shape.length as u64;
    let kept = match objective.backbone() {
        Backbone::Dit => 0,
        Backbone::Transformer => {
            cached_rows(shape, usize::try_from(rows).unwrap_or(usize::MAX)) * cache_per_row(shape)
        }
    };
    Some(of_inference(inputs)? + tokens + kept as u64)
}

/// Shape and objective of the model among the stages.
fn model_of(inputs: &[&Stage]) -> Option<(&'static Shape, Objective)> {
    let (shape, objective) = inputs.iter().find_map(|input| match input {
        Stage::Train(train) => Some((&train.shape, train.objective)),
        Stage::Checkpoint(checkpoint) => Some((&checkpoint.shape, checkpoint.objective.unwrap_or_default())),
        _ => None,
    })?;
    Some((SHAPES.find(shape)?, objective))
}

/// Resets [`peak`]. Where the system refuses, the peak stays that of the process's whole life.
pub fn reset_peak() {
    // man 5 proc: 5 resets the peak resident set size.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The process's peak resident memory since [`reset_peak`] in bytes, where the system reports it (Linux).
#[must_use]
pub fn peak() -> Option<u64> {
    field("VmHWM:")
}

/// The process's resident memory in bytes, where the system reports it (Linux).
#[must_use]
pub fn resident() -> Option<u64> {
    field("VmRSS:")
}

/// The machine's memory in bytes, where the system reports it (Linux).
#[must_use]
pub fn installed() -> Option<u64> {
    number("/proc/meminfo", "MemTotal:")
}

/// Memory that processes may still take in bytes, where the system reports it (Linux): of the machine, and of the control group
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

/// A number of kilobytes from a file of the system, in bytes.
fn number(file: &str, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(file).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    #[test]
    fn rows_at_a_time_are_more_on_a_gpu() {
        for shape in SHAPES.iter() {
            assert!(rows_at_a_time(shape, Device::Cpu) >= 1);
            assert!(rows_at_a_time(shape, Device::Cuda) > rows_at_a_time(shape, Device::Cpu));
        }
    }

    #[test]
    fn memory_of_sampling_knows_kept_keys_and_values() {
        let train = |objective: &str| -> Stage {
            let json = format!(
                "{{ \"kind\": \"train\", \"from\": \"rows\", \"shape\": \"tiny\", \"steps\": 1, \
                 \"objective\": {{ \"kind\": \"{objective}\" }} }}"
            );
            serde_json::from_str(&json).unwrap()
        };
        let more = |objective, count, texts| {
            let train = train(objective);
            of_sampling(&[&train], count, texts).unwrap() - of_inference(&[&train]).unwrap()
        };
        let tokens = |rows: u64| rows * 128 * DRAWN_TOKEN;
        // By hand: 8 bytes · 4 blocks · 128 tokens · 128, of 2,048 rows at most.
        assert_eq!(more("ar", 3, 0), (3 << 19) + tokens(3));
        assert_eq!(more("ar", 1_000_000, 0), (1 << 30) + tokens(1_000_000));
        assert_eq!(more("mdlm", 3, 0), tokens(3));
        // Of each of four given texts.
        assert_eq!(more("ar", 3, 4), (12 << 19) + tokens(12) + 4 * 128 * GIVEN_TOKEN);
        assert_eq!(of_sampling(&[], 3, 0), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_measured() {
        assert!(peak().unwrap() >= 1 << 20);
        assert!(resident().unwrap() <= peak().unwrap());
        assert!((1 << 20..=installed().unwrap()).contains(&available().unwrap()));
    }
}
