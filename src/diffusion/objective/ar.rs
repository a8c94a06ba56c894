//! Autoregression: log p(x) = Σ_l log p(x_l | x_1 … x_(l−1)), each factor the softmax of a causal transformer.
//!
//! | equation | function |
//! |---|---|
//! | the network sees x, and at each position predicts the next | [`Ar::next_tokens`] |
//! | log p(x), exactly | [`Estimator::Exact`]: [`Objective::noise_of_bound`] |
//!
//! The first token, BOS, is given: a row of L tokens has L − 1 predictions, where diffusion has L. With a row's end an AR
//! model predicts its EOS, and so the row's length; a diffusion bound that leaves padding out is given the length.
//!
//! As in the authors' baseline (arXiv 2406.07524, `models/autoregressive.py`), the mask is a token of the vocabulary that
//! has no probability.

use std::ops::Range;

use super::{Draw, Given, Method, Objective, Passes};
use crate::diffusion::forward::{NoisedBatch, RowIndex, Score};
use crate::diffusion::{Posterior, Subs};
use crate::error::Result;
use crate::kernels::{Loss, Pattern, VocabSupport};
use crate::manifest::Estimator;

/// The autoregressive objective.
#[derive(Clone, Copy, Debug)]
pub struct Ar {
    /// Id of the mask token, which has no probability.
    pub mask: u32,
    /// Tokens of the vocabulary, the mask included.
    pub vocabulary: u32,
}

impl Ar {
    /// Appends the row as it is; position l predicts token l + 1, where that is scored.
    pub fn next_tokens(x: &[u32], scored: &Range<usize>, into: &mut NoisedBatch) {
        into.push_scored(x, None, |l, token| {
            let next = x.get(l + 1).filter(|_| scored.contains(&(l + 1)));
            (token, next.map(|&next| (next, Score::weight(1.0))))
        });
    }
}

impl Objective for Ar {
    fn noise(&self, _: RowIndex, _: u32, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        Self::next_tokens(x, &(0..valid), into);
    }

    fn passes_of_bound(&self, _: Method, _: &Range<usize>) -> Passes {
        Passes::fixed(1)
    }

    fn noise_of_bound(&self, _: &Draw, _: u32, x: &[u32], scored: &Range<usize>, into: &mut NoisedBatch) {
        Self::next_tokens(x, scored, into);
    }

    fn method_of_validation(&self) -> Method {
        Method::of(Estimator::Exact)
    }

    fn given(&self, given: &Given<'_>, _: u32, into: &mut NoisedBatch) -> Result<()> {
        Self::next_tokens(given.x0, &(0..given.x0.len()), into);
        Ok(())
    }

    fn predicted(&self, scored: &Range<usize>) -> usize {
        scored.end.saturating_sub(scored.start.max(1))
    }

    fn support(&self) -> VocabSupport {
        Subs {
            mask: self.mask,
            vocabulary: self.vocabulary,
        }
        .support()
    }

    fn loss(&self) -> Loss {
        Loss::CrossEntropy
    }

    fn pattern(&self) -> Pattern {
        Pattern::Causal
    }

    fn posterior(&self) -> Option<Posterior> {
        None
    }
}
