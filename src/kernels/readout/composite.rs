//! The readout as plain dfdx operations: every loss as its paper states it, differentiated by dfdx.

use dfdx::prelude::{
    Axis, BroadcastTo as _, ConstDim, Device, HasShape as _, LogSumExpTo as _, RealizeTo as _, SelectTo as _,
    SumTo as _, Tensor, TryAdd as _, TryMul as _, TrySub as _,
};

use super::{Loss, Readout, ReadoutRequest};
use crate::error::Result;
use crate::kernels::composite::{Composite, EXCLUDED, Matrix, Number};
use crate::kernels::linear;

impl<E: Number, Dev: Device<E>> Readout for Composite<E, Dev> {
    fn readout<V: ConstDim, D: ConstDim>(
        &self,
        h: &Self::Act<(usize, D)>,
        w: &Self::Param<(V, D)>,
        b: &Self::Param<(V,)>,
        request: &ReadoutRequest<'_>,
    ) -> Result<(Self::Act<()>, Self::Act<(usize,)>)> {
        let (w, b) = (Self::matrix(&self.take(w)?), self.take(b)?.realize());
        self.readout_matrix(Self::matrix(h), w, b, request)
    }
}

impl<E: Number, Dev: Device<E>> Composite<E, Dev> {
    /// The scalar Σ weights · loss and each position's loss, of h (n, D), w (V, D) and b (V).
    #[expect(clippy::type_complexity, reason = "as the backend's")]
    fn readout_matrix(
        &self,
        h: Matrix<E, Dev>,
        w: Matrix<E, Dev>,
        b: Tensor<(usize,), E, Dev>,
        readout: &ReadoutRequest<'_>,
    ) -> Result<(Tensor<(), E, Dev>, Tensor<(usize,), E, Dev>)> {
        let (count, vocabulary) = (h.shape().0, w.shape().0);
        readout.check(count, vocabulary)?;
        if count == 0 {
            return Ok((
                self.tensor((), std::iter::once(0.0))?,
                self.tensor((0,), std::iter::empty())?,
            ));
        }
        let support = readout.support;
        let excluded = (0..vocabulary).map(|v| if support.contains(v as u32) { 0.0 } else { EXCLUDED });
        let excluded = self.tensor((vocabulary,), excluded)?;
        let logits = self.run(h, |h| {
            linear::product(h, w, Some(b))?
                .try_add(excluded.try_broadcast_like::<_, Axis<0>>(&(count, vocabulary))?)
        })?;
        let losses = self.losses(logits, readout)?;
        let values = losses.clone();
        let weights = self.tensor((count,), readout.weights.iter().map(|&weight| f64::from(weight)))?;
        let loss = self.run(losses, |losses| losses.try_mul(weights)?.try_sum::<(), Axis<0>>())?;
        Ok((loss, values))
    }

