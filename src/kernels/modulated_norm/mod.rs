//! y(R, D) = n · weight · (1 + scale) + shift with n = (x − μ) / √(σ² + ε), the statistics over D. A token row uses its
//! batch row's row of the modulation (B, M), or the only row (1, M); shift and scale are chunks of D columns of that
//! row.
//!
//! # Gradient
//!
//! Kept: μ and ρ = 1 / √(σ² + ε) of each row. With a = weight · (1 + scale) and g = dy · a:
//!
//! - dx = ρ (g − mean(g) − n · mean(g · n)): μ and σ² both depend on x, which removes the two projections from g;
//! - dweight += Σ_r dy · n · (1 + scale), dscale = Σ dy · n · weight and dshift = Σ dy over the token rows of a
//!   modulation row: left folds over the rows in order.

mod cpu;
mod cuda;

use dfdx::prelude::{
    Axis, BroadcastTo as _, ConstDim, Device, HasShape as _, RealizeTo as _, Tensor, TryAdd as _, TryMul as _,
};

use super::composite::{Composite, Number, chunk};
use super::{Tensors, TokenRows};
use crate::error::Result;

/// ε, added to the variance (PyTorch's default, which the authors keep).
const EPSILON: f64 = 1e-5;

/// LayerNorm and modulation.
pub trait ModulatedNorm: Tensors {
    /// y = LN(x) · weight · (1 + scale) + shift; LN over D without bias, ε = 1e-5.
    ///
    /// # Errors
    /// The modulation does not have the chunks or the rows; memory runs out.
    fn modulated_norm<D: ConstDim, M: ConstDim>(
        &self,
        x: &Self::Act<(usize, D)>,
        weight: &Self::Param<(D,)>,
        modulation: &Self::Act<(usize, M)>,
        shift: usize,
        scale: usize,
        rows: TokenRows<'_>,
    ) -> Result<Self::Act<(usize, D)>>;
}

/// The reference, of dfdx operations.
impl<E: Number, Dev: Device<E>> ModulatedNorm for Composite<E, Dev> {
    fn modulated_norm<D: ConstDim, M: ConstDim>(
        &self,
        x: &Self::Act<(usize, D)>,
        weight: &Self::Param<(D,)>,
        modulation: &Self::Act<(usize, M)>,
        shift: usize,
        scale: usize,
        rows: TokenRows<'_>,
    ) -> Result<Self::Act<(usize, D)>> {
        let (x, modulation) = (Self::matrix(x), Self::matrix(modulation));
        let weight: Tensor<(usize,), E, Dev> = self.take(weight)?.realize();
        let shape = *x.shape();
        let shift = self.chunk_rows(rows, shape.0, &modulation, D::SIZE, shift)?;
        let scale = self.chunk_rows(rows, shape.0, &modulation, D::SIZE, scale)?;
        let y = self.run(x, |x| {
            let normal = x.try_normalize::<Axis<1>>(EPSILON)?;
            let weighted = normal.try_mul(weight.try_broadcast_like::<_, Axis<0>>(&shape)?)?;
            let scale = chunk(&modulation, shape.1, scale)?.try_add(E::of(1.0))?;
            weighted
                .try_mul(scale)?
                .try_add(chunk(&modulation, shape.1, shift)?)
        });
        Self::typed(y?)
    }
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::ModulatedNorm as _;
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, assert_close, compare, descend, exact, gradient, look_up, same_on_any_threads, table,
        weight,
    };
    use crate::kernels::{Backend, Tensors as _, TokenRows};

    struct Norm {
        rows: usize,
        modulation_rows: usize,
        /// Every how many token rows one is held.
        every: usize,
    }

    impl Case for Norm {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let x = table::<B, 150>(backend, 2.0, 1)?;
            let w = weight::<B, (Const<150>,)>(backend, 1.0, 2)?;
            let modulation = table::<B, 450>(backend, 0.5, 3)?;
            let length = (self.rows / self.modulation_rows).max(1);
            let listed: Vec<u32> = (0..self.rows as u32).step_by(self.every).collect();
            let rows = TokenRows {
                length,
                listed: (self.every > 1).then_some(&listed),
            };
            let y = backend.modulated_norm(
                &look_up(backend, &x, listed.len())?,
                &w,
                &look_up(backend, &modulation, self.modulation_rows)?,
                2,
                1,
                rows,
            )?;
            let values = backend.values(&y)?;
            let g = descend(backend, &y)?;
            Ok(vec![
                ("y", values),
                ("dx", gradient(backend, &x, &g)?),
                ("dw", gradient(backend, &w, &g)?),
                ("dmodulation", gradient(backend, &modulation, &g)?),
            ])
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        for (rows, modulation_rows, every) in [
            (1, 1, 1),
            (60, 1, 1),
            (60, 1, 7),
            (60, 4, 1),
            (60, 4, 20),
            (240, 24, 3),
            (240, 24, 1),
            (33, 33, 1),
        ] {
            let case = Norm {
                rows,
                modulation_rows,
                every,
            };
            compare(&case, 1e-5); // two means over 150, sums over up to 240 rows, in f32
            same_on_any_threads(&case);
        }
    }

    #[test]
    fn reference_normalizes_then_scales_and_shifts_by_the_rows_modulation() {
        let backend = exact();
        let x = backend
            .input((4, Const::<2>), &[1., 3., -2., 2., 0., 10., 7., 7.])
            .unwrap();
        let weight = backend.param::<(Const<2>,)>(&[1., 2.]).unwrap();
        // Two modulation rows of three chunks; chunk 2 shifts, chunk 0 scales.
        let modulation = [
            0.5, 1.0, 9., 9., 10., 20., /* row 1 */ -1.0, 0.0, 9., 9., 30., 40.,
        ];
        let modulation = backend.input((2, Const::<6>), &modulation).unwrap();
        let y = backend
            .modulated_norm(&x, &weight, &modulation, 2, 0, TokenRows::all(2))
            .unwrap();
        // (±a / √(a² + ε)) with a half the difference: token rows 0 and 1 use modulation row 0, 2 and 3 row 1.
        let n = |a: f64| a / (a * a + 1e-5).sqrt();
        assert_close(
            &backend.wide_values(&y),
            &[
                -n(1.) * 1.5 + 10.,
                n(1.) * 2. * 2. + 20.,
                -n(2.) * 1.5 + 10.,
                n(2.) * 2. * 2. + 20.,
                30.,
                n(5.) * 2. + 40.,
                30.,
                40.,
            ],
        );
    }
}
