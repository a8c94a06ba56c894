//! Loops compiled for every SIMD level, chosen at run time.

use pulp::{Arch, Simd, WithSimd};

/// Runs `f` compiled with the instructions of the best SIMD level that this machine has; LLVM vectorizes its loops.
///
/// The closure must be written in the call and marked `#[inline(always)]`, and what it calls must be inlined as well: a
/// function that stays a call is compiled for the oldest processor, where a fused multiply-add is a library call.
#[inline(always)]
pub fn vectorized(f: impl FnMut()) {
    Arch::new().dispatch(Loop(f));
}

/// The vectors that loops are compiled for on this machine, as its makers call them.
#[must_use]
pub fn level() -> &'static str {
    struct Level;
    impl WithSimd for Level {
        type Output = &'static str;

        fn with_simd<S: Simd>(self, _: S) -> &'static str {
            match size_of::<S::f32s>() {
                64 => "AVX-512",
                32 => "AVX2",
                16 if cfg!(target_arch = "aarch64") => "NEON",
                16 => "128 bits",
                _ => "none",
            }
        }
    }
    Arch::new().dispatch(Level)
}

/// Whether this processor multiplies pairs of bfloat16 in one instruction (AVX512-BF16).
#[must_use]
pub fn has_bf16() -> bool {
    super::seam::has_pairs()
}

/// pulp takes closures itself, but calls them through the `FnOnce` shim, which is not inlined.
struct Loop<F>(F);

impl<F: FnMut()> WithSimd for Loop<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        (self.0)();
    }
}
