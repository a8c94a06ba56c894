//! A GPU is tried before it is trusted: the smallest network computes on it and on the CPU, in f32 and in bf16. What is
//! wrong there (a driver that computes nonsense, memory that fails, a kernel of ours that a new architecture takes
//! otherwise) would else show as a model that does not learn, or not show at all.

use super::{Batch, Device, Learner, build_learner, initial};
use crate::error::{Error, Result};
use crate::kernels::{Dropout, VocabSupport};
use crate::precision::Precision;
use crate::rng::{Random, Stream};
use crate::shapes::{Backbone, SHAPES};

/// Rows of the batch.
const ROWS: usize = 3;
/// How far a GPU's likelihoods and gradient may be from the CPU's, as a part of their norm. Rounding makes far less (f32 about
/// 1e-6; bf16, which rounds to 2^-9, about 1e-2), a wrong index or a race far more.
const TOLERANCES: [(Precision, f64); 2] = [(Precision::F32, 1e-2), (Precision::Bf16, 0.2)];

/// Compares a device with the CPU.
///
/// # Errors
/// The device's results differ from the CPU's by more than the tolerance, or it fails.
pub fn self_test(device: Device) -> Result<()> {
    let shape = SHAPES
        .find("nano")
        .ok_or_else(|| Error::internal("there is no shape `nano`"))?;
    let backbone = Backbone::Dit;
    let weights = initial(shape, backbone, 1);
    // Of a fresh network most gradients are zero: those beyond the first gates too are to be seen.
    let random = Random::new(2, Stream::Init);
    let weights: Vec<f32> = weights
        .iter()
        .enumerate()
        .map(|(at, weight)| weight + 0.1 * (random.uniform(0, at as u64, 0) as f32 - 0.5))
        .collect();
    let expected = learnt(&mut *build_learner(
        shape,
        backbone,
        Device::Cpu,
        Precision::F32,
        &weights,
    )?)?;
    for (precision, tolerance) in TOLERANCES {
        let found = learnt(&mut *build_learner(shape, backbone, device, precision, &weights)?)?;
        for (what, (found, expected)) in ["likelihoods", "gradient"]
            .iter()
            .zip(found.iter().zip(&expected))
        {
            let off = apart(found, expected);
            if off > tolerance || off.is_nan() {
                let mode = if precision == Precision::F32 {
                    "f32"
                } else {
                    "bf16"
                };
                return Err(Error::environment(format!(
                    "pass the GPU self-test: {what} in {mode} differ from the CPU's by {off:.2} (relative norm)"
                ))
                .hint(
                    "try another version of the driver, NVRTC or cublasLt; `mdlm doctor` lists those installed; \
                     or use `--device cpu`",
                ));
            }
        }
    }
    Ok(())
}

/// Likelihoods and gradient of two passes each, the second of which a GPU replays.
fn learnt(learner: &mut dyn Learner) -> Result<[Vec<f32>; 2]> {
    let shape = learner.network().shape();
    let support = VocabSupport::without_mask(shape.vocabulary as u32 - 1, shape.vocabulary as u32);
    let random = Random::new(3, Stream::Mask);
    let count = ROWS * shape.length;
    let targets: Vec<u32> = (0..count as u64)
        .map(|at| random.below(u64::from(support.mask), 0, at, 0) as u32)
        .collect();
    let positions: Vec<u32> = (0..count as u32).filter(|at| at % 3 != 0).collect();
    let mut tokens = targets.clone();
    for &at in &positions {
        tokens[at as usize] = support.mask;
    }
    let targets: Vec<u32> = positions.iter().map(|&at| targets[at as usize]).collect();
    let batch = Batch {
        tokens: &tokens,
        sigma: &[0.0],
        positions: &positions,
        targets: &targets,
        weights: &vec![1.0 / count as f32; positions.len()],
        dropout: Some(Dropout {
            rate: 0.1,
            random: Random::new(4, Stream::Dropout),
            step: 0,
            first_row: 0,
        }),
        ..Batch::default()
    };
    for _ in 0..2 {
        learner.accumulate(&batch, support)?;
    }
    learner.network().nll(&batch, support)?;
    let nll = learner.network().nll(&batch, support)?;
    let mut gradient = Vec::new();
    learner.reduce(&mut |all, _| {
        gradient = all.to_vec();
        Ok(())
    })?;
    Ok([nll, gradient])
}

/// |found - expected| / |expected|
fn apart(found: &[f32], expected: &[f32]) -> f64 {
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU passes for a GPU, but for its bf16, which rounds factors alone.
    #[test]
    fn device_with_the_same_results_passes() {
        self_test(Device::Cpu).unwrap();
        assert_eq!(apart(&[3.0, 0.0], &[3.0, 4.0]), 0.8);
        assert!(apart(&[f32::NAN], &[1.0]).is_nan());
    }
}
