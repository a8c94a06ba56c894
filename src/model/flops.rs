//! How many floating-point operations a pass through the network takes, from its dimensions alone.
//!
//! Matrix products are counted, a multiply-add as two operations; all else (norms, softmax, GELU, dropout, the optimizer)
//! is a few operations a number beside a product's hundreds. Per row of L tokens, n of them answered, with the letters of
//! the crate:
//!
//! | product | operations |
//! |---|---|
//! | a block but the last: queries, keys, values 6D², the output of attention 2D², the MLP 16D², for each token | L · 24D² |
//! | its attention: scores and values, for each pair of a query and a key that it sees | 4D · pairs |
//! | the last block: keys and values for each token, the rest for each answered one | L · 4D² + n · 20D² |
//! | its attention, for the pairs of answered queries | 4D · pairs |
//! | the output layer | n · 2DV |
//! | of each conditioning vector: the time input, the modulation of each block and of the final layer | 2 · 256C + 2C² + N · 12CD + 4CD |
//!
//! In training the backward pass takes twice as many: each product has two factors with a gradient. What a kernel computes
//! again to save memory is not counted.

use super::dit::TIME_FEATURES;
use crate::kernels::Pattern;
use crate::shapes::{Backbone, Shape};

/// What a batch of rows asks of the network.
#[derive(Clone, Copy, Debug)]
pub struct BatchQueries<'a> {
    /// B: rows.
    pub rows: usize,
    /// Noise levels that are fed to the network, each of which makes a conditioning vector.
    pub levels: usize,
    /// Flat positions in the rows that are answered (n).
    pub positions: &'a [u32],
    /// Which positions of a row attend to which.
    pub pattern: Pattern,
}

/// Floating-point operations of a forward pass.
#[must_use]
pub fn forward(shape: &Shape, backbone: Backbone, asked: &BatchQueries<'_>) -> u64 {
    let Shape {
        vocabulary,
        length,
        width,
        blocks,
        conditioning,
        ..
    } = *shape;
    let [v, l, d, blocks, c] = [vocabulary, length, width, blocks, conditioning].map(|size| size as u64);
    let tokens = asked.rows as u64 * l;
    let answered = asked.positions.len() as u64;
    let seen = |position: usize| asked.pattern.visible(position, length) as u64;
    let pairs: u64 = asked.rows as u64 * (0..length).map(seen).sum::<u64>();
    let answered_pairs: u64 = asked
        .positions
        .iter()
        .map(|&position| seen(position as usize % length))
        .sum();
    let whole_blocks = (blocks - 1) * (tokens * 24 * d * d + 4 * d * pairs);
    let last_block = tokens * 4 * d * d + answered * 20 * d * d + 4 * d * answered_pairs;
    let output = answered * 2 * d * v;
    let of_level = match backbone {
        Backbone::Dit => 2 * c * (TIME_FEATURES as u64 + c) + blocks * 12 * c * d + 4 * c * d,
        Backbone::Transformer => 0,
    };
    whole_blocks + last_block + output + asked.levels as u64 * of_level
}

/// Floating-point operations of a forward and a backward pass.
#[must_use]
pub fn training(shape: &Shape, backbone: Backbone, asked: &BatchQueries<'_>) -> u64 {
    3 * forward(shape, backbone, asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    /// `nano` (V 512, L 32, D 64, H 2, N 2, C 32), counted by hand: D² = 4096.
    #[test]
    fn operations_of_nano_are_those_counted_by_hand() {
        let nano = SHAPES.find("nano").unwrap();
        let half: Vec<u32> = (0..32).step_by(2).collect();
        let asked = BatchQueries {
            rows: 1,
            levels: 1,
            positions: &half,
            pattern: Pattern::Full,
        };
        // The first block: 32 · 24 · 4096 = 3,145,728, and 32 · 32 pairs at 4 · 64: 262,144.
        // The last block: 32 · 4 · 4096 = 524,288, 16 · 20 · 4096 = 1,310,720, and 16 · 32 pairs: 131,072.
        // The output layer: 16 · 2 · 64 · 512 = 1,048,576.
        // The noise level: 2 · 256 · 32 + 2 · 32 · 32 + 2 · 12 · 32 · 64 + 4 · 32 · 64 = 75,776.
        let by_hand = 3_145_728 + 262_144 + 524_288 + 1_310_720 + 131_072 + 1_048_576 + 75_776;
        assert_eq!(by_hand, 6_498_304);
        assert_eq!(forward(nano, Backbone::Dit, &asked), by_hand);
        assert_eq!(training(nano, Backbone::Dit, &asked), 3 * by_hand);
        // A second row under the same noise level doubles all but what the level takes.
        let both: Vec<u32> = half.iter().copied().chain(half.iter().map(|l| 32 + l)).collect();
        let two = BatchQueries {
            rows: 2,
            positions: &both,
            ..asked
        };
        assert_eq!(forward(nano, Backbone::Dit, &two), 2 * by_hand - 75_776);
    }

    #[test]
    fn operations_of_the_causal_transformer_are_those_counted_by_hand() {
        let nano = SHAPES.find("nano").unwrap();
        let all_but_the_last: Vec<u32> = (0..31).collect();
        let asked = BatchQueries {
            rows: 1,
            levels: 1,
            positions: &all_but_the_last,
            pattern: Pattern::Causal,
        };
        // The first block: 3,145,728, and 32 · 33 / 2 = 528 pairs at 4 · 64: 135,168.
        // The last block: 524,288, 31 · 20 · 4096 = 2,539,520, and 31 · 32 / 2 = 496 pairs: 126,976.
        // The output layer: 31 · 2 · 64 · 512 = 2,031,616. There is no noise level.
        let by_hand = 3_145_728 + 135_168 + 524_288 + 2_539_520 + 126_976 + 2_031_616;
        assert_eq!(by_hand, 8_503_296);
        assert_eq!(forward(nano, Backbone::Transformer, &asked), by_hand);
    }

    /// In the limit of many answered tokens the count is two operations a weight and token, as is usual, and attention's.
    #[test]
    fn operations_are_two_a_weight_where_all_tokens_are_answered() {
        let shape = SHAPES.find("mini").unwrap();
        let everywhere: Vec<u32> = (0..shape.length as u32).collect();
        let asked = BatchQueries {
            rows: 1,
            levels: 0,
            positions: &everywhere,
            pattern: Pattern::Full,
        };
        let matrices: usize = crate::model::parameters(shape, Backbone::Transformer)
            .iter()
            .filter(|parameter| parameter.dims.len() == 2 && !parameter.name.contains("embed"))
            .map(crate::model::Parameter::len)
            .sum();
        let attention = shape.blocks * 4 * shape.width * shape.length * shape.length;
        let expected = 2 * matrices * shape.length + attention;
        assert_eq!(forward(shape, Backbone::Transformer, &asked), expected as u64);
    }
}
