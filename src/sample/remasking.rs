//! Remasking (ReMDM): reverse steps that also mask tokens again, so that later steps can replace them.

use super::{Query, Sampler, Step, masked};
use crate::diffusion::Posterior;
use crate::kernels::categorical::Draw;
use crate::manifest::{self, RemaskingRule};
use crate::model::Action;

/// In the step from α_t to α_s an unmasked token is masked again with probability σ, and a masked one is unmasked with
/// probability (α_s − (1 − σ) α_t) / (1 − α_t), as a token drawn from the network's distribution (ReMDM, arXiv 2503.00307, eq. 6).
/// For every σ of at most σ_max = min(1, (1 − α_s) / α_t) that all tokens have in common, the share of unmasked tokens stays
/// that of the forward process. By the rule `confidence` masked tokens have σ = 0, so that the share stays behind, and the last
/// step unmasks the rest.
///
/// The rules give σ; each is cut off at σ_max, which is 0 in the last step.
pub struct Remasking {
    /// The reverse step without remasking.
    pub posterior: Posterior,
    /// How often tokens are masked again.
    pub rule: RemaskingNumbers,
    /// Of each token (rows, L) the probability that it had when it was drawn; nothing where none was drawn yet: masked, or
    /// given.
    drawn: Vec<Option<f64>>,
}

/// A rule with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RemaskingNumbers {
    /// σ = min(η, σ_max).
    Cap(f64),
    /// σ = η σ_max.
    Rescale(f64),
    /// σ of a token is σ_max times the softmax over the row's drawn tokens of −ψ, ψ the probability that the token had when it
    /// was drawn; of masked tokens it is 0.
    ///
    /// DIFFERENCE: ψ is the probability before a truncation; the authors' code takes it after top-p.
    Confidence,
    /// σ = η while α stays at `alpha`, in times from `on` down to `off`. Before, α rises from 0 to `alpha`; after, to 1.
    Loop {
        /// η.
        eta: f64,
        /// Time at which it begins; times run from 1 to 0.
        on: f64,
        /// Time at which it ends, at most `on`.
        off: f64,
        /// α in between, below 1.
        alpha: f64,
    },
    /// σ = (α_s − α_t) / α_t.
    ForwardBackward,
}

impl RemaskingNumbers {
    /// The rule of a manifest.
    #[must_use]
    pub fn new(settings: &manifest::Remasking) -> Self {
        let eta = settings.eta().unwrap_or_default();
        match settings.rule {
            RemaskingRule::Cap => Self::Cap(eta),
            RemaskingRule::Rescale => Self::Rescale(eta),
            RemaskingRule::Confidence => Self::Confidence,
            RemaskingRule::Loop => Self::Loop {
                eta,
                on: settings.loop_on.unwrap_or(manifest::Remasking::LOOP_ON),
                off: settings.loop_off.unwrap_or(manifest::Remasking::LOOP_OFF),
                alpha: settings.loop_alpha.unwrap_or(manifest::Remasking::LOOP_ALPHA),
            },
            RemaskingRule::ForwardBackward => Self::ForwardBackward,
        }
    }
}

/// A step of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shares {
    /// α_t, the unmasked share before it.
    before: f64,
    /// α_s, the share after it.
    after: f64,
    /// Whether the rule `loop` masks tokens again in it.
    is_loop: bool,
}

impl Shares {
    /// σ_max.
    fn most(self) -> f64 {
        if self.before > 0.0 {
            ((1.0 - self.after) / self.before).min(1.0)
        } else {
            1.0
        }
    }

    /// The probability that a masked token is unmasked.
    fn unmask_probability(self, sigma: f64) -> f64 {
        let Self { before, after, .. } = self;
        if before < 1.0 {
            ((after - (1.0 - sigma) * before) / (1.0 - before)).clamp(0.0, 1.0)
        } else {
            1.0
        }
    }
}

impl Remasking {
    /// Remasking by a rule.
    #[must_use]
    pub fn new(posterior: Posterior, rule: RemaskingNumbers) -> Self {
        Self {
            posterior,
            rule,
            drawn: Vec::new(),
        }
    }

