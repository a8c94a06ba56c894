//! Weights of the networks that tests compare; `tests/gpu.rs` reads this file, too.

/// Initial weights, those moved that begin at one, or at zero (by `from_zero` at most): at zero, most gradients vanish and
/// prove nothing.
pub fn moved(mut weights: Vec<f32>, from_zero: f32) -> Vec<f32> {
    for (i, weight) in weights.iter_mut().enumerate() {
        if *weight == 0.0 {
            *weight = from_zero * (i as f32 * 78.233).sin();
        } else if weight.to_bits() == 1.0_f32.to_bits() {
            *weight += 0.2 * (i as f32 * 12.9898).sin();
        }
    }
    weights
}
