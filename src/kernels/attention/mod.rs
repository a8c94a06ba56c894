//! y(n, D) = softmax(rot(q) rot(k)ᵀ / √W) v per row of L tokens and per head of width W = D / H. k and v are the column
//! blocks of kv (R, 2D); q (n, D) holds the queries of some token rows, or of all. Rotary (arXiv 2104.09864) rotates
//! the pair (j, j + W/2) at position l by l · 10000^(−2j/W). A query's result does not depend on which other queries
//! there are.
//!
//! # Patterns
//!
//! A [`Pattern`] decides which keys a query attends to. In every pattern these keys are a prefix of the query's row of
//! the batch, whose end e(l) does not decrease with the query's position l: L (full), l + 1 (causal), (⌊l / block⌋ + 1)
//! · block, at most L (block-causal). The softmax ranges over that prefix. Queries are in ascending order, so a block
//! of queries sees no keys beyond the end of its last query, and none are computed.
//!
//! # Gradient
//!
//! With q' = rot(q) / √W, k' = rot(k), S = q' k'ᵀ, P = softmax(S) and y = P v, for a given dy:
//!
//! - dv = Pᵀ dy, dP = dy vᵀ;
//! - dS = P ∘ (dP − δ) (a key that is not seen has P = 0, hence dS = 0) with δ_i = Σ_j P_ij dP_ij = Σ_w dy_iw y_iw
//!   (arXiv 2205.14135, section B.2);
//! - dq' = dS k', dk' = dSᵀ q'; the transpose of a rotation rotates the other way.
//!
//! Kept: q, kv, y and the logarithm λ of each softmax's denominator. P = exp(S − λ) is computed again in blocks of
//! query rows, so that scores never leave the cache.

mod cached;
mod composite;
mod cpu;
mod cuda;
pub(super) mod heads;
mod pattern;

use dfdx::shapes::ConstDim;

use super::{Tensors, TokenRows};
use crate::error::Result;
pub use cached::CachedAttention;
pub use pattern::Pattern;

/// Base of the rotary angles (Su et al., arXiv 2104.09864).
const ROTARY_BASE: f64 = 10_000.0;

/// Rotary, scores, softmax, values.
pub trait Attention: Tensors {
    /// Attention with rotary positions, per row of L tokens and per head: y = softmax(rot(q) rot(k)ᵀ / √(D/H)) v, over the
    /// keys that `pattern` lets a query attend to. Columns of `kv` (R, 2D) are [k | v]; they and q are split into `heads`.
    /// There are queries for the token rows of `rows` alone, keys and values for all.
    ///
    /// # Errors
    /// The shapes, heads or rows do not fit each other; memory runs out.
    fn attention<D: ConstDim, D2: ConstDim>(
        &self,
        q: &Self::Act<(usize, D)>,
        kv: &Self::Act<(usize, D2)>,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Self::Act<(usize, D)>>;
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::Attention as _;
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, bits, compare, descend, gradient, look_up, same_on_any_threads, table,
    };
    use crate::kernels::{Backend, Fused, Pattern, TokenRows};

    struct Attention<const D: usize, const D2: usize> {
        batch: usize,
        length: usize,
        heads: usize,
        scale: f32,
        /// Token rows that have queries; all when empty.
        listed: Vec<u32>,
        pattern: Pattern,
    }

    /// A full one, one with blocks of a position, with blocks that do not divide a row, and with one that is larger.
    const PATTERNS: [Pattern; 4] = [
        Pattern::Full,
        Pattern::Causal,
        Pattern::BlockCausal { block: 3 },
        Pattern::BlockCausal { block: 1000 },
    ];

