//! How a network's logits parameterize log p(x_0 | x_t).

use crate::kernels::VocabSupport;

/// SUBS (arXiv 2406.07524, section 3.2.3): two substitutions that hold of the true p(x_0 | x_t) anyway.
///
/// - *Zero masking probabilities*: the mask's logit is −∞, since x_0 has no mask.
/// - *Carry-over unmasking*: a token that is not the mask is x_0 already, with probability 1.
///
/// The kernels compute both without storing probabilities: the softmax ranges over [`Subs::support`], and only masked
/// positions are computed at all. [`Subs::log_p_x0`] is the definition, for tests and for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subs {
    /// Id of the mask token.
    pub mask: u32,
    /// Tokens of the vocabulary, the mask included; the network may have logits beyond.
    pub vocabulary: u32,
}

impl Subs {
    /// The tokens that have a probability: the vocabulary without the mask.
    #[must_use]
    pub fn support(self) -> VocabSupport {
        VocabSupport::without_mask(self.mask, self.vocabulary)
    }

    /// log p(x_0 = · | x_t) at a position that holds `z`, from the network's logits there (V): V numbers in nats.
    #[must_use]
    pub fn log_p_x0(self, z: u32, logits: &[f32]) -> Vec<f64> {
        let tokens = 0..logits.len() as u32;
        if z != self.mask {
            return tokens
                .map(|v| if v == z { 0.0 } else { f64::NEG_INFINITY })
                .collect();
        }
        let support = self.support();
        let logit = |v: u32| {
            if support.contains(v) {
                f64::from(logits[v as usize])
            } else {
                f64::NEG_INFINITY
            }
        };
        let top = tokens.clone().map(logit).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = tokens.clone().map(|v| (logit(v) - top).exp()).sum();
        tokens.map(|v| logit(v) - top - sum.ln()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBS: Subs = Subs {
        mask: 2,
        vocabulary: 4,
    };

    #[test]
    fn mask_and_ids_beyond_the_vocabulary_have_no_probability() {
        let log_p = SUBS.log_p_x0(2, &[1.0, 2.0, 9.0, 0.5, 7.0]);
        assert_eq!([log_p[2], log_p[4]], [f64::NEG_INFINITY; 2]);
        let total: f64 = log_p.iter().map(|p| p.exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
        // A softmax shifts all logits alike.
        assert!((log_p[1] - log_p[0] - 1.0).abs() < 1e-12);
        assert!((log_p[3] - log_p[0] + 0.5).abs() < 1e-12);
        assert_eq!(SUBS.support(), VocabSupport::without_mask(2, 4));
    }

    #[test]
    fn unmasked_token_carries_over() {
        let log_p = SUBS.log_p_x0(1, &[5.0, 0.0, 9.0, 8.0, 7.0]);
        assert_eq!(log_p[1], 0.0);
        let others = [0, 2, 3, 4].map(|v: usize| log_p[v]);
        assert_eq!(others, [f64::NEG_INFINITY; 4]);
    }
}
