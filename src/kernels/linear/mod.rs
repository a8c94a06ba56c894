//! y(R, O) = x(R, I) · w(O, I)ᵀ + b(O), or a range of the outputs, from a range of the rows of w.
//!
//! # Gradient
//!
//! dx = dy · w; dw += dyᵀ · x and db += Σ_r dy[r], each a left fold over the rows in order (see [`super::gemm`]).

pub(super) mod cpu;
mod cuda;

use dfdx::prelude::{
    Axes2, Axis, BroadcastTo as _, ConstDim, Device, GatherTo as _, HasShape as _, OwnedTape, PermuteTo as _,
    PutTape as _, RealizeTo as _, Tensor, TryAdd as _, TryMatMul as _,
};

use super::Tensors;
use super::composite::{Composite, Matrix, Number, TracedMatrix};
use crate::error::{Error, Result};

/// Linear layers.
pub trait Linear: Tensors {
    /// y(R, O) = x(R, I) · w(O, I)ᵀ + b(O).
    ///
    /// # Errors
    /// Memory runs out.
    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: Option<&Self::Param<(O,)>>,
    ) -> Result<Self::Act<(usize, O)>>;

    /// y(R, P) = x(R, I) · w[first..first + P]ᵀ: some outputs of a linear layer without bias.
    ///
    /// # Errors
    /// There are fewer than `first` + P outputs; memory runs out.
    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        first: usize,
    ) -> Result<Self::Act<(usize, P)>>;
}

/// The reference, of dfdx operations.
impl<E: Number, Dev: Device<E>> Linear for Composite<E, Dev> {
    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: Option<&Self::Param<(O,)>>,
    ) -> Result<Self::Act<(usize, O)>> {
        let w = Self::matrix(&self.take(w)?);
        let b = b.map(|b| Ok::<_, Error>(self.take(b)?.realize())).transpose()?;
        Self::typed(self.linear_matrix(Self::matrix(x), w, b)?)
    }

    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        first: usize,
    ) -> Result<Self::Act<(usize, P)>> {
        let rows = self.indices((first..first + P::SIZE).collect())?;
        let w = Self::matrix(&self.take(w)?);
        let w = w.put_tape(OwnedTape::default());
        let y = self.run(Self::matrix(x), |x| {
            let w = w
                .try_gather::<(usize, usize), _>(rows)?
                .try_permute::<(usize, usize), Axes2<1, 0>>()?;
            x.try_matmul(w)
        });
        Self::typed(y?)
    }
}

impl<E: Number, Dev: Device<E>> Composite<E, Dev> {
    fn linear_matrix(
        &self,
        x: Matrix<E, Dev>,
        w: Matrix<E, Dev>,
        b: Option<Tensor<(usize,), E, Dev>>,
    ) -> Result<Matrix<E, Dev>> {
        self.run(x, |x| product(x, w, b))
    }
}

/// x · wᵀ + b.
pub(super) fn product<E: Number, Dev: Device<E>>(
    x: TracedMatrix<E, Dev>,
    w: Matrix<E, Dev>,
    b: Option<Tensor<(usize,), E, Dev>>,
) -> Result<TracedMatrix<E, Dev>, Dev::Err> {
    let w = w.try_permute::<(usize, usize), Axes2<1, 0>>()?;
    let y = x.try_matmul(w)?;
    match b {
        None => Ok(y),
        Some(b) => {
            let shape = *y.shape();
            y.try_add(b.try_broadcast_like::<_, Axis<0>>(&shape)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::Linear as _;
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, assert_close, compare, descend, exact, gradient, look_up, same_on_any_threads, table,
        weight,
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
    fn linear_part_agrees_with_the_composite() {
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

    #[test]
    fn reference_multiplies_and_adds_the_bias() {
        let backend = exact();
        let x = backend.input((2, Const::<2>), &[5., 6., 1., 2.]).unwrap();
        // w = [[1, 0], [0, −1], [2, 1]], b = [0, 10, −1]: [5, 6] → [5, −6 + 10, 16 − 1].
        let w = backend
            .param::<(Const<3>, Const<2>)>(&[1., 0., 0., -1., 2., 1.])
            .unwrap();
        let b = backend.param::<(Const<3>,)>(&[0., 10., -1.]).unwrap();
        let y = backend.linear(&x, &w, Some(&b)).unwrap();
        assert_close(&backend.wide_values(&y), &[5., 4., 15., 1., 8., 3.]);
        let y = backend.linear(&x, &w, None).unwrap();
        assert_close(&backend.wide_values(&y), &[5., -6., 16., 1., -2., 4.]);
    }
}
