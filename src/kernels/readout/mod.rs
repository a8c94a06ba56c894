//! The readout: the output layer and a loss in one pass, with its gradients. Logits z = h(n, D) · w(V, D)ᵀ + b(V) over the
//! support S (the tokens below its size, with the mask or without), a loss of each position, and the scalar
//! Σ_i weight_i · loss_i.
//!
//! Logits exist for some rows at a time, in scratch memory; tokens beyond the support's size are not computed, and an
//! excluded mask has the logit −∞.
//!
//! # Losses
//!
//! A loss is a function of three numbers of a position's logits: lse = log Σ_{v ∈ S} exp z_v, the target's logit z_y, and
//! the mask's logit z_m (−∞ if the mask is excluded). p = softmax(z) over S, hence −ln p_y = lse − z_y. Each position has
//! separate constants.
//!
//! - [`Loss::CrossEntropy`] (SUBS: arXiv 2406.07524, equation 10, whose factor is the weight; AR; MLM): lse − z_y.
//!
//! - [`Loss::AbsorbingKl`] (D3PM: arXiv 2107.03006, in arXiv 2406.07524 equation 39, with zero masking 41): of x_t = m and
//!   x_s, s < t, with μ = p_m = exp(z_m − lse), the true posterior is x_s = m with probability (1 − α_s)/(1 − α_t), else y. The
//!   predicted one, q(x_s | x_t = m, x_0 = p), has x_s = m with (1 − α_s + α_s μ)/(1 − α_t + α_t μ) and x_s = v with
//!   (α_s − α_t) p_v/(1 − α_t + α_t μ). Their divergence is, with a = (α_s − α_t)/(1 − α_t), b = α_t/(1 − α_t) and
//!   c = α_s/(1 − α_s),
//!
//!   a [ln(1 + bμ) − ln p_y] + (1 − a) [ln(1 + bμ) − ln(1 + cμ)] = a (lse − z_y) + ln(1 + bμ) − (1 − a) ln(1 + cμ).
//!
//!   With T steps, each step stands for T times its divergence; T is a factor of the weight. Zero masking is the support
//!   without the mask: μ = 0.
//!
//! - [`Loss::ScoreEntropy`] (SEDD: arXiv 2310.16834, the diffusion-weighted denoising score entropy of absorbing noise):
//!   with scores exp(z_v − k) of v ∈ S, the mask excluded, and the true one r = 1/(e^σ − 1) of y,
//!
//!   Σ_v exp(z_v − k) − r (z_y − k) + r (ln r − 1) = exp(lse − k) − r (z_y − k) + r (ln r − 1).
//!
//!   The factor σ' belongs to the weight. In f32 the terms would cancel near the minimum 0; with d = lse − k − ln r the
//!   loss is r (e^d − 1 − d) + r (lse − z_y), neither term of which is negative. Where the third constant g is 0, the first
//!   term, the surplus, is left out: r times the negative log-likelihood, which the ends of a bound need.
//!
//! # Gradient
//!
//! Σ p = 1 and d lse/dz_v = p_v, so that every loss has dz = c₁ p + c₂ [v = y] + c₃ [v = m] on S, 0 elsewhere:
//!
//! - cross-entropy: c₁ = 1, c₂ = −1, c₃ = 0;
//! - absorbing divergence: dμ/dz_v = μ ([v = m] − p_v), so with g = μ (b/(1 + bμ) − (1 − a) c/(1 + cμ)): c₁ = a − g,
//!   c₂ = −a, c₃ = g;
//! - score entropy: c₁ = exp(lse − k), or r without the surplus; c₂ = −r, c₃ = 0.
//!
//! Times the weight; then dh = dz · w, dw += dzᵀ · h, db += Σ_i dz_i.
//!
//! The scalar is the end of the tape, so its gradient is 1 and the forward pass can compute all gradients: while recording,
//! it consumes dz chunk by chunk, and logits are never computed a second time. dw and db are left folds over the
//! positions in order, hence the same for any micro-batches.
//!
//! # A further loss
//!
//! A loss that is a function of the three numbers takes a variant of [`Loss`] with its value and derivative in `loss.rs`, its
//! name in the two matches of `cpu.rs`, its number in `cuda.rs`, its value and derivative in `readout.cu`, its formula in
//! `composite.rs`, and a case in the tests below and in those of `fused.rs`. A loss that needs more of a row also takes a
//! new accumulator in `cpu.rs` and one beside `Numbers` in `readout.cu`.

