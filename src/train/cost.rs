//! What an objective takes of the network for each token that it is trained on.

use crate::diffusion::{NoisedBatch, RowIndex, objective};
use crate::manifest::Objective;
use crate::model::flops::{BatchQueries, training};
use crate::shapes::Shape;

/// Tokens whose noise is drawn for the count: of the share that is masked, the standard error is then 0.0005 at most where
/// times are spread evenly over a batch, as they are by default.
const TOKENS: usize = 1 << 20;
/// The same for an estimate: the standard error is 0.004 at most.
const ROUGH_TOKENS: usize = 1 << 14;

/// Floating-point operations of a training step for each token of its rows, padding included: forward and backward, in all
/// passes of the objective. Which positions are answered is counted on rows that the objective noises itself.
#[must_use]
pub fn flops_per_token(shape: &Shape, settings: &Objective) -> f64 {
    flops_over(shape, settings, TOKENS)
}

/// [`flops_per_token`] for an estimate, which may be off by 1%: the noise of fewer tokens is drawn.
#[must_use]
pub fn rough_flops_per_token(shape: &Shape, settings: &Objective) -> f64 {
    flops_over(shape, settings, ROUGH_TOKENS)
}

fn flops_over(shape: &Shape, settings: &Objective, tokens: usize) -> f64 {
    let mask = shape.vocabulary as u32 - 1;
    let objective = objective::build(settings, mask, shape.vocabulary as u32, 0);
    let rows = tokens.div_ceil(shape.length);
    // Any tokens but the mask.
    let row = vec![0; shape.length];
    let mut noised = NoisedBatch::default();
    let mut operations = 0;
    for pass in 0..objective.passes() {
        noised.clear();
        for index in 0..rows as u32 {
            let at = RowIndex {
                step: 0,
                row: u64::from(index),
                index,
                batch: rows as u32,
            };
            objective.noise(at, pass, &row, shape.length, &mut noised);
        }
        let asked = BatchQueries {
            rows,
            // One that all rows share is nothing beside them, in any batch.
            levels: if settings.is_time_conditioned() { rows } else { 0 },
            positions: &noised.positions,
            pattern: objective.pattern(),
        };
        operations += training(shape, settings.backbone(), &asked);
    }
    operations as f64 / (rows * shape.length) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    fn cost(objective: &str) -> f64 {
        let nano = SHAPES.find("nano").unwrap();
        flops_per_token(nano, &Objective::from_argument(objective).unwrap())
    }

    /// Forward operations of a row of `nano` (see `model/flops.rs`) with a share of its tokens answered: the first block,
    /// the last block's keys and values, and 155,648 for each answered token.
    fn masked(share: f64) -> f64 {
        3_932_160.0 + 32.0 * share * 155_648.0
    }

    /// Of a noise level.
    const LEVEL: f64 = 75_776.0;

    #[test]
    fn costs_of_an_estimate_are_those_of_the_count() {
        let nano = SHAPES.find("nano").unwrap();
        for objective in ["mdlm", "d3pm", "ar", "mlm"] {
            let objective = Objective::from_argument(objective).unwrap();
            let (rough, exact) = (
                rough_flops_per_token(nano, &objective),
                flops_per_token(nano, &objective),
            );
            // Four standard errors of the masked share, 0.016, times 32 · 155,648 of 4.7 million.
            assert!((rough / exact - 1.0).abs() < 0.017, "{rough}, {exact}");
        }
    }

    #[test]
    fn costs_of_nano_are_those_counted_by_hand() {
        // AR answers all tokens but the last, and draws nothing.
        assert_eq!(cost("ar"), 3.0 * 8_503_296.0 / 32.0);
        for (objective, forward) in [
            // Half of the tokens are masked on average.
            ("mdlm", masked(0.5)),
            ("sedd", masked(0.5) + LEVEL),
            // The second pass answers all tokens of the clean row.
            ("d3pm", masked(0.5) + masked(1.0) + 2.0 * LEVEL),
            ("mlm", masked(0.15)),
            (
                r#"{ "kind": "mdlm", "time_conditioning": true }"#,
                masked(0.5) + LEVEL,
            ),
            // Uniform in log m from 1e-3 to 1: (1 − 1e-3) / ln 1000 of the tokens are masked on average.
            (
                r#"{ "kind": "mdlm", "times": { "kind": "importance" } }"#,
                masked(0.144_6),
            ),
            (
                r#"{ "kind": "mdlm", "times": { "kind": "clipped", "low": 0.2, "high": 0.4 } }"#,
                masked(0.3),
            ),
            // 1 − 2/π of the tokens.
            (
                r#"{ "kind": "mdlm", "noise": { "kind": "cosine" } }"#,
                masked(0.363_4),
            ),
        ] {
            let (found, by_hand) = (cost(objective), 3.0 * forward / 32.0);
            // Which of 2^20 tokens are masked is drawn: a share is off by at most 0.0016, four standard errors, and with
            // it the count by 32 · 155,648 · 0.0016 of 4.7 million at least.
            assert!(
                (found / by_hand - 1.0).abs() < 2e-3,
                "{objective}: {found}, {by_hand}"
            );
        }
    }
}
