//! y(R, O) = gelu(u), u = x(R, I) · w(O, I)ᵀ + b(O); the tanh form of gelu.
//!
//! # Gradient
//!
//! u is kept. du = dy · gelu'(u), then as in [`super::linear`]: dx = du · w, dw += duᵀ · x, db += Σ_r du[r].

mod cpu;
mod cuda;

use dfdx::prelude::{ConstDim, Device, RealizeTo as _, Tensor};

use super::composite::{Composite, Matrix, Number};
use super::{Tensors, linear};
use crate::error::Result;

/// Linear layers with GELU.
pub trait LinearGelu: Tensors {
    /// y = gelu(x · wᵀ + b), the tanh form: ½u(1 + tanh(√(2/π)(u + 0.044715u³))).
    ///
    /// # Errors
    /// Memory runs out.
    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: &Self::Param<(O,)>,
    ) -> Result<Self::Act<(usize, O)>>;
}

/// The reference, of dfdx operations.
impl<E: Number, Dev: Device<E>> LinearGelu for Composite<E, Dev> {
    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: &Self::Param<(O,)>,
    ) -> Result<Self::Act<(usize, O)>> {
        let (w, b) = (Self::matrix(&self.take(w)?), self.take(b)?.realize());
        Self::typed(self.linear_gelu_matrix(Self::matrix(x), w, b)?)
    }
}

impl<E: Number, Dev: Device<E>> Composite<E, Dev> {
    fn linear_gelu_matrix(
        &self,
        x: Matrix<E, Dev>,
        w: Matrix<E, Dev>,
        b: Tensor<(usize,), E, Dev>,
    ) -> Result<Matrix<E, Dev>> {
        self.run(x, |x| linear::product(x, w, Some(b))?.try_fast_gelu())
    }
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::LinearGelu as _;
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, assert_close, compare, descend, exact, gradient, look_up, same_on_any_threads, table,
        weight,
    };
    use crate::kernels::{Backend, Tensors as _};

    struct LinearGelu(usize);

    impl Case for LinearGelu {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let x = table::<B, 45>(backend, 1.0, 1)?;
            let w = weight::<B, (Const<70>, Const<45>)>(backend, 0.6, 2)?;
            let b = weight::<B, (Const<70>,)>(backend, 1.0, 3)?;
            let y = backend.linear_gelu(&look_up(backend, &x, self.0)?, &w, &b)?;
            let values = backend.values(&y)?;
            let g = descend(backend, &y)?;
            Ok(vec![
                ("y", values),
                ("dx", gradient(backend, &x, &g)?),
                ("dw", gradient(backend, &w, &g)?),
                ("db", gradient(backend, &b, &g)?),
            ])
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        for rows in [1, 7, 300] {
            compare(&LinearGelu(rows), 5e-6); // sums of up to 300 products, in f32
        }
        same_on_any_threads(&LinearGelu(300));
    }

    #[test]
    fn reference_takes_the_gelu_of_the_linear_layer() {
        let backend = exact();
        let x = backend.input((2, Const::<2>), &[5., 6., 1., 2.]).unwrap();
        // w = [[1, 0], [0, −1], [2, 1]]: x · wᵀ = [[5, −6, 16], [1, −2, 4]].
        let w = backend
            .param::<(Const<3>, Const<2>)>(&[1., 0., 0., -1., 2., 1.])
            .unwrap();
        let b = backend.param::<(Const<3>,)>(&[-5., 6.5, -16.25]).unwrap();
        let gelu = |u: f64| {
            0.5 * u * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (u + 0.044_715 * u.powi(3))).tanh())
        };
        let y = backend.linear_gelu(&x, &w, &b).unwrap();
        assert_close(
            &backend.wide_values(&y),
            &[0., 0.5, -0.25, -4., 4.5, -12.25].map(gelu),
        );
    }
}