mod composite;
mod cpu;
mod cuda;
mod loss;

use dfdx::shapes::ConstDim;

use super::Tensors;
use crate::error::Result;
pub use loss::{Constants, Loss, ReadoutRequest};

/// Output layer, softmax, loss.
pub trait Readout: Tensors {
    /// The output layer and a loss in one pass, never storing all of (n, V): with logits = h · wᵀ + b over the readout's
    /// support, the loss of each position is a function of their log-sum-exp, the target's logit and the mask's logit.
    /// Returns the scalar Σ_i weights_i · loss_i for [`Tensors::backward`], and the loss of each position, in nats; a
    /// constant.
    ///
    /// The scalar is the end of the tape: it goes into [`Tensors::backward`] and nowhere else, so a backend may compute
    /// gradients right here.
    ///
    /// # Errors
    /// The request is not one of n positions and V tokens; memory runs out.
    #[expect(
        clippy::type_complexity,
        reason = "a scalar and a vector: named, they would be less clear"
    )]
    fn readout<V: ConstDim, D: ConstDim>(
        &self,
        h: &Self::Act<(usize, D)>,
        w: &Self::Param<(V, D)>,
        b: &Self::Param<(V,)>,
        request: &ReadoutRequest<'_>,
    ) -> Result<(Self::Act<()>, Self::Act<(usize,)>)>;
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::*;
    use crate::kernels::testing::{
        Case, Results, compare, gradient, look_up, same_on_any_threads, table, weight,
    };
    use crate::kernels::{Backend, Fused, Gradients, VocabSupport};

    const LOSSES: [Loss; 3] = [Loss::CrossEntropy, Loss::AbsorbingKl, Loss::ScoreEntropy];

    struct Of {
        rows: usize,
        support: VocabSupport,
        scale: f32,
        loss: Loss,
    }

    /// D3PM's constants at a time of 1,000 steps, with the linear `α_t` = 1 − t; the first step's as its limit is.
    fn of_posteriors(step: usize) -> Constants {
        let (t, s) = ((step + 1) as f64 / 1000.0, step as f64 / 1000.0);
        let c = if step == 0 { 0.0 } else { (1.0 - s) / s };
        [(1.0 - s / t) as f32, ((1.0 - t) / t) as f32, c as f32]
    }

    /// SEDD's at a σ, of so many tokens beside the mask; with or without the surplus.
    fn of_scores(sigma: f64, others: u32, surplus: f32) -> Constants {
        let odds = sigma.exp_m1();
        [
            (1.0 / odds) as f32,
            (odds.ln() + f64::from(others).ln()) as f32,
            surplus,
        ]
    }

    impl Of {
        fn constants(&self) -> Vec<Constants> {
            let others = self.support.size - 1;
            (0..self.rows)
                .filter_map(|i| match self.loss {
                    Loss::CrossEntropy => None,
                    Loss::AbsorbingKl => Some(of_posteriors([0, 1, 30, 500, 998, 999][i % 6])),
                    Loss::ScoreEntropy => {
                        let surplus = if i % 5 == 4 { 0.0 } else { 1.0 };
                        Some(of_scores([0.01, 0.3, 1.0, 3.0][i % 4], others, surplus))
                    }
                })
                .collect()
        }
    }

    impl Case for Of {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let h = table::<B, 21>(backend, self.scale, 1)?;
            let w = weight::<B, (Const<1100>, Const<21>)>(backend, 1.0, 2)?;
            let b = weight::<B, (Const<1100>,)>(backend, 1.0, 3)?;
            let VocabSupport { mask, size, .. } = self.support;
            let not_the_mask = |token: u32| {
                if token == mask {
                    (token + size - 1) % size
                } else {
                    token
                }
            };
            let targets: Vec<u32> = (0..self.rows as u32)
                .map(|i| not_the_mask(i * 7 % size))
                .collect();
            let weights: Vec<f32> = (0..self.rows).map(|i| 0.25 + (i % 5) as f32).collect();
            let readout = ReadoutRequest {
                support: self.support,
                loss: self.loss,
                constants: &self.constants(),
                targets: &targets,
                weights: &weights,
            };
            let x = look_up(backend, &h, self.rows)?;
            let (loss, losses) = backend.readout(&x, &w, &b, &readout)?;
            let value = backend.values(&loss)?;
            let g = backend.backward(loss)?;
            let (_, again) = backend.readout(&x, &w, &b, &readout)?;
            Ok(vec![
                ("loss", value),
                ("losses", backend.values(&losses)?),
                ("losses without recording", backend.values(&again)?),
                ("dh", gradient(backend, &h, &g)?),
                ("dw", gradient(backend, &w, &g)?),
                ("db", gradient(backend, &b, &g)?),
            ])
        }
    }

    /// The supports of the tests: one that is all, one of few tokens whose mask is the first, one that ends within a shape.
    fn cases(loss: Loss) -> Vec<Of> {
        let cases = [(1, 3, 1100, 1.0), (30, 0, 17, 1.0), (150, 1029, 1030, 3.0)];
        let mut all = Vec::new();
        for (rows, mask, size, scale) in cases {
            let mut add = |support| {
                all.push(Of {
                    rows,
                    support,
                    scale,
                    loss,
                });
            };
            add(VocabSupport::without_mask(mask, size));
            if loss == Loss::AbsorbingKl {
                add(VocabSupport::with_mask(mask, size));
            }
        }
        all
    }

    #[test]
    fn cross_entropy_agrees_with_the_composite() {
        for case in cases(Loss::CrossEntropy) {
            compare(&case, 5e-6); // sums over a thousand tokens or a hundred rows, in f32
            same_on_any_threads(&case);
        }
    }

    #[test]
    fn absorbing_divergence_agrees_with_the_composite() {
        for case in cases(Loss::AbsorbingKl) {
            // As above; ln(1 + bμ) has as many digits as μ, the exponential of a difference of size 10.
            compare(&case, 1e-5);
            same_on_any_threads(&case);
        }
    }

    #[test]
    fn score_entropy_agrees_with_the_composite() {
        for case in cases(Loss::ScoreEntropy) {
            // As above; exp(lse − k) amplifies the rounding of a difference of size 10.
            compare(&case, 1e-5);
            same_on_any_threads(&case);
        }
    }

    /// A position whose logits are exactly what is given: h = 1, the logits are the bias.
    fn at_logits<const V: usize>(logits: [f32; V], readout: &ReadoutRequest<'_>) -> (f64, Vec<f32>) {
        let backend = Fused::default();
        backend.record(Gradients::default());
        let h = backend.input((1, Const::<1>), &[1.0]).unwrap();
        let w = backend.param::<(Const<V>, Const<1>)>(&[0.0; V]).unwrap();
        let b = backend.param::<(Const<V>,)>(&logits).unwrap();
        let (loss, losses) = backend.readout(&h, &w, &b, readout).unwrap();
        let g = backend.backward(loss).unwrap();
        let value = backend.values(&losses).unwrap()[0];
        (f64::from(value), gradient(&backend, &b, &g).unwrap())
    }

    /// Σ p ln(p / q) of the posteriors, from their definition: no algebra of the operation's.
    fn divergence(alpha_s: f64, alpha_t: f64, p: &[f64], mask: usize, target: usize) -> f64 {
        // q(x_s | x_t = m, x_0) ∝ q(x_t = m | x_s) q(x_s | x_0), x_0 one token or a distribution over them.
        let posterior = |of_x0: &[f64]| -> Vec<f64> {
            let to_mask = |v: usize| if v == mask { 1.0 } else { 1.0 - alpha_t / alpha_s };
            let at_s = |v: usize| alpha_s * of_x0[v] + if v == mask { 1.0 - alpha_s } else { 0.0 };
            let all: Vec<f64> = (0..of_x0.len()).map(|v| to_mask(v) * at_s(v)).collect();
            let total: f64 = all.iter().sum();
            all.into_iter().map(|q| q / total).collect()
        };
        let mut one = vec![0.0; p.len()];
        one[target] = 1.0;
        let (right, found) = (posterior(&one), posterior(p));
        let terms = right.iter().zip(&found).filter(|(right, _)| **right > 0.0);
        terms.map(|(right, found)| right * (right / found).ln()).sum()
    }

    #[test]
    fn absorbing_divergence_is_that_of_the_posteriors() {
        let logits = [0.5_f32, -1.0, 2.0, 0.25, -0.75];
        let (mask, target) = (3, 1);
        for (alpha_s, alpha_t) in [(0.9, 0.8), (0.30, 0.29), (0.01, 0.001), (0.5, 0.0)] {
            for support in [VocabSupport::with_mask(3, 5), VocabSupport::without_mask(3, 5)] {
                let exps = logits.iter().enumerate().map(|(v, &z)| {
                    if support.contains(v as u32) {
                        f64::from(z).exp()
                    } else {
                        0.0
                    }
                });
                let exps: Vec<f64> = exps.collect();
                let total: f64 = exps.iter().sum();
                let p: Vec<f64> = exps.iter().map(|e| e / total).collect();
                let right = divergence(alpha_s, alpha_t, &p, mask, target);
                let a = (alpha_s - alpha_t) / (1.0 - alpha_t);
                let constants = [a, alpha_t / (1.0 - alpha_t), alpha_s / (1.0 - alpha_s)];
                let readout = ReadoutRequest {
                    support,
                    loss: Loss::AbsorbingKl,
                    constants: &[constants.map(|x| x as f32)],
                    targets: &[target as u32],
                    weights: &[1.0],
                };
                let (found, _) = at_logits(logits, &readout);
                // Some roundings of f32 on terms of size 3.
                assert!(
                    (found - right).abs() < 2e-6,
                    "{alpha_s} {alpha_t} {support:?}: {found} {right}"
                );
            }
        }
    }

    #[test]
    fn score_entropy_is_zero_at_true_scores_and_r_cross_entropy_above() {
        let sigma: f64 = 0.7;
        let r = 1.0 / sigma.exp_m1();
        let support = VocabSupport::without_mask(4, 5);
        let of = |logits: [f32; 5], k: f64| {
            let readout = ReadoutRequest {
                support,
                loss: Loss::ScoreEntropy,
                constants: &[[r as f32, k as f32, 1.0]],
                targets: &[2],
                weights: &[1.0],
            };
            at_logits(logits, &readout)
        };
        // Scores r · p_v with p certain of the target: k = −ln r, and all other logits far below.
        let (found, slope) = of([-50.0, -50.0, 0.0, -50.0, 9.0], -r.ln());
        assert!(found.abs() < 1e-6, "{found}");
        assert!(slope.iter().all(|slope| slope.abs() < 1e-6), "{slope:?}");
        // Scores r · p_v with another p: what SUBS's bound would be (σ' r is its weight).
        let p = [0.1_f64, 0.2, 0.3, 0.4];
        let logits = [p[0].ln(), p[1].ln(), p[2].ln(), p[3].ln(), 0.0].map(|z| z as f32);
        let (found, _) = of(logits, -r.ln());
        assert!((found + r * p[2].ln()).abs() < 1e-6, "{found}");
        // Far above them the formula is still the paper's.
        let (found, _) = of([3.0, 2.0, 1.0, 0.0, 0.0], -2.0);
        let (sum, k): (f64, f64) = ((3.0_f64.exp() + 2.0_f64.exp() + 1.0_f64.exp() + 1.0), -2.0);
        let right = sum * (-k).exp() - r * (1.0 - k) + r * (r.ln() - 1.0);
        assert!((found - right).abs() < 1e-6 * right, "{found} {right}");
    }

    #[test]
    fn weightless_constants_keep_losses_finite() {
        for loss in LOSSES {
            for logits in [[-80.0_f32, 3.0, 90.0], [9e3, 1.0, 9e3], [-9e3, -9e3, -9e3]] {
                let readout = ReadoutRequest {
                    support: VocabSupport::without_mask(1, 3),
                    loss,
                    constants: if loss == Loss::CrossEntropy {
                        &[]
                    } else {
                        &[loss.weightless()]
                    },
                    targets: &[0],
                    weights: &[0.0],
                };
                let (value, slope) = at_logits(logits, &readout);
                assert!(value.is_finite(), "{loss:?} of {logits:?}: {value}");
                assert!(
                    slope.iter().all(|&slope| slope == 0.0),
                    "{loss:?} of {logits:?}: {slope:?}"
                );
            }
        }
    }

    #[test]
    fn loss_without_masked_positions_is_zero() {
        let backend = Fused::default();
        let h = backend.input((0, Const::<4>), &[]).unwrap();
        let w = weight::<_, (Const<9>, Const<4>)>(&backend, 1.0, 1).unwrap();
        let b = weight::<_, (Const<9>,)>(&backend, 1.0, 2).unwrap();
        backend.record(Gradients::default());
        let readout = ReadoutRequest::cross_entropy(VocabSupport::without_mask(8, 9), &[], &[]);
        let (loss, losses) = backend.readout(&h, &w, &b, &readout).unwrap();
        assert!(backend.values(&losses).unwrap().is_empty());
        assert_eq!(backend.values(&loss).unwrap(), [0.0]);
        let g = backend.backward(loss).unwrap();
        assert!(gradient(&backend, &w, &g).unwrap().iter().all(|&g| g == 0.0));
    }

    #[test]
    fn readouts_with_invalid_targets_constants_or_support_are_errors() {
        let support = VocabSupport::without_mask(2, 7);
        let right = ReadoutRequest::cross_entropy(support, &[1], &[1.0]);
        assert!(right.check(1, 9).is_ok());
        let target = |targets| ReadoutRequest { targets, ..right };
        let of = |loss, constants| ReadoutRequest {
            loss,
            constants,
            ..right
        };
        let wrong = [
            target(&[2]),
            target(&[7]),
            of(Loss::CrossEntropy, &[[0.0; 3]]),
            of(Loss::AbsorbingKl, &[]),
            of(Loss::AbsorbingKl, &[[1.5, 0.0, 0.0]]),
            of(Loss::AbsorbingKl, &[[1.0, 0.0, f32::INFINITY]]),
            of(Loss::ScoreEntropy, &[[0.0, 1.0, 0.0]]),
            of(Loss::ScoreEntropy, &[[1.0, f32::NAN, 0.0]]),
            of(Loss::ScoreEntropy, &[[1.0, 0.0, 0.5]]),
            ReadoutRequest {
                support: VocabSupport::with_mask(8, 7),
                ..right
            },
            ReadoutRequest {
                weights: &[],
                ..right
            },
        ];
        for wrong in wrong {
            assert!(wrong.check(1, 9).is_err(), "{wrong:?}");
        }
        assert!(right.check(1, 6).is_err(), "a support larger than the vocabulary");
        // The operation checks.
        let backend = Fused::default();
        let h = backend.input((1, Const::<4>), &[0.0; 4]).unwrap();
        let w = weight::<_, (Const<9>, Const<4>)>(&backend, 1.0, 1).unwrap();
        let b = weight::<_, (Const<9>,)>(&backend, 1.0, 2).unwrap();
        assert!(backend.readout(&h, &w, &b, &target(&[7])).is_err());
    }
}
