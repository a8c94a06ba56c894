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

/// pulp takes closures itself, but calls them through the `FnOnce` shim, which is not inlined.
struct Loop<F>(F);

impl<F: FnMut()> WithSimd for Loop<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        (self.0)();
    }
}
