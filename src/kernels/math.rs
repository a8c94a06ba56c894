//! Elementary functions that LLVM can vectorize, and sums in a fixed order.
//!
//! Everything here is a short straight line of correctly rounded operations (fused multiply-adds included), called
//! inside [`pulp::Arch::dispatch`], so that a value has the same bits at every SIMD level. NaN goes in, NaN comes out.

use super::lanes::{LANES, fold};

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts, the first with trailing zeros so that n · `LN2_HIGH` is exact (Cody and Waite 1980).
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 · 2^23: adding it rounds a float to an integer, which is then in the low bits of the mantissa.
const ROUND: f32 = 12_582_912.0;
/// Below this, e^x is less than the smallest normal number: 0 is returned.
const EXP_LOW: f32 = -87.336_54;
/// Above this, 2^128 would be needed: ∞ is returned (e^88.37 = 2.4e38).
const EXP_HIGH: f32 = 88.376_26;

/// e^x within 2 units in the last place; 0 below −87.3, ∞ above 88.37.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND; // round(x / ln 2)
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x)); // |r| ≤ ln 2 / 2
    // Minimax polynomial of (e^r − 1 − r) / r² (Cephes expf).
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5e-1);
    p = p.mul_add(r * r, r) + 1.0;
    // n sits in the low bits of `shifted`; moved into the exponent it multiplies by 2^n.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = p * scale;
    let y = if x < EXP_LOW { 0.0 } else { y };
    if x > EXP_HIGH { f32::INFINITY } else { y }
}

/// 1 / (1 + e^−x).
#[inline(always)]
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x · sigmoid(x).
#[inline(always)]
#[must_use]
pub fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// d silu / dx = s + x s (1 − s), s = sigmoid(x).
#[inline(always)]
#[must_use]
pub fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    (x * s).mul_add(1.0 - s, s)
}

/// 2 √(2/π).
const GELU_OUTER: f32 = 1.595_769;
/// 2 √(2/π) · 0.044715 (Hendrycks and Gimpel, arXiv 1606.08415, the tanh form).
const GELU_CUBIC: f32 = 0.071_354_814;

/// The tanh form of GELU: ½u(1 + tanh z) = u · sigmoid(2z), z = √(2/π)(u + 0.044715u³). The sigmoid form keeps its
/// relative precision where tanh is close to −1.
#[inline(always)]
#[must_use]
pub fn gelu(u: f32) -> f32 {
    u * sigmoid(u * (u * u).mul_add(GELU_CUBIC, GELU_OUTER))
}

/// d gelu / du = s + u s (1 − s) · 2z', s = sigmoid(2z), 2z' = 2√(2/π)(1 + 3 · 0.044715u²).
#[inline(always)]
#[must_use]
pub fn gelu_slope(u: f32) -> f32 {
    let square = u * u;
    let s = sigmoid(u * square.mul_add(GELU_CUBIC, GELU_OUTER));
    let z = square.mul_add(3.0 * GELU_CUBIC, GELU_OUTER);
    (u * s * z).mul_add(1.0 - s, s)
}

/// Σ x.
#[inline(always)]
#[must_use]
pub fn sum(x: &[f32]) -> f32 {
    fold(
        [x],
        #[inline(always)]
        |[x]| x,
    )
}

/// Σ (x − mean)².
#[inline(always)]
#[must_use]
pub fn sum_of_squares(x: &[f32], mean: f32) -> f32 {
    fold(
        [x],
        #[inline(always)]
        |[x]| (x - mean) * (x - mean),
    )
}

/// Σ x y.
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
#[must_use]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    fold(
        [x, y],
        #[inline(always)]
        |[x, y]| x * y,
    )
}

