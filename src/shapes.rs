//! The compiled shapes: one line each, under the names that manifests use.
//!
//! The network is typed by these constants (see `model`), so a new shape is a new line here and a rebuild, of this crate
//! alone: the layers below are handed the table where they need it, as the JSON Schema's enum does.

pub use crate::shape::{Answered, Backbone, Shape, Shapes};

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
            Text8Mini  "text8-mini"  V    35 L  256 D  256 H  8 N  6 C 128;
            Text8Small "text8-small" V    35 L  256 D  768 H 12 N 12 C 128;
            Lm1bSmall  "lm1b-small"  V 30522 L  128 D  768 H 12 N 12 C 128;
            OwtSmall   "owt-small"   V 50258 L 1024 D  768 H 12 N 12 C 128;
            OwtMedium  "owt-medium"  V 50258 L 1024 D 1024 H 16 N 24 C 128;
        }
    };
}

macro_rules! table {
    ($($type:ident $name:literal V $v:literal L $l:literal D $d:literal H $h:literal N $n:literal C $c:literal;)*) => {
        /// Every compiled shape, in the order of the table above.
        pub const SHAPES: Shapes = Shapes(&[$(Shape {
            name: $name, vocabulary: $v, length: $l, width: $d, heads: $h, blocks: $n, conditioning: $c,
        }),*]);
    };
}
with_compiled_shapes!(table);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_divide_the_width_and_names_are_unique() {
        for shape in SHAPES.iter() {
            assert_eq!(shape.width % (2 * shape.heads), 0, "{}", shape.name);
            assert_eq!(SHAPES.iter().filter(|s| s.name == shape.name).count(), 1);
        }
    }
}
