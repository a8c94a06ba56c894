//! What a shape costs in memory, from its dimensions alone.
//!
//! Training holds five numbers per parameter: weight, gradient, AdamW's two moments and the moving average, all f32:
//! 20 bytes · P.
//!
//! Each row of a micro-batch adds what the operations of the forward pass keep for the backward pass, in f32. Per
//! token and block, in order:
//!
//! | kept | floats |
//! |---|---|
//! | the block's input x | D |
//! | the modulated norm's output, which Wqkv multiplies | D |
//! | queries, keys, values | 3D |
//! | attention's output, which Wo multiplies | D |
//! | the attention branch, which the gate multiplies | D |
//! | x after the attention | D |
//! | the modulated norm's output, which W1 multiplies | D |
//! | W1's output before the GELU, and after | 2F |
//! | the MLP branch, which the gate multiplies | D |
//!
//! The last block keeps x, the norm's output, keys and values for every token, 4D, and for those that are answered the norm's
//! output again, the query and all that follows, 7D + 2F. Once per answered token: the last block's output and the final
//! norm's, 2D; and the gradients that are alive at once when the backward pass enters the last block: of W1's output before
//! and after the GELU, of the branch and of x, 2F + 2D. Neither attention's probabilities nor the vocabulary's logits nor
//! dropout's masks are kept. Together 4 bytes · L · ((N − 1) · (10D + 2F) + 4D + a · (11D + 4F)) a row.
//!
//! a is the share of the answered tokens ([`Answered`]): those that are masked are half of all on average; D3PM and the plain
//! transformer answer all.
//!
//! Sampling from left to right keeps the keys and values of each row in every block: 8 bytes · N · L · D a row
//! ([`cache_per_row`]).
//!
//! Held against the growth of the peak resident set from micro-batches of 8 rows to 32 (x86-64, fused backend): `mini`
//! 12.5 MB a row where the formula says 14.1, `tiny` 4.9 MB where it says 4.7.

use super::{parameters, total};
use crate::kernels::Loss;
use crate::shapes::{Answered, Backbone, Shape};

/// Bytes of an f32.
const FLOAT: usize = 4;

/// Numbers that training holds per parameter: weight, gradient, two moments, moving average.
const TRAINING_STATE: usize = 5;

/// Token rows that go through the network at a time on the CPU: enough for the matrix products to be at their speed, and few
/// enough for an operation to find in the caches what the one before it has written. Measured with `mdlm bench --micro-batch`:
/// `tiny` and `mini` train fastest with 16 rows of 128 tokens, a few per cent slower with 8 and 32, a quarter with 2.
pub const TOKENS: usize = 2048;

/// Memory for the activations of a micro-batch in training, beside weights, gradients and moments: bounds the large shapes.
const ACTIVATIONS: usize = 1 << 30;

/// Memory for the keys and values of the rows that are drawn from left to right on the CPU: bounds the large shapes, of which
/// it holds 113 rows of `lm1b-small` and 14 of `owt-small`.
const KEYS_AND_VALUES: usize = 1 << 30;

/// Bytes that the keys and values of a row take in all blocks.
#[must_use]
pub fn cache_per_row(shape: &Shape) -> usize {
    2 * FLOAT * shape.blocks * shape.length * shape.width
}

/// Of so many rows that are drawn from left to right on the CPU, how many have their keys and values kept: those that fit 1 GiB.
/// The others are computed whole each time.
#[must_use]
pub fn cached_rows(shape: &Shape, rows: usize) -> usize {
    rows.min(KEYS_AND_VALUES / cache_per_row(shape))
}

/// Rows of a micro-batch in training on the CPU: the largest divisor of the batch within [`TOKENS`] and 1 GiB of activations.
/// The result of training does not depend on it.
#[must_use]
pub fn micro_batch(shape: &Shape, backbone: Backbone, answered: Answered, batch: u32) -> u32 {
    let per_row = Footprint::of(shape, backbone, answered).training_per_row;
    let fitting = (TOKENS / shape.length).min(ACTIVATIONS / per_row);
    (1..=batch)
        .rev()
        .find(|&rows| batch.is_multiple_of(rows) && rows as usize <= fitting)
        .unwrap_or(1)
}

