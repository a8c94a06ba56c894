//! The update on the CPU, a piece of a weight at a time.

use super::Factors;

impl Factors {
    /// Updates weights, moments and averages of equal length; the gradient is scaled first, and left zero.
    pub fn apply(
        self,
        scale: f32,
        weights: &mut [f32],
        gradient: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        ema: &mut [f32],
    ) {
        // Equal lengths let the compiler drop the bounds checks and vectorize.
        let n = weights.len();
        let (gradient, first, second, ema) = (
            &mut gradient[..n],
            &mut first[..n],
            &mut second[..n],
            &mut ema[..n],
        );
        for i in 0..n {
            let g = gradient[i] * scale;
            let m = self.beta1 * first[i] + self.one_minus_beta1 * g;
            let v = self.beta2 * second[i] + self.one_minus_beta2 * (g * g);
            let w = weights[i] * self.keep - self.step * m / (v.sqrt() * self.root + self.epsilon);
            first[i] = m;
            second[i] = v;
            weights[i] = w;
            ema[i] += self.one_minus_ema * (w - ema[i]);
            gradient[i] = 0.0;
        }
    }
}
