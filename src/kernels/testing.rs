//! What the tests of the operations share: a case runs on any backend, and is held against the composite in f64.

use dfdx::shapes::{Const, ConstShape};

use super::composite::Composite;
use super::{Backend, Fused, ReadoutRequest, VocabSupport};
use crate::error::Result;
use crate::rng::{Random, Stream};

/// `count` numbers on [−1, 1), the same on every call with the same seed.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let random = Random::new(seed, Stream::Init);
    (0..count)
        .map(|i| (random.uniform(0, 0, i as u32) * 2.0 - 1.0) as f32)
        .collect()
}

/// Runs `f` on a pool of that many threads.
pub fn on_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("thread pool")
        .install(f)
}

/// Named results: values and gradients.
pub type Results = Vec<(&'static str, Vec<f32>)>;

/// A computation that any backend can run.
pub trait Case {
    /// Whether the CUDA backend takes its shapes.
    fn fits_cuda(&self) -> bool {
        true
    }

    /// Runs it, forward and backward.
    fn run<B: Backend>(&self, backend: &B) -> Result<Results>;
}

/// The reference.
pub type Exact = Composite<f64, dfdx::tensor::Cpu>;

/// The reference on the CPU.
pub fn exact() -> Exact {
    Composite::new(dfdx::tensor::Cpu::default())
}

/// Numbers of the reference are those that were computed by hand.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        // 1e-12: both sides are f64 over a few dozen terms of order one.
        assert!(
            (found - expected).abs() < 1e-12,
            "element {i}: {found} where {expected} belongs"
        );
    }
}

/// A weight of noise.
pub fn weight<B: Backend, S: ConstShape>(backend: &B, scale: f32, seed: u64) -> Result<B::Param<S>> {
    let values: Vec<f32> = noise(S::NUMEL, seed).into_iter().map(|x| x * scale).collect();
    backend.param(&values)
}

/// Rows of the table that activations under test are looked up in: what reaches it is the activation's gradient.
pub const TABLE: usize = 60;

/// A table of noise, whose rows serve as an activation.
pub fn table<B: Backend, const N: usize>(
    backend: &B,
    scale: f32,
    seed: u64,
) -> Result<B::Param<(Const<TABLE>, Const<N>)>> {
    weight(backend, scale, seed)
}

/// An activation of `rows` rows: row r is row r mod [`TABLE`] of the table.
pub fn look_up<B: Backend, const N: usize>(
    backend: &B,
    table: &B::Param<(Const<TABLE>, Const<N>)>,
    rows: usize,
) -> Result<B::Act<(usize, Const<N>)>> {
    let tokens: Vec<u32> = (0..rows).map(|row| (row % TABLE) as u32).collect();
    backend.embed(table, &backend.tokens(&tokens)?)
}

/// A scalar of an activation through a small head, whose gradient reaches every element; runs the tape.
pub fn descend<B: Backend, const N: usize>(
    backend: &B,
    y: &B::Act<(usize, Const<N>)>,
) -> Result<B::Gradients> {
    let rows = backend.values(y)?.len() / N;
    let head = weight::<B, (Const<7>, Const<N>)>(backend, 1.0, 101)?;
    let bias = weight::<B, (Const<7>,)>(backend, 1.0, 102)?;
    let targets: Vec<u32> = (0..rows).map(|row| (row * 5 % 6) as u32).collect();
    let weights: Vec<f32> = (0..rows).map(|row| 0.5 + (row % 3) as f32).collect();
    let readout = ReadoutRequest::cross_entropy(VocabSupport::without_mask(6, 7), &targets, &weights);
    let (loss, _) = backend.readout(y, &head, &bias, &readout)?;
    backend.backward(loss)
}

/// A copy of a weight's gradient.
pub fn gradient<B: Backend, S: ConstShape>(
    backend: &B,
    param: &B::Param<S>,
    gradients: &B::Gradients,
) -> Result<Vec<f32>> {
    let mut copy = vec![0.0; S::NUMEL];
    backend.gradient(param, gradients, &mut copy)?;
    Ok(copy)
}

/// Of bf16's 8 bits of mantissa half of the last is 2^−9 of a number; some such roundings meet in a result.
#[cfg(target_os = "linux")]
const BF16: f64 = 0.03;

/// Runs the case on the fused backend, on the emulated CUDA backend and on the composite one in f64; each result may differ
/// by `tolerance` times the reference's largest element, in bf16 by [`BF16`] times.
#[track_caller]
pub fn compare(case: &impl Case, tolerance: f64) {
    let reference = case.run(&exact()).expect("composite");
    agree(
        "fused",
        &case.run(&Fused::default()).expect("fused"),
        &reference,
        tolerance,
    );
    #[cfg(target_os = "linux")]
    if case.fits_cuda() {
        use super::cuda::{Cuda, driver::DType, emulated::Emulated};
        for (element, tolerance) in [(DType::F32, tolerance), (DType::Bf16, BF16)] {
            let backend = Cuda::new(Box::new(Emulated::default()), element);
            let found = case.run(&backend).expect("emulated");
            agree(&format!("emulated {element:?}"), &found, &reference, tolerance);
        }
    }
}

#[track_caller]
fn agree(who: &str, found: &Results, reference: &Results, tolerance: f64) {
    assert_eq!(found.len(), reference.len());
    for ((name, found), (_, right)) in found.iter().zip(reference) {
        assert_eq!(found.len(), right.len(), "{who}, {name}");
        let scale = right.iter().fold(0.0_f64, |max, &x| max.max(f64::from(x).abs()));
        assert!(scale > 0.0, "{name}: all zero, the test tests nothing");
        let differences = found
            .iter()
            .zip(right)
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        // A NaN is the largest error of all.
        let error = differences.fold(0.0, |max, x| if x > max || x.is_nan() { x } else { max });
        assert!(
            error <= tolerance * scale,
            "{who}, {name}: off by {:e} of the largest",
            error / scale
        );
    }
}

/// The results' bits.
pub fn bits(results: &Results) -> Vec<Vec<u32>> {
    results
        .iter()
        .map(|(_, values)| values.iter().map(|x| x.to_bits()).collect())
        .collect()
}

/// Runs the case on pools of one, two and three threads: the bits must be the same.
#[track_caller]
pub fn same_on_any_threads(case: &(impl Case + Sync)) {
    let run = |threads| on_threads(threads, || bits(&case.run(&Fused::default()).expect("fused")));
    let one = run(1);
    assert_eq!(one, run(2), "two threads");
    assert_eq!(one, run(3), "three threads");
}
