//! y(n, D) = x(R, D)[rows]; `rows` are strictly ascending or may repeat.
//!
//! # Gradient
//!
//! dx[rows[i]] += dy[i] in the order of i.

mod cpu;
mod cuda;

use dfdx::prelude::{ConstDim, Device, GatherTo as _};

use super::Tensors;
use super::composite::{Composite, Matrix, Number};
use crate::error::Result;

/// Rows picked.
pub trait Gather: Tensors {
    /// y(n, D) = x(R, D)[rows]; `rows` may repeat: the gradient adds up.
    ///
    /// # Errors
    /// A row is R or more; memory runs out.
    fn gather<D: ConstDim>(&self, x: &Self::Act<(usize, D)>, rows: &[u32]) -> Result<Self::Act<(usize, D)>>;
}

/// The reference, of dfdx operations.
impl<E: Number, Dev: Device<E>> Gather for Composite<E, Dev> {
    fn gather<D: ConstDim>(&self, x: &Self::Act<(usize, D)>, rows: &[u32]) -> Result<Self::Act<(usize, D)>> {
        Self::typed(self.gather_matrix(Self::matrix(x), rows.iter().map(|&row| row as usize))?)
    }
}

impl<E: Number, Dev: Device<E>> Composite<E, Dev> {
    /// Rows of any number of columns.
    pub(super) fn gather_matrix(
        &self,
        x: Matrix<E, Dev>,
        rows: impl Iterator<Item = usize>,
    ) -> Result<Matrix<E, Dev>> {
        let rows = self.indices(rows.collect())?;
        self.run(x, |x| x.try_gather::<(usize, usize), _>(rows))
    }
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::Gather as _;
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, assert_close, compare, descend, exact, gradient, look_up, table,
    };
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
    fn row_outside_is_an_error() {
        let backend = Fused::default();
        let table = table::<_, 3>(&backend, 1.0, 1).unwrap();
        let x = look_up(&backend, &table, 5).unwrap();
        assert!(backend.gather(&x, &[5]).is_err());
        assert_eq!(
            backend.values(&backend.gather(&x, &[]).unwrap()).unwrap(),
            [0.0; 0]
        );
    }

    #[test]
    fn reference_picks_rows() {
        let backend = exact();
        let x = backend.input((2, Const::<2>), &[5., 6., 1., 2.]).unwrap();
        let y = backend.gather(&x, &[1, 1, 0]).unwrap();
        assert_close(&backend.wide_values(&y), &[1., 2., 1., 2., 5., 6.]);
    }
}
