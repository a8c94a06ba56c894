//! The readout as plain dfdx operations: every loss as its paper states it, differentiated by dfdx.

use dfdx::prelude::{
    Axis, BroadcastTo as _, Device, HasShape as _, LogSumExpTo as _, SelectTo as _, SumTo as _, Tensor,
    TryAdd as _, TryMul as _, TrySub as _,
};

use super::{Loss, ReadoutRequest};
use crate::error::Result;
use crate::kernels::composite::{Composite, EXCLUDED, Matrix, Number, linear};

impl<E: Number, Dev: Device<E>> Composite<E, Dev> {
    /// The scalar Σ weights · loss and each position's loss, of h (n, D), w (V, D) and b (V).
    #[expect(clippy::type_complexity, reason = "as the backend's")]
    pub(in crate::kernels) fn readout_matrix(
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
            linear(h, w, Some(b))?.try_add(excluded.try_broadcast_like::<_, Axis<0>>(&(count, vocabulary))?)
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
