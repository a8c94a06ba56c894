//! y(R, O) = x(R, I) · w(O, I)ᵀ + b(O), or a range of the outputs, from a range of the rows of w.
//!
//! # Gradient
//!
//! dx = dy · w; dw += dyᵀ · x and db += Σ_r dy[r], each a left fold over the rows in order (see [`super::gemm`]).

pub mod cpu;

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, compare, descend, gradient, look_up, same_on_any_threads, table, weight,
    };
    use crate::kernels::{Backend, Fused, Tensors as _};

    struct Linear {
        rows: usize,
        bias: bool,
    }

    impl Case for Linear {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let x = table::<B, 45>(backend, 1.0, 1)?;
            let w = weight::<B, (Const<70>, Const<45>)>(backend, 0.3, 2)?;
            let b = weight::<B, (Const<70>,)>(backend, 1.0, 3)?;
            let y = backend.linear(&look_up(backend, &x, self.rows)?, &w, self.bias.then_some(&b))?;
            let values = backend.values(&y)?;
            let g = descend(backend, &y)?;
            let mut results = vec![
                ("y", values),
                ("dx", gradient(backend, &x, &g)?),
                ("dw", gradient(backend, &w, &g)?),
            ];
            if self.bias {
                results.push(("db", gradient(backend, &b, &g)?));
            }
            Ok(results)
        }
    }

    /// Two parts of the outputs, the second of which takes the first's place in the head.
    struct Parts;

    impl Case for Parts {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            let mut results = Vec::new();
            for first in [0, 33] {
                backend.record(B::Gradients::default());
                let x = table::<B, 45>(backend, 1.0, 1)?;
                let w = weight::<B, (Const<70>, Const<45>)>(backend, 0.3, 2)?;
                let y = backend.linear_part::<_, _, Const<37>>(&look_up(backend, &x, 50)?, &w, first)?;
                let values = backend.values(&y)?;
                let g = descend(backend, &y)?;
                results.push(("y", values));
                results.push(("dx", gradient(backend, &x, &g)?));
                results.push(("dw", gradient(backend, &w, &g)?));
            }
            Ok(results)
        }
    }

    #[test]
    fn a_part_agrees_with_the_composite() {
        compare(&Parts, 5e-6); // sums of up to 50 products, in f32
        let backend = Fused::default();
        let w = weight::<_, (Const<70>, Const<45>)>(&backend, 0.3, 2).unwrap();
        let x = backend.input((1, Const::<45>), &[1.0; 45]).unwrap();
        assert!(backend.linear_part::<_, _, Const<37>>(&x, &w, 34).is_err());
    }

    #[test]
    fn agrees_with_the_composite() {
        for (rows, bias) in [(1, true), (7, false), (300, true)] {
            compare(&Linear { rows, bias }, 5e-6); // sums of up to 300 products, in f32
        }
        same_on_any_threads(&Linear {
            rows: 300,
            bias: true,
        });
    }
}
