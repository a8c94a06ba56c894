//! What the tests of the operations share.

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