/// What training asks of a network, as far as memory depends on it. The default is MDLM's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Workload {
    /// Which tokens are answered.
    pub answered: Answered,
    /// Whether each row has a noise level.
    pub is_conditioned: bool,
    /// The loss of a position.
    pub loss: Loss,
}

/// The memory of a shape. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// P: how many parameters there are.
    pub parameters: usize,
    /// What training holds whatever the batch.
    pub training: usize,
    /// What each row of a micro-batch adds in training.
    pub training_per_row: usize,
}

impl Footprint {
    /// The footprint of a shape's backbone, of which training asks that share of the tokens.
    #[must_use]
    pub fn of(shape: &Shape, backbone: Backbone, answered: Answered) -> Self {
        let parameters = total(&parameters(shape, backbone));
        let (d, f) = (shape.width, shape.hidden());
        let answered = (answered.share() * (11 * d + 4 * f) as f64).ceil() as usize;
        Self {
            parameters,
            training: FLOAT * TRAINING_STATE * parameters,
            training_per_row: FLOAT
                * shape.length
                * ((shape.blocks - 1) * (10 * d + 2 * f) + 4 * d + answered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    #[test]
    fn micro_batches_divide_and_shrink_with_the_rows() {
        let all = SHAPES
            .iter()
            .flat_map(|shape| Backbone::ALL.map(|backbone| (shape, backbone)));
        for (shape, backbone) in all {
            let mut least = 0;
            for answered in [Answered::Share(0.15), Answered::Masked, Answered::All] {
                let rows = micro_batch(shape, backbone, answered, 512);
                assert_eq!(512 % rows, 0);
                let bytes = Footprint::of(shape, backbone, answered).training_per_row;
                assert!(bytes > least, "{}: {answered:?}", shape.name);
                least = bytes;
                let rows = rows as usize;
                assert!(rows == 1 || rows * shape.length <= TOKENS && rows * bytes <= ACTIVATIONS);
            }
        }
        let of =
            |name, batch| micro_batch(SHAPES.find(name).unwrap(), Backbone::Dit, Answered::Masked, batch);
        assert_eq!(
            (of("nano", 512), of("mini", 512), of("lm1b-small", 512)),
            (64, 16, 8)
        );
        assert_eq!((of("nano", 7), of("mini", 24), of("mini", 23)), (7, 12, 1));
        assert_eq!(of("owt-medium", 512), 1);
    }

    #[test]
    fn cached_rows_fit_their_memory() {
        for shape in SHAPES.iter() {
            let most = cached_rows(shape, usize::MAX);
            assert!(most > 0 && most * cache_per_row(shape) <= KEYS_AND_VALUES);
            assert!((most + 1) * cache_per_row(shape) > KEYS_AND_VALUES);
            assert_eq!(cached_rows(shape, most - 1), most - 1);
            assert_eq!(cached_rows(shape, most + 1), most);
        }
        // By hand: 8 bytes · 12 blocks · 128 and 1024 tokens · 768.
        let of = |name| cached_rows(SHAPES.find(name).unwrap(), 1000);
        assert_eq!([of("lm1b-small"), of("owt-small"), of("tiny")], [113, 14, 1000]);
    }

    #[test]
    fn parameters_match_the_published_counts() {
        // reference: small is about 92 M without V·D, medium about 322 M (the embedding and the output layer have
        // V·D each: the published count leaves both out).
        let without = |name: &str| {
            let shape = SHAPES.find(name).unwrap();
            Footprint::of(shape, Backbone::Dit, Answered::Masked).parameters
                - 2 * shape.vocabulary * shape.width
        };
        for (name, published) in [("lm1b-small", 92e6), ("owt-small", 92e6), ("owt-medium", 322e6)] {
            let share = without(name) as f64 / published;
            assert!((share - 1.0).abs() < 0.01, "{name}: {}", without(name));
        }
        // By hand, nano: embedding 32768, time 8224 + 1056, two blocks of 64 + 12288 + 4096 + 64 + 16640 + 16448 +
        // 12672, final 64 + 33280 + 4224.
        let nano = SHAPES.find("nano").unwrap();
        let parameters = |backbone| Footprint::of(nano, backbone, Answered::All).parameters;
        assert_eq!(parameters(Backbone::Dit), 204_160);
        // Without the time's, the modulations': 204160 - 8224 - 1056 - 2 · 12672 - 4224.
        assert_eq!(parameters(Backbone::Transformer), 165_312);
    }
}
