//! The shape of a network: its dimensions, and what its blocks are made of.
//!
//! Which shapes a program is compiled for is decided above (`mdlm::shapes`): here they are a value, [`Shapes`].

use std::fmt;
use std::ops::Deref;
use std::slice::Iter;

/// The dimensions of a compiled shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Name in manifests.
    pub name: &'static str,
    /// V: vocabulary, the mask token included.
    pub vocabulary: usize,
    /// L: tokens a row.
    pub length: usize,
    /// D: width of the residual stream.
    pub width: usize,
    /// H: attention heads.
    pub heads: usize,
    /// N: blocks.
    pub blocks: usize,
    /// C: width of the conditioning vector.
    pub conditioning: usize,
}

impl Shape {
    /// Width of the MLP's hidden layer: F = 4 D (arXiv 2406.07524's MLP ratio).
    #[must_use]
    pub fn hidden(&self) -> usize {
        4 * self.width
    }
}

/// The shapes that a program is compiled for. Manifests are read and checked with them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shapes(pub &'static [Shape]);

impl Shapes {
    /// The shape of that name.
    #[must_use]
    pub fn find(self, name: &str) -> Option<&'static Shape> {
        self.0.iter().find(|shape| shape.name == name)
    }

    /// All of them, in the order of the table.
    pub fn iter(self) -> Iter<'static, Shape> {
        self.0.iter()
    }
}

impl Deref for Shapes {
    type Target = [Shape];

    fn deref(&self) -> &[Shape] {
        self.0
    }
}

/// The network of a shape: what its blocks are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backbone {
    /// The diffusion transformer: the noise level modulates every block and the final layer.
    #[default]
    Dit,
    /// The plain transformer: the same dimensions without time input and without modulation, as an autoregressive model has
    /// it.
    Transformer,
}

impl Backbone {
    /// Every backbone.
    pub const ALL: [Self; 2] = [Self::Dit, Self::Transformer];
}

impl fmt::Display for Backbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dit => "DiT",
            Self::Transformer => "plain transformer",
        })
    }
}

/// Which tokens of a training row the network answers for, in the pass that has most of them: memory is planned by it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Answered {
    /// All.
    All,
    /// Those that are masked, at times that are spread evenly over a batch, row after row: half of all on average.
    #[default]
    Masked,
    /// A share of each row, drawn at random: at most this one on average.
    Share(f64),
}

impl Answered {
    /// Their share of a batch's tokens on average.
    #[must_use]
    pub fn share(self) -> f64 {
        match self {
            Self::All => 1.0,
            Self::Masked => 0.5,
            Self::Share(share) => share,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A shape by its dimensions V, L, D, H, N, C.
    const fn shape(name: &'static str, dimensions: [usize; 6]) -> Shape {
        let [vocabulary, length, width, heads, blocks, conditioning] = dimensions;
        Shape {
            name,
            vocabulary,
            length,
            width,
            heads,
            blocks,
            conditioning,
        }
    }

    /// Shapes for tests of this crate: a small one, and those that rows of other lengths and tokenizers need.
    pub const EXAMPLES: Shapes = Shapes(&[
        shape("nano", [512, 32, 64, 2, 2, 32]),
        shape("tiny", [1024, 128, 128, 4, 4, 128]),
        shape("text8-small", [35, 256, 768, 12, 12, 128]),
        shape("lm1b-small", [30_522, 128, 768, 12, 12, 128]),
        shape("owt-small", [50_258, 1024, 768, 12, 12, 128]),
        shape("owt-medium", [50_258, 1024, 1024, 16, 24, 128]),
    ]);

    #[test]
    fn shape_is_found_by_its_name() {
        assert_eq!(EXAMPLES.find("tiny").map(|shape| shape.length), Some(128));
        assert_eq!(EXAMPLES.find("Tiny"), None);
        assert_eq!(EXAMPLES.iter().len(), EXAMPLES.len());
    }
}
