//! The masked negative log-likelihood: logits z = h(n, D) · w(V, D)ᵀ + b(V) over the alphabet A (tokens below its size,
//! without the mask), nll_i = log Σ_{v ∈ A} exp z_iv − z_i,target, and the scalar Σ_i weight_i · nll_i.
//!
//! Logits exist for some rows at a time, in scratch memory; tokens outside the alphabet are not computed (beyond its
//! size) or have probability 0 (the mask).
//!
//! # Gradient
//!
//! dz_iv = weight_i (softmax(z_i)_v − [v = target_i]) for v ∈ A, 0 elsewhere; dh = dz · w, dw += dzᵀ · h, db += Σ_i dz_i.
//!
//! The scalar is the end of the tape, so its own gradient is 1 and everything is known in the forward pass: while
//! recording, dz is used right there, chunk by chunk, and logits are never computed a second time. dw and db are left
//! folds over the positions in order, hence the same for any micro-batches.

pub mod cpu;

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, compare, gradient, look_up, same_on_any_threads, table, weight,
    };
    use crate::kernels::{Alphabet, Backend, Fused};

    struct Nll {
        rows: usize,
        alphabet: Alphabet,
        scale: f32,
    }

    impl Case for Nll {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let mut h = table::<B, 21>(backend, self.scale, 1)?;
            let mut w = weight::<B, (Const<1100>, Const<21>)>(backend, 1.0, 2)?;
            let mut b = weight::<B, (Const<1100>,)>(backend, 1.0, 3)?;
            let alphabet = self.alphabet;
            let size = alphabet.size;
            let not_the_mask = |token: u32| {
                if token == alphabet.mask {
                    (token + size - 1) % size
                } else {
                    token
                }
            };
            let targets: Vec<u32> = (0..self.rows as u32)
                .map(|i| not_the_mask(i * 7 % size))
                .collect();
            let weights: Vec<f32> = (0..self.rows).map(|i| 0.25 + (i % 5) as f32).collect();
            let groups: Vec<u32> = (0..self.rows as u32).map(|i| i / 10).collect();
            let x = look_up(backend, &h, self.rows)?;
            let (loss, nll) = backend.nll(&x, &w, &b, alphabet, &targets, &weights, &groups)?;
            let value = backend.values(&loss)?;
            let mut g = backend.backward(loss)?;
            let (_, again) = backend.nll(&x, &w, &b, alphabet, &targets, &weights, &groups)?;
            Ok(vec![
                ("loss", value),
                ("nll", backend.values(&nll)?),
                ("nll without recording", backend.values(&again)?),
                ("dh", gradient(backend, &mut h, &mut g)?),
                ("dw", gradient(backend, &mut w, &mut g)?),
                ("db", gradient(backend, &mut b, &mut g)?),
            ])
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        for (rows, mask, size, scale) in [(1, 3, 1100, 1.0), (30, 0, 17, 1.0), (150, 1029, 1030, 3.0)] {
            let case = Nll {
                rows,
                alphabet: Alphabet { mask, size },
                scale,
            };
            compare(&case, 5e-6); // sums over a thousand tokens or a hundred rows, in f32
            same_on_any_threads(&case);
        }
    }

    #[test]
    fn nothing_masked_is_a_loss_of_zero() {
        let backend = Fused::default();
        let h = backend.input((0, Const::<4>), &[]).unwrap();
        let mut w = weight::<_, (Const<9>, Const<4>)>(&backend, 1.0, 1).unwrap();
        let b = weight::<_, (Const<9>,)>(&backend, 1.0, 2).unwrap();
        backend.record(crate::kernels::Gradients::default());
        let (loss, nll) = backend
            .nll(&h, &w, &b, Alphabet { mask: 8, size: 9 }, &[], &[], &[])
            .unwrap();
        assert!(backend.values(&nll).unwrap().is_empty());
        assert_eq!(backend.values(&loss).unwrap(), [0.0]);
        let mut g = backend.backward(loss).unwrap();
        assert!(
            gradient(&backend, &mut w, &mut g)
                .unwrap()
                .iter()
                .all(|&g| g == 0.0)
        );
    }

    #[test]
    fn a_target_outside_the_alphabet_is_an_error() {
        let backend = Fused::default();
        let h = backend.input((1, Const::<4>), &[0.0; 4]).unwrap();
        let w = weight::<_, (Const<9>, Const<4>)>(&backend, 1.0, 1).unwrap();
        let b = weight::<_, (Const<9>,)>(&backend, 1.0, 2).unwrap();
        for target in [2, 7, 9] {
            assert!(
                backend
                    .nll(&h, &w, &b, Alphabet { mask: 2, size: 7 }, &[target], &[1.0], &[0])
                    .is_err()
            );
        }
    }
}
