//! The variants against their peer in NumPy, with a formula in the place of the judge's network.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::diffusion::objective::Ar;
use crate::kernels::{Pattern, VocabSupport};
use crate::model::Parameter;
use crate::shapes::Shape;

/// Recipe: `tests/peers/generative_perplexity.py`.
const GOLDEN: &str = include_str!("../../../../tests/it/golden/generative_perplexity.json");

#[derive(Deserialize)]
struct Golden {
    special: SpecialIds,
    first_letter: u32,
    context: usize,
    model_length: usize,
    cases: Vec<GoldenCase>,
}

#[derive(Deserialize)]
struct GoldenCase {
    wrap: bool,
    rows: Vec<Vec<u32>>,
    expected: std::collections::BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    nats: Vec<f64>,
    tokens: Vec<f64>,
    perplexity: f64,
}

/// The formula of the recipe: it depends on every token that a position may see and on no other.
struct Formula(&'static Shape);

impl Network for Formula {
    fn shape(&self) -> &'static Shape {
        self.0
    }

    fn parameters(&self) -> &[Parameter] {
        &[]
    }

    fn load(&mut self, _: &[f32]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn nll(&self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        assert_eq!(batch.pattern, Pattern::Causal);
        assert!(batch.positions.is_sorted());
        assert_eq!(batch.sigma.len() * self.0.length, batch.tokens.len());
        let pairs = batch.positions.iter().zip(batch.targets);
        let nll = pairs.map(|(&position, &target)| {
            assert!(support.contains(target));
            let position = position as usize;
            let start = position / self.0.length * self.0.length;
            let seen = &batch.tokens[start..=position];
            let sum: u32 = (1..).zip(seen).map(|(place, token)| place * token).sum();
            let mixed = (sum + 7 * target + 3 * seen.len() as u32) % 101;
            0.05 + mixed as f32 / 40.0
        });
        Ok(nll.collect())
    }

    fn logits(&self, _: &[u32], _: &[f32], _: &[u32], _: Pattern) -> Result<Vec<f32>> {
        unreachable!("a generative perplexity asks for losses alone")
    }
}

#[test]
fn perplexity_variants_equal_those_of_the_peer_in_numpy() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let tokenizer = Tokenizer::characters("abcdefgh").unwrap();
    assert_eq!(tokenizer.special(), golden.special);
    let mut first = Vec::new();
    tokenizer.encode("a", &mut first).unwrap();
    assert_eq!(first, [golden.first_letter]);
    let shape = Box::leak(Box::new(Shape {
        name: "formula",
        vocabulary: tokenizer.vocabulary() as usize,
        length: golden.context,
        width: 2,
        heads: 1,
        blocks: 1,
        conditioning: 1,
    }));
    let objective = Ar {
        mask: golden.special.mask,
        vocabulary: tokenizer.vocabulary(),
    };
    let judge = TextJudge {
        network: &Formula(shape),
        objective: &objective,
        tokenizer: &tokenizer,
        special: golden.special,
        length: golden.context,
        micro_batch: 3,
    };
    for case in &golden.cases {
        let form = RowForm {
            tokenizer: &tokenizer,
            special: golden.special,
            wrap: case.wrap,
        };
        for variant in [
            PerplexityVariant::Mdlm,
            PerplexityVariant::Bd3lms,
            PerplexityVariant::Plain,
        ] {
            let expected = &case.expected[variant.name()];
            let mut progress = 0;
            let scores = judge
                .score(
                    variant,
                    &case.rows,
                    form,
                    golden.model_length,
                    &Cancel::default(),
                    &mut |done, of| {
                        assert!(progress < done && done <= of);
                        progress = done;
                    },
                )
                .unwrap();
            let tokens: Vec<f64> = scores.iter().map(|row| row.tokens).collect();
            assert_eq!(tokens, expected.tokens, "{variant:?}");
            for (row, nats) in scores.iter().zip(&expected.nats) {
                // f32 losses of at most 2.6, 30 of them.
                assert!((row.nats - nats).abs() < 1e-5, "{variant:?}: {} {nats}", row.nats);
            }
            let found =
                GenerativePerplexity::of(&scores, variant, Digest::of(b"judge"), Weights::Ema).unwrap();
            assert!((found.perplexity.value / expected.perplexity - 1.0).abs() < 1e-6);
            assert!((found.nats_per_token.value.exp() - found.perplexity.value).abs() < 1e-12);
            assert_eq!(found.tokens as f64, expected.tokens.iter().sum::<f64>());
        }
    }
}

#[test]
fn perplexity_chunk_scores_text_after_its_first_eos_too() {
    let eos = 2;
    let scored = |chunk: &[u32]| of_chunk(0, chunk, eos).map(|window| window.scored);
    assert_eq!(scored(&[1, 5, 2, 6, 2, 7]), Some(vec![1, 2, 3, 5]));
    // The first EOS is the first token, which is not scored.
    assert_eq!(scored(&[2, 5, 2, 2]), Some(vec![1]));
    assert_eq!(scored(&[2, 2, 2]), None);
    assert_eq!(scored(&[7]), None);
}

#[test]
fn perplexity_bytes_are_those_of_the_judged_text() {
    let found = GenerativePerplexity::of(
        &[
            RowScore {
                nats: 6.0,
                tokens: 3.0,
                bytes: 12.0,
            },
            RowScore {
                nats: 2.0,
                tokens: 1.0,
                bytes: 4.0,
            },
        ],
        PerplexityVariant::Plain,
        Digest::of(b"judge"),
        Weights::Raw,
    )
    .unwrap();
    assert_eq!((found.nats_per_token.value, found.tokens), (2.0, 4));
    assert_eq!(found.nats_per_byte.unwrap().value, 0.5);
    assert_eq!(found.perplexity.low, Some(2f64.exp()));
    let none = GenerativePerplexity::of(
        &[RowScore::default()],
        PerplexityVariant::Plain,
        Digest::of(b""),
        Weights::Ema,
    );
    assert_eq!(none, None);
}

proptest! {
    #[test]
    fn perplexity_windows_score_each_token_once_with_half_a_window_before_it(
        count in 0usize..60, length in 2usize..12
    ) {
        let tokens: Vec<u32> = (0..count as u32).collect();
        let mut scored = Vec::new();
        for window in sliding(0, &tokens, length, |_| true) {
            prop_assert!(window.tokens.len() <= length);
            for &place in &window.scored {
                let token = window.tokens[place];
                prop_assert!(place >= (token as usize).min(length / 2), "{token} at {place}");
                scored.push(token);
            }
        }
        prop_assert_eq!(scored, (1..count as u32).collect::<Vec<_>>());
    }
}