    impl<const D: usize, const D2: usize> Attention<D, D2> {
        fn rows(&self) -> TokenRows<'_> {
            TokenRows {
                length: self.length,
                listed: (!self.listed.is_empty()).then_some(&self.listed),
            }
        }
    }

    impl<const D: usize, const D2: usize> Case for Attention<D, D2> {
        fn fits_cuda(&self) -> bool {
            (D / self.heads).is_multiple_of(16)
        }

        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let q = table::<B, D>(backend, self.scale, 1)?;
            let kv = table::<B, D2>(backend, self.scale, 2)?;
            let all = self.batch * self.length;
            let mut queries = look_up(backend, &q, all)?;
            if !self.listed.is_empty() {
                queries = backend.gather(&queries, &self.listed)?;
            }
            let keys = look_up(backend, &kv, all)?;
            let (heads, rows) = (self.heads, self.rows());
            let y = backend.attention::<Const<D>, Const<D2>>(&queries, &keys, heads, rows, self.pattern)?;
            let values = backend.values(&y)?;
            let g = descend(backend, &y)?;
            Ok(vec![
                ("y", values),
                ("dq", gradient(backend, &q, &g)?),
                ("dkv", gradient(backend, &kv, &g)?),
            ])
        }
    }

    fn small(listed: &[u32], pattern: Pattern) -> Attention<12, 24> {
        Attention {
            batch: 3,
            length: 5,
            heads: 3,
            scale: 2.0,
            listed: listed.to_vec(),
            pattern,
        }
    }

    /// Rows of more than a tile of queries and of keys, of any head width.
    fn wide(listed: &[u32], pattern: Pattern) -> Attention<32, 64> {
        Attention {
            batch: 2,
            length: 150,
            heads: 2,
            scale: 2.0,
            listed: listed.to_vec(),
            pattern,
        }
    }

    // 1e-5 below: sums over up to 200 keys in f32, and exponentials of scores of size 10.

    #[test]
    fn full_attention_agrees_with_the_composite() {
        let pattern = Pattern::Full;
        let one = Attention::<4, 8> {
            batch: 3,
            length: 2,
            heads: 2,
            scale: 1.0,
            listed: Vec::new(),
            pattern,
        };
        compare(&one, 1e-5);
        compare(&small(&[], pattern), 1e-5);
        let wide = Attention::<64, 128> {
            batch: 3,
            length: 33,
            heads: 2,
            scale: 2.0,
            listed: Vec::new(),
            pattern,
        };
        compare(&wide, 1e-5);
        same_on_any_threads(&wide);
        let long = |listed| Attention::<32, 64> {
            batch: 1,
            length: 200,
            heads: 1,
            scale: 2.0,
            listed,
            pattern,
        };
        compare(&long(Vec::new()), 1e-5);
        // More queries than a block, fewer than keys.
        compare(&long((0..200).filter(|l| l % 4 != 1).collect()), 1e-5);
    }

    #[test]
    fn some_queries_agree_with_the_composite() {
        // A row of the batch without queries, the first, the last, and all of a row.
        for listed in [&[1, 3, 10][..], &[5, 6, 7, 8, 9], &[0, 14]] {
            for pattern in PATTERNS {
                compare(&small(listed, pattern), 1e-5);
                same_on_any_threads(&small(listed, pattern));
            }
        }
    }

    #[test]
    fn patterns_agree_with_the_composite() {
        // Blocks that end within tiles, with them, and of more than one tile.
        let blocks = [3, 64, 70].map(|block| Pattern::BlockCausal { block });
        for pattern in [&[Pattern::Causal][..], &blocks].concat() {
            let case = wide(&[], pattern);
            compare(&case, 1e-5);
            same_on_any_threads(&case);
            // Of one row late queries alone, which no early tile of queries stands for; of the other all but some.
            let late = 120..150;
            let most = (150..300).filter(|l| l % 7 != 2);
            compare(&wide(&late.chain(most).collect::<Vec<u32>>(), pattern), 1e-5);
        }
        compare(&small(&[], Pattern::Causal), 1e-5);
        compare(&small(&[], Pattern::BlockCausal { block: 2 }), 1e-5);
    }

    #[test]
    fn block_of_one_is_causal_and_block_of_the_row_is_full() {
        let run = |pattern| bits(&wide(&[], pattern).run(&Fused::default()).unwrap());
        assert_eq!(run(Pattern::BlockCausal { block: 1 }), run(Pattern::Causal));
        assert_eq!(run(Pattern::BlockCausal { block: 150 }), run(Pattern::Full));
        assert_ne!(run(Pattern::Causal), run(Pattern::Full));
    }

    #[test]
    fn query_does_not_depend_on_the_others() {
        for pattern in PATTERNS {
            let run = |listed: &[u32]| wide(listed, pattern).run(&Fused::default()).unwrap();
            let (all, listed) = (run(&[]), [1, 3, 140, 150, 299]);
            let some = run(&listed);
            for (i, &at) in listed.iter().enumerate() {
                assert_eq!(
                    some[0].1[i * 32..][..32],
                    all[0].1[at as usize * 32..][..32],
                    "{pattern:?}"
                );
            }
        }
    }

    /// y of one row of the batch, all numbers of its keys and values from `from` on being another's.
    fn with_another_end<B: Backend>(backend: &B, pattern: Pattern, from: usize) -> Vec<f32> {
        let q = table::<B, 32>(backend, 2.0, 1).unwrap();
        let kv = table::<B, 64>(backend, 2.0, 2).unwrap();
        let queries = look_up(backend, &q, 150).unwrap();
        let rows: Vec<u32> = (0..150)
            .map(|l| {
                if l < from {
                    l as u32
                } else {
                    149 - (l - from) as u32
                }
            })
            .collect();
        let keys = look_up(backend, &kv, 150).unwrap();
        let keys = backend.gather(&keys, &rows).unwrap();
        let y = backend
            .attention::<Const<32>, Const<64>>(&queries, &keys, 2, TokenRows::all(150), pattern)
            .unwrap();
        backend.values(&y).unwrap()
    }

    /// The first query that a change of the keys from 75 on shows in.
    fn first_reached<B: Backend>(backend: &B, pattern: Pattern) -> usize {
        let (as_is, changed) = (
            with_another_end(backend, pattern, 150),
            with_another_end(backend, pattern, 75),
        );
        let rows = as_is.chunks(32).zip(changed.chunks(32));
        rows.take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn keys_beyond_the_pattern_do_not_change_a_query() {
        let cases = [
            (Pattern::Full, 0),
            (Pattern::Causal, 75),
            (Pattern::BlockCausal { block: 40 }, 40),
            (Pattern::BlockCausal { block: 75 }, 75),
            (Pattern::BlockCausal { block: 76 }, 0),
        ];
        for (pattern, first) in cases {
            assert_eq!(first_reached(&Fused::default(), pattern), first, "{pattern:?}");
            #[cfg(target_os = "linux")]
            {
                use crate::kernels::cuda::{Cuda, driver::DType, emulated::Emulated};
                for element in [DType::F32, DType::Bf16] {
                    let cuda = Cuda::new(Box::new(Emulated::default()), element);
                    assert_eq!(first_reached(&cuda, pattern), first, "{element:?}, {pattern:?}");
                }
            }
        }
    }

    #[test]
    fn queries_outside_of_the_batch_and_empty_blocks_are_errors() {
        let run = |listed: &[u32], pattern| {
            let backend = Fused::default();
            let q = table::<_, 12>(&backend, 1.0, 1).unwrap();
            let kv = table::<_, 24>(&backend, 1.0, 2).unwrap();
            let q = look_up(&backend, &q, listed.len()).unwrap();
            let kv = look_up(&backend, &kv, 15).unwrap();
            let rows = TokenRows::listed(5, listed);
            backend.attention::<Const<12>, Const<24>>(&q, &kv, 3, rows, pattern)
        };
        assert!(run(&[1, 14], Pattern::Full).is_ok());
        for listed in [&[15][..], &[3, 3], &[4, 2]] {
            assert!(run(listed, Pattern::Full).is_err(), "{listed:?}");
        }
        assert!(run(&[1, 14], Pattern::BlockCausal { block: 0 }).is_err());
    }
}