    /// α at boundary `i` of `steps`.
    fn alpha(&self, i: u32, steps: u32) -> f64 {
        let RemaskingNumbers::Loop { on, off, alpha, .. } = self.rule else {
            return 1.0 - self.posterior.masked_fraction(i, steps);
        };
        let t = 1.0 - f64::from(i) / f64::from(steps);
        if t > on {
            alpha * (1.0 - t) / (1.0 - on)
        } else if t > off {
            alpha
        } else if t > 0.0 {
            1.0 - (1.0 - alpha) * t / off
        } else {
            1.0
        }
    }

    fn shares(&self, step: &Step) -> Shares {
        let (before, after) = (
            self.alpha(step.index, step.count),
            self.alpha(step.index + 1, step.count),
        );
        let time = |i: u32| 1.0 - f64::from(i) / f64::from(step.count);
        let is_loop = match self.rule {
            RemaskingNumbers::Loop { on, off, .. } => time(step.index) <= on && time(step.index + 1) >= off,
            _ => false,
        };
        Shares {
            before,
            after,
            is_loop,
        }
    }

    /// σ of every token, but for the rule by confidence.
    fn sigma_of_all(&self, shares: Shares) -> f64 {
        let most = shares.most();
        match self.rule {
            RemaskingNumbers::Cap(eta) => eta.min(most),
            RemaskingNumbers::Rescale(eta) => eta * most,
            RemaskingNumbers::Loop { eta, .. } if shares.is_loop => eta.min(most),
            RemaskingNumbers::ForwardBackward if shares.before > 0.0 => {
                ((shares.after - shares.before) / shares.before).min(most)
            }
            RemaskingNumbers::Loop { .. }
            | RemaskingNumbers::ForwardBackward
            | RemaskingNumbers::Confidence => 0.0,
        }
    }

    /// What σ of a row's drawn tokens is divided by: Σ exp(−ψ).
    fn normalizer(drawn: &[Option<f64>]) -> f64 {
        drawn.iter().flatten().map(|psi| (-psi).exp()).sum()
    }
}

impl Sampler for Remasking {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.posterior.mask(); length]
    }

    fn begin(&mut self, tokens: &[u32], _: usize) {
        self.drawn = vec![None; tokens.len()];
    }

    fn sigma(&self, step: &Step) -> f64 {
        match self.rule {
            RemaskingNumbers::Loop { .. } => {
                self.posterior.sigma_of_alpha(self.alpha(step.index, step.count))
            }
            _ => self.posterior.sigma(step.index, step.count),
        }
    }

    /// The masked tokens that the step unmasks.
    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let shares = self.shares(step);
        let probability = shares.unmask_probability(self.sigma_of_all(shares));
        masked(self.posterior.mask(), tokens)
            .filter(|&position| step.uniform(row, position) < probability)
            .map(|position| Query {
                position,
                action: Action::Report,
            })
            .collect()
    }

    /// The drawn tokens, and masks in the place of tokens of earlier steps.
    fn commit(&mut self, step: &Step, row: usize, tokens: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let shares = self.shares(step);
        let all = self.sigma_of_all(shares);
        let most = shares.most();
        let drawn = &mut self.drawn[row * tokens.len()..][..tokens.len()];
        let normalizer = Self::normalizer(drawn);
        let mut changes = Vec::new();
        for (position, drawn) in (0..).zip(drawn.iter_mut()) {
            let Some(psi) = *drawn else { continue };
            let sigma = match self.rule {
                RemaskingNumbers::Confidence => most * (-psi).exp() / normalizer,
                _ => all,
            };
            if step.uniform(row, position) < sigma {
                *drawn = None;
                changes.push((position, self.posterior.mask()));
            }
        }
        for &(position, draw) in draws {
            drawn[position as usize] = Some(draw.log_probability.exp());
            changes.push((position, draw.token));
        }
        changes
    }
}

#[cfg(test)]
mod tests;
