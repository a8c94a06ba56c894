//! y(n, D) = softmax(rot(q) rot(k)ᵀ / √W) v per row of L tokens and per head of width W = D / H; k and v are the column
//! blocks of kv (R, 2D); q (n, D) holds the queries of some token rows, or of all. Rotary (arXiv 2104.09864) turns the
//! pair (j, j + W/2) at position l by l · 10000^(−2j/W). A query's result does not depend on which others are there.
//!
//! # Gradient
//!
//! With q' = rot(q) / √W, k' = rot(k), S = q' k'ᵀ, P = softmax(S) and y = P v, given dy:
//!
//! - dv = Pᵀ dy, dP = dy vᵀ;
//! - dS = P ∘ (dP − δ) with δ_i = Σ_j P_ij dP_ij = Σ_w dy_iw y_iw (arXiv 2205.14135, section B.2);
//! - dq' = dS k', dk' = dSᵀ q'; a rotation's transpose turns the other way.
//!
//! Kept: q, kv, y and the logarithm λ of each softmax's denominator. P = exp(S − λ) is computed again in blocks of query
//! rows, so that scores never leave the cache.

pub mod cpu;

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, compare, descend, gradient, look_up, same_on_any_threads, table,
    };
    use crate::kernels::{Backend, Fused, TokenRows};

    struct Attention<const D: usize, const D2: usize> {
        batch: usize,
        length: usize,
        heads: usize,
        scale: f32,
        /// Token rows that have queries; all when empty.
        listed: Vec<u32>,
    }

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
            let mut q = table::<B, D>(backend, self.scale, 1)?;
            let mut kv = table::<B, D2>(backend, self.scale, 2)?;
            let all = self.batch * self.length;
            let mut queries = look_up(backend, &q, all)?;
            if !self.listed.is_empty() {
                queries = backend.gather(&queries, &self.listed)?;
            }
            let keys = look_up(backend, &kv, all)?;
            let y = backend.attention::<Const<D>, Const<D2>>(&queries, &keys, self.heads, self.rows())?;
            let values = backend.values(&y)?;
            let mut g = descend(backend, &y)?;
            Ok(vec![
                ("y", values),
                ("dq", gradient(backend, &mut q, &mut g)?),
                ("dkv", gradient(backend, &mut kv, &mut g)?),
            ])
        }
    }

    fn small(listed: &[u32]) -> Attention<12, 24> {
        Attention {
            batch: 3,
            length: 5,
            heads: 3,
            scale: 2.0,
            listed: listed.to_vec(),
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        // 1e-5: sums over up to 200 keys in f32, and exponentials of scores of size 10.
        let one = Attention::<4, 8> {
            batch: 3,
            length: 2,
            heads: 2,
            scale: 1.0,
            listed: Vec::new(),
        };
        compare(&one, 1e-5);
        compare(&small(&[]), 1e-5);
        let wide = Attention::<64, 128> {
            batch: 3,
            length: 33,
            heads: 2,
            scale: 2.0,
            listed: Vec::new(),
        };
        compare(&wide, 1e-5);
        same_on_any_threads(&wide);
        let long = |listed| Attention::<32, 64> {
            batch: 1,
            length: 200,
            heads: 1,
            scale: 2.0,
            listed,
        };
        compare(&long(Vec::new()), 1e-5);
        // More queries than a block, fewer than keys.
        compare(&long((0..200).filter(|l| l % 4 != 1).collect()), 1e-5);
    }

    #[test]
    fn some_queries_agree_with_the_composite() {
        // A row of the batch without queries, the first, the last, and all of a row.
        for listed in [&[1, 3, 10][..], &[5, 6, 7, 8, 9], &[0, 14]] {
            compare(&small(listed), 1e-5);
            same_on_any_threads(&small(listed));
        }
    }

    #[test]
    fn a_query_does_not_depend_on_the_others() {
        let run = |case: &Attention<12, 24>| case.run(&Fused::default()).unwrap();
        let (all, listed) = (run(&small(&[])), [1, 3, 10, 14]);
        let some = run(&small(&listed));
        for (i, &at) in listed.iter().enumerate() {
            assert_eq!(some[0].1[i * 12..][..12], all[0].1[at as usize * 12..][..12]);
        }
    }

    #[test]
    fn queries_that_are_none_of_the_batch_are_an_error() {
        for listed in [&[15][..], &[3, 3], &[4, 2]] {
            let backend = Fused::default();
            let q = table::<_, 12>(&backend, 1.0, 1).unwrap();
            let kv = table::<_, 24>(&backend, 1.0, 2).unwrap();
            let q = look_up(&backend, &q, listed.len()).unwrap();
            let kv = look_up(&backend, &kv, 15).unwrap();
            assert!(
                backend
                    .attention::<Const<12>, Const<24>>(&q, &kv, 3, TokenRows::listed(5, listed))
                    .is_err(),
                "{listed:?}"
            );
        }
    }
}
