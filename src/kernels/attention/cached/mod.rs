//! Causal attention of some tokens of a row, over keys and values that are kept from one call to the next: y as in
//! [`Attention`] under [`Pattern::Causal`](super::Pattern::Causal).
//!
//! The query at position l attends to the keys at positions 0 to l. A key and a value depend on the tokens of these positions
//! alone, so they stay right for as long as these tokens do: a network that reads a row from left to right computes them once
//! a position, and each next position takes one query in place of l + 1.
//!
//! A [`TokenRows`] names places in the cache as it names them in a micro-batch: row · L + position, ascending, over the rows
//! that the cache has room for. There is no gradient: the operation is for sampling.

mod composite;
mod cpu;

use dfdx::shapes::ConstDim;

use super::Attention;
use crate::error::{Error, Result};
use crate::kernels::TokenRows;
use crate::kernels::checks::check_token_rows;

/// Attention over kept keys and values.
pub trait CachedAttention: Attention {
    /// The keys and values of one attention, for some rows.
    type Cache;

    /// Room for the keys and values of `rows` rows of `length` tokens; each is `width` wide (D), cut into `heads`.
    ///
    /// # Errors
    /// The heads do not divide the width; memory runs out.
    fn cache(&self, rows: usize, length: usize, heads: usize, width: usize) -> Result<Self::Cache>;

    /// Puts keys and values, the columns [k | v] of `kv` (n, 2D), into their `places`; others stay as they are.
    ///
    /// # Errors
    /// The places are not `kv`'s or the cache's; memory runs out.
    fn keep<D2: ConstDim>(
        &self,
        kv: &Self::Act<(usize, D2)>,
        places: TokenRows<'_>,
        cache: &mut Self::Cache,
    ) -> Result<()>;

    /// y (n, D): the queries `q` at `places`, each over the keys and values of its row up to its own position, which were put
    /// there before.
    ///
    /// # Errors
    /// The places are not `q`'s or the cache's; the tape is recording; memory runs out.
    fn cached_attention<D: ConstDim>(
        &self,
        q: &Self::Act<(usize, D)>,
        places: TokenRows<'_>,
        cache: &Self::Cache,
    ) -> Result<Self::Act<(usize, D)>>;
}

/// The dimensions of a cache: B rows of L tokens, D wide.
#[derive(Clone, Copy, Debug)]
struct Dimensions {
    rows: usize,
    length: usize,
    heads: usize,
    width: usize,
}

impl Dimensions {
    /// Refuses heads that do not cut the width into pairs of columns.
    fn check(self) -> Result<Self> {
        let Self {
            length, heads, width, ..
        } = self;
        if heads > 0 && length > 0 && width.is_multiple_of(2 * heads) {
            return Ok(self);
        }
        Err(Error::internal(format!(
            "a cache of rows of {length} with {heads} heads to width {width}"
        )))
    }

