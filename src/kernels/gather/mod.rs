//! y(n, D) = x(R, D)[rows]; `rows` are strictly ascending or may repeat.
//!
//! # Gradient
//!
//! dx[rows[i]] += dy[i] in the order of i.

pub mod cpu;

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::kernels::testing::{Case, Results, compare, descend, gradient, look_up, table};
    use crate::kernels::{Backend, Fused, Tensors as _};

    struct Gather(Vec<u32>);

    impl Case for Gather {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let x = table::<B, 13>(backend, 1.0, 1)?;
            let y = backend.gather(&look_up(backend, &x, 55)?, &self.0)?;
            let values = backend.values(&y)?;
            let g = descend(backend, &y)?;
            Ok(vec![("y", values), ("dx", gradient(backend, &x, &g)?)])
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        compare(&Gather(vec![0, 3, 4, 9, 54]), 2e-6); // single precision
        compare(&Gather(vec![2; 40]), 2e-6);
        compare(&Gather((0..55).collect()), 2e-6);
    }

    #[test]
    fn a_row_outside_is_an_error() {
        let backend = Fused::default();
        let table = table::<_, 3>(&backend, 1.0, 1).unwrap();
        let x = look_up(&backend, &table, 5).unwrap();
        assert!(backend.gather(&x, &[5]).is_err());
        assert_eq!(
            backend.values(&backend.gather(&x, &[]).unwrap()).unwrap(),
            [0.0; 0]
        );
    }
}
