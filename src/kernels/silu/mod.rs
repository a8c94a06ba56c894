//! y(R, N) = x · sigmoid(x).
//!
//! # Gradient
//!
//! With s = sigmoid(x): dy/dx = s + x s (1 − s), recomputed from x.

mod cpu;
mod cuda;

use dfdx::prelude::{ConstDim, Device, OwnedTape, TryMul as _};

use super::Tensors;
use super::composite::{Composite, Number};
use crate::error::Result;

/// The activation of the conditioning.
pub trait Silu: Tensors {
    /// y = x · sigmoid(x).
    ///
    /// # Errors
    /// Memory runs out.
    fn silu<N: ConstDim>(&self, x: &Self::Act<(usize, N)>) -> Result<Self::Act<(usize, N)>>;
}

/// The reference, of dfdx operations.
impl<E: Number, Dev: Device<E>> Silu for Composite<E, Dev> {
    fn silu<N: ConstDim>(&self, x: &Self::Act<(usize, N)>) -> Result<Self::Act<(usize, N)>> {
        let y = self.run(Self::matrix(x), |x| {
            let sigmoid = x.retaped::<OwnedTape<E, Dev>>().try_sigmoid()?;
            x.try_mul(sigmoid)
        });
        Self::typed(y?)
    }
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::Silu as _;
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, assert_close, compare, descend, exact, gradient, look_up, same_on_any_threads, table,
    };
    use crate::kernels::{Backend, Tensors as _};

    struct Silu(usize);

    impl Case for Silu {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let x = table::<B, 37>(backend, 4.0, 1)?;
            let y = backend.silu(&look_up(backend, &x, self.0)?)?;
            let values = backend.values(&y)?;
            let gradients = descend(backend, &y)?;
            Ok(vec![("y", values), ("dx", gradient(backend, &x, &gradients)?)])
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        for rows in [1, 3, 700] {
            compare(&Silu(rows), 2e-6); // a dozen roundings, and up to twelve rows added into one of the table
        }
        same_on_any_threads(&Silu(700));
    }

    #[test]
    fn reference_is_x_times_its_sigmoid() {
        let backend = exact();
        let x = backend.input((2, Const::<2>), &[5., 6., 1., 2.]).unwrap();
        let y = backend.silu(&x).unwrap();
        let silu = |u: f64| u / (1.0 + (-u).exp());
        assert_close(&backend.wide_values(&y), &[5., 6., 1., 2.].map(silu));
    }
}