    /// The loss of each row of logits, as its paper states it.
    fn losses(
        &self,
        logits: Matrix<E, Dev>,
        readout: &ReadoutRequest<'_>,
    ) -> Result<Tensor<(usize,), E, Dev>> {
        let count = logits.shape().0;
        let constant = |which: usize| {
            let all = readout.constants.iter();
            self.tensor((count,), all.map(|own| f64::from(own[which])))
        };
        let targets = self.indices(readout.targets.iter().map(|&token| token as usize).collect())?;
        match readout.loss {
            Loss::CrossEntropy => self.run(logits, |logits| {
                logits
                    .try_log_softmax::<Axis<1>>()?
                    .try_select::<(usize,), (usize,)>(targets)?
                    .try_negate()
            }),
            Loss::AbsorbingKl => {
                let masks = self.indices(vec![readout.support.mask as usize; count])?;
                let (a, b, c) = (constant(0)?, constant(1)?, constant(2)?);
                let others = self.tensor(
                    (count,),
                    readout.constants.iter().map(|own| 1.0 - f64::from(own[0])),
                )?;
                let log = self.run(logits, dfdx::tensor::Tensor::try_log_softmax::<Axis<1>>)?;
                let mu = self.run(log.clone(), |log| {
                    log.try_select::<(usize,), (usize,)>(masks)?.try_exp()
                })?;
                let grown =
                    |factor| self.run(mu.clone(), |mu| mu.try_mul(factor)?.try_add(E::of(1.0))?.try_ln());
                let (before, after) = (grown(b)?, grown(c)?);
                let after = self.run(after, |after| after.try_mul(others))?;
                self.run(log, |log| {
                    let nll = log.try_select::<(usize,), (usize,)>(targets)?.try_negate()?;
                    nll.try_mul(a)?.try_add(before)?.try_sub(after)
                })
            }
            Loss::ScoreEntropy => {
                let (r, k) = (constant(0)?, constant(1)?);
                // g (Σ exp(z − k) + r k + r (ln r − 1)) + (1 − g) r lse − r z_y, the third constant g being 1 or 0.
                let of = |f: fn([f64; 3]) -> f64| {
                    let own = readout.constants.iter();
                    self.tensor((count,), own.map(|own| f(own.map(f64::from))))
                };
                let surplus = of(|[_, _, g]| g)?;
                let rest = of(|[r, k, g]| g * (r * k + r * (r.ln() - 1.0)))?;
                let without = of(|[r, _, g]| (1.0 - g) * r)?;
                let log_sums = self.run(logits.clone(), |logits| {
                    logits.try_logsumexp::<(usize,), Axis<1>>()
                })?;
                let plain = self.run(log_sums.clone(), |sums| sums.try_mul(without))?;
                let scores = self.run(log_sums, |sums| sums.try_sub(k)?.try_exp()?.try_mul(surplus))?;
                self.run(logits, |logits| {
                    let target = logits.try_select::<(usize,), (usize,)>(targets)?;
                    let own = target.try_mul(r)?.try_negate()?;
                    own.try_add(scores)?.try_add(plain)?.try_add(rest)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::Const;

    use super::*;
    use crate::kernels::composite::Accumulated;
    use crate::kernels::testing::{assert_close, exact};
    use crate::kernels::{Tensors as _, VocabSupport};

    #[test]
    fn cross_entropy_ranges_over_the_support_with_its_softmax_gradient() {
        let backend = exact();
        let h = backend.input((2, Const::<2>), &[1., -1., 0.5, 2.]).unwrap();
        let weights = [0.3f32, -0.2, 0.1, 0.7, 1.5, -0.4, 0.9, 0.8, 5.0, 5.0];
        let w = backend.param::<(Const<5>, Const<2>)>(&weights).unwrap();
        let b = backend.param::<(Const<5>,)>(&[0.1, 0.2, 0.3, 0.4, 0.5]).unwrap();
        let support = VocabSupport::without_mask(1, 4); // tokens 0, 2, 3
        backend.record(Accumulated::default());
        let readout = ReadoutRequest::cross_entropy(support, &[2, 0], &[2.0, 0.5]);
        let (loss, nll) = backend.readout(&h, &w, &b, &readout).unwrap();
        let mut bias_gradient = [0.0f64; 5];
        let mut expected = Vec::new();
        for (row, h) in [[1.0, -1.0], [0.5, 2.0]].iter().enumerate() {
            let logit = |v: usize| {
                f64::from(weights[2 * v]) * h[0]
                    + f64::from(weights[2 * v + 1]) * h[1]
                    + f64::from([0.1f32, 0.2, 0.3, 0.4, 0.5][v])
            };
            let total: f64 = [0, 2, 3].iter().map(|&v| logit(v).exp()).sum();
            let (target, factor) = ([2, 0][row], [2.0, 0.5][row]);
            expected.push(total.ln() - logit(target));
            for v in [0, 2, 3] {
                let one = if v == target { 1.0 } else { 0.0 };
                bias_gradient[v] += factor * (logit(v).exp() / total - one);
            }
        }
        let nll = backend.values(&nll).unwrap();
        for (found, expected) in nll.iter().zip(&expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-6,
                "{nll:?} {expected:?}"
            ); // handed out as f32
        }
        assert_close(
            &backend.wide_values(&loss),
            &[2.0 * expected[0] + 0.5 * expected[1]],
        );
        let gradients = backend.backward(loss).unwrap();
        assert_close(&backend.wide_gradient(&b, &gradients).unwrap(), &bias_gradient);
    }
}
