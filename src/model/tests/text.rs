//! Text that the tests of networks predict token by token; `tests/gpu.rs` reads this file, too.

use super::{Random, Stream};

/// Rows of text, and what is predicted in them.
pub struct Text {
    /// The tokens, row after row.
    pub tokens: Vec<u32>,
    /// The positions of all tokens but the last of each row.
    pub positions: Vec<u32>,
    /// The token after each of these.
    pub targets: Vec<u32>,
}

impl Text {
    /// Rows of tokens drawn below a number.
    pub fn random(rows: usize, length: usize, below: u32) -> Self {
        let random = Random::new(12, Stream::Mask);
        let tokens: Vec<u32> = (0..(rows * length) as u64)
            .map(|at| random.below(u64::from(below), 0, at, 0) as u32)
            .collect();
        let positions: Vec<u32> = (0..tokens.len())
            .filter(|at| at % length + 1 < length)
            .map(|at| at as u32)
            .collect();
        Self {
            targets: positions.iter().map(|&at| tokens[at as usize + 1]).collect(),
            positions,
            tokens,
        }
    }
}