/// The largest element; NaN when one is NaN, −∞ when there is none.
#[inline(always)]
#[must_use]
pub fn max(x: &[f32]) -> f32 {
    // `a > b || a is NaN` keeps a NaN that `f32::max` would drop.
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (lines, rest) = pulp::as_arrays::<LANES, f32>(x);
    for line in lines {
        for lane in 0..LANES {
            partial[lane] = larger(partial[lane], line[lane]);
        }
    }
    for (partial, &x) in partial.iter_mut().zip(rest) {
        *partial = larger(*partial, x);
    }
    partial.into_iter().fold(
        f32::NEG_INFINITY,
        |a, b| if a.is_nan() { a } else { larger(a, b) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest |f(x) − exact(x)| / |exact(x)| over a dense grid, in units of 2^−24 (half a unit in the last place).
    fn worst(low: f32, high: f32, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let steps = 40_000;
        (0..=steps)
            .map(|i| low + (high - low) * i as f32 / steps as f32)
            .map(|x| {
                let right = exact(f64::from(x));
                (f64::from(f(x)) - right).abs() / right.abs().max(1e-30) * f64::from(1 << 24)
            })
            .fold(0.0, f64::max)
    }

    fn exact_gelu(u: f64) -> f64 {
        let z = (2.0 / std::f64::consts::PI).sqrt() * (u + 0.044_715 * u * u * u);
        u / (1.0 + (-2.0 * z).exp())
    }

    #[test]
    fn functions_have_errors_of_few_ulps() {
        // exp: polynomial and two roundings; 4 halves = 2 ulp.
        let error = worst(-87.0, 88.0, exp, f64::exp);
        assert!(error < 4.0, "exp: {error} · 2^-24");
        let error = worst(-80.0, 80.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(error < 8.0, "sigmoid: {error} · 2^-24");
        // gelu's exponent reaches 40 before the value underflows any use; its rounding is what e^x amplifies: 40 · 2^-24.
        let error = worst(-5.0, 10.0, gelu, exact_gelu);
        assert!(error < 64.0, "gelu: {error} · 2^-24");
    }

    #[test]
    fn slopes_are_derivatives() {
        for i in -400..=400 {
            let x = f64::from(i) * 0.02;
            let h = 1e-5;
            let slope = (exact_gelu(x + h) - exact_gelu(x - h)) / (2.0 * h);
            // 3e-6: 1 − s carries half a unit of s = 6e-8, times u · 2z' ≤ 25 where s (1 − s) still matters.
            assert!(
                (f64::from(gelu_slope(x as f32)) - slope).abs() < 3e-6,
                "gelu' at {x}"
            );
            let silu = |x: f64| x / (1.0 + (-x).exp());
            let slope = (silu(x + h) - silu(x - h)) / (2.0 * h);
            // 1e-6: a few roundings on numbers of size 1.
            assert!(
                (f64::from(silu_slope(x as f32)) - slope).abs() < 1e-6,
                "silu' at {x}"
            );
        }
    }

    #[test]
    fn functions_at_infinity_and_nan() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        for f in [exp, sigmoid, silu, silu_slope, gelu, gelu_slope] {
            assert!(f(f32::NAN).is_nan(), "NaN must come through");
        }
        assert_eq!(gelu(-100.0), 0.0);
        assert_eq!(gelu(100.0), 100.0);
        assert!(max(&[1.0, f32::NAN, 3.0]).is_nan());
        assert!(max(&[f32::NAN; 40]).is_nan());
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn sums_agree_with_double_precision() {
        for n in [0, 1, 15, 16, 17, 100, 257] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let right: f64 = x.iter().map(|&x| f64::from(x)).sum();
            // 1e-5 · Σ|x|: at most n/16 + 4 roundings on each path.
            let scale: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
            assert!((f64::from(sum(&x)) - right).abs() <= 1e-5 * scale, "sum of {n}");
            let right: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            assert!(
                (f64::from(dot(&x, &x)) - right).abs() <= 1e-5 * right,
                "dot of {n}"
            );
            assert!(
                (f64::from(sum_of_squares(&x, 0.0)) - right).abs() <= 1e-5 * right,
                "squares of {n}"
            );
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&x), largest);
        }
    }
}
