//! D3PM with absorbing noise in T steps (arXiv 2107.03006), as the MDLM paper compares it (arXiv 2406.07524, eq. 39), and
//! its variants with one of MDLM's two substitutions (eq. 41).
//!
//! | equation | function |
//! |---|---|
//! | KL(q(x_s \| x_t, x_0) ‖ p(x_s \| x_t)) at a masked position, t = i/T, s = (i − 1)/T, times T | [`D3pm::divergence`], [`Loss::AbsorbingKl`] |
//! | −log p(x_0 \| x_0): what the network says of the clean row at t = 0 | [`D3pm::reconstruction`] |
//! | the bound: E over i of the divergence, and the reconstruction | [`Objective::noise_of_bound`] |
//!
//! At a position that is not masked the divergence is 0: absorbing noise leaves x_s no choice. Without carry-over the
//! network has to say what the clean token is even where it sees it: the reconstruction, at every valid position. It is
//! the second pass of a row. With zero masking, the softmax ranges over the tokens without the mask; without it, the mask
//! has a probability μ, and the divergence depends on it.
//!
//! The chain begins all masked and ends unmasked, so that the bound has no further term.
//!
//! DIFFERENCE: the published code computes the divergence with α = 1 − t, whatever the schedule, and its second term is
//! 0/0 in the first step ([`Masking::step_as_published`] has its numbers, with that term 0).

use std::ops::Range;

use super::masking::{DiscreteStep, Masking, seen};
use super::{Draw, Given, Method, Objective, Passes};
use crate::diffusion::forward::{Conditioning, ForwardProcess, NoisedBatch, RowIndex, Score};
use crate::diffusion::{Posterior, Scores};
use crate::error::Result;
use crate::kernels::{Loss, VocabSupport};
use crate::manifest::{D3pmObjective, DEFAULT_SAMPLING_EPSILON, MdlmObjective};

/// The D3PM objective.
#[derive(Clone, Copy, Debug)]
pub struct D3pm {
    /// Noise and the draws of it.
    pub masking: Masking,
    /// Tokens of the vocabulary, the mask included.
    pub vocabulary: u32,
    /// T.
    pub steps: u32,
    /// Whether the mask has no probability.
    pub zero_masking: bool,
    /// Whether a token that is not masked is taken to be the clean one: there is no reconstruction term.
    pub carry_over: bool,
}

impl D3pm {
    /// The objective with a manifest's settings.
    #[must_use]
    pub fn new(settings: &D3pmObjective, mask: u32, vocabulary: u32, seed: u64) -> Self {
        Self {
            masking: Masking {
                forward: ForwardProcess::absorbing(settings.noise, mask),
                sampling_epsilon: DEFAULT_SAMPLING_EPSILON,
                antithetic: settings.antithetic,
                conditioning: conditioning(settings.time_conditioning),
                seed,
            },
            vocabulary,
            steps: settings.steps,
            zero_masking: false,
            carry_over: false,
        }
    }

    /// MDLM without one of its substitutions, or without both.
    #[must_use]
    pub fn of_mdlm(settings: &MdlmObjective, mask: u32, vocabulary: u32, seed: u64) -> Self {
        Self {
            masking: Masking {
                forward: ForwardProcess::absorbing(settings.noise, mask),
                sampling_epsilon: settings.sampling_epsilon,
                antithetic: settings.antithetic,
                conditioning: conditioning(settings.time_conditioning),
                seed,
            },
            vocabulary,
            // Validation refuses a manifest without `steps` here.
            steps: settings.steps.unwrap_or(crate::manifest::DEFAULT_D3PM_STEPS),
            zero_masking: settings.zero_masking,
            carry_over: settings.carry_over,
        }
    }

    /// T · KL of a step, at a masked position.
    #[must_use]
    pub fn divergence(step: &DiscreteStep) -> Score {
        Score {
            weight: f64::from(step.steps),
            constants: Some([step.unmask, step.odds, step.odds_before].map(|x| x as f32)),
        }
    }

