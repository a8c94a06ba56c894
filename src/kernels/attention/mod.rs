//! y(R, D) = softmax(rot(q) rot(k)ᵀ / √W) v per row of L tokens and per head of width W = D / H; q, k, v are the column
//! blocks of qkv (R, 3D), each split into heads. Rotary (arXiv 2104.09864) turns the pair (j, j + W/2) at position l by
//! l · 10000^(−2j/W).
//!
//! # Gradient
//!
//! With q' = rot(q) / √W, k' = rot(k), S = q' k'ᵀ, P = softmax(S) and y = P v, given dy:
//!
//! - dv = Pᵀ dy, dP = dy vᵀ;
//! - dS = P ∘ (dP − δ) with δ_i = Σ_j P_ij dP_ij = Σ_w dy_iw y_iw (arXiv 2205.14135, section B.2);
//! - dq' = dS k', dk' = dSᵀ q'; a rotation's transpose turns the other way.
//!
//! Kept: qkv, y and the logarithm λ of each softmax's denominator. P = exp(S − λ) is computed again in blocks of query
//! rows, so that scores never leave the cache.

pub mod cpu;

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use crate::error::Result;
    use crate::kernels::Backend;
    use crate::kernels::testing::{
        Case, Results, compare, descend, gradient, look_up, same_on_any_threads, table,
    };

    struct Attention<const L: usize, const D: usize, const D3: usize> {
        batch: usize,
        heads: usize,
        scale: f32,
    }

    impl<const L: usize, const D: usize, const D3: usize> Case for Attention<L, D, D3> {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let mut qkv = table::<B, D3>(backend, self.scale, 1)?;
            let x = look_up(backend, &qkv, self.batch * L)?;
            let y = backend.attention::<Const<L>, Const<D>, Const<D3>>(&x, self.heads)?;
            let values = backend.values(&y)?;
            let mut g = descend(backend, &y)?;
            Ok(vec![
                ("y", values),
                ("dqkv", gradient(backend, &mut qkv, &mut g)?),
            ])
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        // 1e-5: sums over up to 200 keys in f32, and exponentials of scores of size 10.
        compare(
            &Attention::<1, 4, 12> {
                batch: 3,
                heads: 2,
                scale: 1.0,
            },
            1e-5,
        );
        compare(
            &Attention::<5, 12, 36> {
                batch: 2,
                heads: 3,
                scale: 2.0,
            },
            1e-5,
        );
        compare(
            &Attention::<33, 64, 192> {
                batch: 3,
                heads: 2,
                scale: 2.0,
            },
            1e-5,
        );
        compare(
            &Attention::<200, 32, 96> {
                batch: 1,
                heads: 1,
                scale: 2.0,
            },
            1e-5,
        );
        same_on_any_threads(&Attention::<33, 64, 192> {
            batch: 3,
            heads: 2,
            scale: 2.0,
        });
    }
}