    /// Refuses `count` activations of `columns` columns, `parts` times D, that are not those of the places.
    fn check_places(
        self,
        places: TokenRows<'_>,
        count: usize,
        (columns, parts): (usize, usize),
    ) -> Result<()> {
        if places.length != self.length || columns != parts * self.width {
            return Err(Error::internal(format!(
                "{columns} columns at rows of {} in a cache of width {} and rows of {}",
                places.length, self.width, self.length
            )));
        }
        check_token_rows(places, count, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::*;
    use crate::kernels::testing::{Exact, exact, noise, on_threads};
    use crate::kernels::{Fused, Gather as _, Pattern, Tensors};

    /// Queries, keys and values of all positions of some rows.
    struct Rows<const D: usize, const D2: usize> {
        count: usize,
        length: usize,
        heads: usize,
    }

    impl<const D: usize, const D2: usize> Rows<D, D2> {
        #[expect(clippy::type_complexity, reason = "two matrices")]
        fn inputs<B: Tensors>(&self, backend: &B) -> (B::Act<(usize, Const<D>)>, B::Act<(usize, Const<D2>)>) {
            let rows = self.count * self.length;
            let of = |columns, seed| -> Vec<f32> {
                noise(rows * columns, seed).into_iter().map(|x| 2.0 * x).collect()
            };
            let q = backend.input((rows, Const::<D>), &of(D, 1)).unwrap();
            let kv = backend.input((rows, Const::<D2>), &of(D2, 2)).unwrap();
            (q, kv)
        }

        /// What attention over whole rows finds.
        fn whole<B: Attention>(&self, backend: &B) -> Vec<f32> {
            let (q, kv) = self.inputs(backend);
            let all = TokenRows::all(self.length);
            let y = backend
                .attention(&q, &kv, self.heads, all, Pattern::Causal)
                .unwrap();
            backend.values(&y).unwrap()
        }

        /// What is found where the places of each step are kept and asked about together.
        fn in_steps<B: CachedAttention + crate::kernels::Gather>(
            &self,
            backend: &B,
            steps: &[Vec<u32>],
        ) -> Vec<f32> {
            let (q, kv) = self.inputs(backend);
            let mut cache = backend.cache(self.count, self.length, self.heads, D).unwrap();
            let mut found = vec![f32::NAN; self.count * self.length * D];
            for step in steps {
                let places = TokenRows::listed(self.length, step);
                let kv = backend.gather(&kv, step).unwrap();
                backend.keep(&kv, places, &mut cache).unwrap();
                let q = backend.gather(&q, step).unwrap();
                let y = backend.cached_attention(&q, places, &cache).unwrap();
                for (at, y) in step.iter().zip(backend.values(&y).unwrap().chunks(D)) {
                    found[*at as usize * D..][..D].copy_from_slice(y);
                }
            }
            found
        }

        /// One position of every row at a time; all at once; the rows one after the other, each in pieces; the first
        /// positions again when all are there.
        fn orders(&self) -> Vec<Vec<Vec<u32>>> {
            let (count, length) = (self.count as u32, self.length as u32);
            let by_position = (0..length).map(|l| (0..count).map(|row| row * length + l).collect());
            let by_position: Vec<Vec<u32>> = by_position.collect();
            let all: Vec<u32> = (0..count * length).collect();
            let pieces = (0..count).flat_map(|row| {
                let row: Vec<u32> = (row * length..(row + 1) * length).collect();
                row.chunks(3).map(<[u32]>::to_vec).collect::<Vec<_>>()
            });
            let again = [all.clone(), by_position[0].clone(), by_position[1].clone()];
            vec![by_position.clone(), vec![all], pieces.collect(), again.to_vec()]
        }

        /// The bits of the fused operation are those of attention over whole rows, in any order and on any threads.
        fn check_bits(&self) {
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let whole = bits(self.whole(&Fused::default()));
            for (i, steps) in self.orders().iter().enumerate() {
                for threads in [1, 3] {
                    let found = on_threads(threads, || bits(self.in_steps(&Fused::default(), steps)));
                    assert!(found == whole, "order {i} on {threads} threads");
                }
            }
        }

        /// The composite in f64 agrees with itself over whole rows, and the fused operation with it.
        fn check_composite(&self) {
            let whole = self.whole(&exact());
            for steps in self.orders() {
                let found = self.in_steps::<Exact>(&exact(), &steps);
                let close = |found: &[f32], tolerance: f32| {
                    let mut pairs = found.iter().zip(&whole);
                    pairs.all(|(a, b)| (a - b).abs() <= tolerance)
                };
                // Numbers of order one, rounded from f64.
                assert!(close(&found, 1e-6));
                // 1e-5 of the largest, which is 2: sums over the keys in f32, and exponentials of scores of size 10.
                assert!(close(&self.in_steps(&Fused::default(), &steps), 2e-5));
            }
        }
    }

    #[test]
    fn cached_attention_has_the_bits_of_attention_over_whole_rows() {
        // Heads narrower than a register, and rows that no register divides; heads of several registers, and rows of more
        // than a block of queries; a head of 80 columns.
        Rows::<12, 24> {
            count: 3,
            length: 5,
            heads: 3,
        }
        .check_bits();
        Rows::<64, 128> {
            count: 2,
            length: 131,
            heads: 1,
        }
        .check_bits();
        Rows::<160, 320> {
            count: 1,
            length: 33,
            heads: 2,
        }
        .check_bits();
    }

    #[test]
    fn cached_attention_agrees_with_the_composite() {
        Rows::<12, 24> {
            count: 3,
            length: 5,
            heads: 3,
        }
        .check_composite();
        Rows::<32, 64> {
            count: 2,
            length: 40,
            heads: 2,
        }
        .check_composite();
    }

    #[test]
    fn cached_attention_reads_what_was_kept_last_and_nothing_behind_the_query() {
        let rows = Rows::<12, 24> {
            count: 2,
            length: 5,
            heads: 3,
        };
        let backend = Fused::default();
        let (q, kv) = rows.inputs(&backend);
        let whole = rows.whole(&backend);
        let mut cache = backend.cache(2, 5, 3, 12).unwrap();
        let mut keep = |places: &[u32], from: &[u32]| {
            let kv = backend.gather(&kv, from).unwrap();
            let places = TokenRows::listed(5, places);
            backend.keep(&kv, places, &mut cache).unwrap();
            let q = backend.gather(&q, &[2, 8]).unwrap();
            let places = TokenRows::listed(5, &[2, 8]);
            let y = backend.cached_attention(&q, places, &cache).unwrap();
            backend.values(&y).unwrap()
        };
        // Others' keys and values behind the queries at positions 2 and 3.
        let all: Vec<u32> = (0..10).collect();
        let found = keep(&all, &[0, 1, 2, 9, 8, 5, 6, 7, 8, 0]);
        assert_eq!(found[..12], whole[2 * 12..3 * 12]);
        assert_eq!(found[12..], whole[8 * 12..9 * 12]);
        // Another key of the first row shows there alone; the right one restores it.
        let changed = keep(&[1], &[3]);
        assert_ne!(changed[..12], found[..12]);
        assert_eq!(changed[12..], found[12..]);
        assert_eq!(keep(&[1], &[1]), found);
    }

    #[test]
    fn cached_attention_refuses_places_beyond_the_cache_other_widths_and_a_tape() {
        let backend = Fused::default();
        let rows = Rows::<12, 24> {
            count: 2,
            length: 5,
            heads: 3,
        };
        let (q, kv) = rows.inputs(&backend);
        assert!(backend.cache(2, 5, 5, 12).is_err());
        assert!(backend.cache(2, 5, 0, 12).is_err());
        let all = TokenRows::all(5);
        for (count, length, width) in [(1, 5, 12), (2, 4, 12), (2, 5, 24)] {
            let mut cache = backend.cache(count, length, 3, width).unwrap();
            assert!(backend.keep(&kv, all, &mut cache).is_err());
            assert!(backend.cached_attention(&q, all, &cache).is_err());
        }
        let mut cache = backend.cache(2, 5, 3, 12).unwrap();
        assert!(backend.keep(&kv, all, &mut cache).is_ok());
        assert!(backend.cached_attention(&q, all, &cache).is_ok());
        let descending = [1, 0, 2, 3, 4, 5, 6, 7, 8, 9];
        let descending = TokenRows::listed(5, &descending);
        assert!(backend.keep(&kv, descending, &mut cache).is_err());
        backend.record(<Fused as Tensors>::Gradients::default());
        assert!(backend.cached_attention(&q, all, &cache).is_err());
    }
}