    /// −log p(x_0 | x_0): the divergence of a step that unmasks with certainty, where the mask's odds are 0.
    #[must_use]
    pub fn reconstruction() -> Score {
        Score {
            weight: 1.0,
            constants: Some([1.0, 0.0, 0.0]),
        }
    }

    /// What the network is fed at t = 0.
    fn input_of_clean(&self) -> Option<f64> {
        let schedule = self.masking.forward.schedule;
        self.masking.conditioning.input(schedule.sigma(0.0), 0.0)
    }

    /// The clean row, all of whose scored tokens are predicted.
    fn push_clean(&self, x: &[u32], scored: &Range<usize>, into: &mut NoisedBatch) {
        let mask = self.masking.forward.mask();
        let mut seen = seen(scored, mask, |_| None);
        into.push_scored(x, self.input_of_clean(), |l, token| {
            let predicted = scored.contains(&l) && token != mask;
            let target = predicted.then_some((token, Self::reconstruction()));
            (seen(l).unwrap_or(token), target)
        });
    }

    /// The row under the noise of a step.
    fn push_noised(
        &self,
        step: &DiscreteStep,
        mut uniforms: impl FnMut(usize) -> f64,
        x: &[u32],
        scored: &Range<usize>,
        into: &mut NoisedBatch,
    ) {
        let (level, forward) = (step.level, self.masking.forward);
        let moved = |l| forward.q_xt(level.move_chance, uniforms(l));
        let seen = seen(scored, forward.mask(), moved);
        into.push(x, scored, Self::divergence(step), self.masking.input(level), seen);
    }
}

fn conditioning(is_on: bool) -> Conditioning {
    if is_on {
        Conditioning::Sigma
    } else {
        Conditioning::None
    }
}

impl Objective for D3pm {
    fn passes(&self) -> u32 {
        if self.carry_over { 1 } else { 2 }
    }

    fn noise(&self, index: RowIndex, pass: u32, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        let scored = 0..valid;
        if pass == 1 {
            return self.push_clean(x, &scored, into);
        }
        let i = Masking::step_at(self.masking.place(index), self.steps);
        let step = self.masking.step(i, self.steps);
        self.push_noised(&step, self.masking.uniforms(index), x, &scored, into);
    }

    /// The clean row is the same in all draws.
    fn passes_of_bound(&self, _: Method, _: &Range<usize>) -> Passes {
        Passes {
            fixed: self.passes() - 1,
            ..Passes::DRAWN
        }
    }

    fn noise_of_bound(
        &self,
        draw: &Draw,
        pass: u32,
        x: &[u32],
        scored: &Range<usize>,
        into: &mut NoisedBatch,
    ) {
        if pass == 1 {
            return self.push_clean(x, scored, into);
        }
        let step = self
            .masking
            .step_of_draw(draw, draw.method.steps.unwrap_or(self.steps));
        self.push_noised(&step, draw.uniforms(), x, scored, into);
    }

    fn method_of_validation(&self) -> Method {
        Method::in_steps(self.steps)
    }

    fn given(&self, given: &Given<'_>, pass: u32, into: &mut NoisedBatch) -> Result<()> {
        let step = self.masking.step_at_time(given.t, self.steps)?;
        if pass == 1 {
            self.push_clean(given.x0, &(0..given.x0.len()), into);
            return Ok(());
        }
        let (mask, input) = (self.masking.forward.mask(), self.masking.input(step.level));
        super::masking::push_given(given, mask, Self::divergence(&step), input, into);
        Ok(())
    }

    fn support(&self) -> VocabSupport {
        let mask = self.masking.forward.mask();
        if self.zero_masking {
            VocabSupport::without_mask(mask, self.vocabulary)
        } else {
            VocabSupport::with_mask(mask, self.vocabulary)
        }
    }

    fn loss(&self) -> Loss {
        Loss::AbsorbingKl
    }

    fn posterior(&self) -> Option<Posterior> {
        Some(Posterior {
            forward: self.masking.forward,
            conditioning: self.masking.conditioning,
            zero_masking: self.zero_masking,
            scores: Scores::OfProbabilities,
        })
    }
}
