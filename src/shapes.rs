//! The compiled shapes: one line each, under the names that manifests use.
//!
//! The network is typed by these constants (see `model`), so a new shape is a new line here and a rebuild.
//! This table is plain data, below `manifest`, because the JSON Schema's enum is generated from it.

use std::fmt;

/// Calls the macro `$with` once with every compiled shape.
///
/// Columns: Rust type, manifest name, V vocabulary (with the mask), L row length, D width, H heads, N blocks,
/// C conditioning width. What derives from them (2D, 3D, 4D, 6D) is computed where the macro meets the literals:
/// stable Rust has no arithmetic on type-level constants, but `Const<{ 3 * 768 }>` it has.
#[macro_export]
macro_rules! with_compiled_shapes {
    ($with:path) => {
        $with! {
            Nano       "nano"        V   512 L   32 D   64 H  2 N  2 C  32;
            Quickstart "quickstart"  V  2560 L   32 D  128 H  4 N  3 C  64;
            Tiny       "tiny"        V  1024 L  128 D  128 H  4 N  4 C 128;
            Mini       "mini"        V  8192 L  128 D  256 H  8 N  6 C 128;
            Text8Small "text8-small" V    35 L  256 D  768 H 12 N 12 C 128;
            Lm1bSmall  "lm1b-small"  V 30522 L  128 D  768 H 12 N 12 C 128;
            OwtSmall   "owt-small"   V 50258 L 1024 D  768 H 12 N 12 C 128;
            OwtMedium  "owt-medium"  V 50258 L 1024 D 1024 H 16 N 24 C 128;
        }
    };
}

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

macro_rules! table {
    ($($type:ident $name:literal V $v:literal L $l:literal D $d:literal H $h:literal N $n:literal C $c:literal;)*) => {
        /// Every compiled shape, in the order of the table above.
        pub const SHAPES: &[Shape] = &[$(Shape {
            name: $name, vocabulary: $v, length: $l, width: $d, heads: $h, blocks: $n, conditioning: $c,
        }),*];
    };
}
with_compiled_shapes!(table);

impl Shape {
    /// The compiled shape of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| shape.name == name)
    }

    /// Width of the MLP's hidden layer: F = 4 D (arXiv 2406.07524's MLP ratio).
    #[must_use]
    pub fn hidden(&self) -> usize {
        4 * self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_divide_the_width_and_names_are_unique() {
        for shape in SHAPES {
            assert_eq!(shape.width % (2 * shape.heads), 0, "{}", shape.name);
            assert_eq!(SHAPES.iter().filter(|s| s.name == shape.name).count(), 1);
        }
    }
}
