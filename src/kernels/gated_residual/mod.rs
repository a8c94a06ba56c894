//! y(R, D) = x + gate · dropout(branch). A token row uses its batch row's row of the modulation, or the only row; the
//! gate is one chunk of that row.
//!
//! Dropout multiplies an element by f = 1 / (1 − rate) or 0, as [`crate::kernels::Dropout`] states; the backward pass
//! computes its bits again.
//!
//! # Gradient
//!
//! dx = dy; dbranch = dy · f · gate; dgate = Σ dy · f · branch over the token rows of a modulation row, in order.

mod cpu;
mod cuda;

use dfdx::prelude::{ConstDim, Device, HasShape as _, OwnedTape, PutTape as _, TryAdd as _, TryMul as _};

use super::composite::{Composite, Number, chunk};
use super::{Dropout, Tensors, TokenRows};
use crate::error::Result;

/// Gate, dropout, residual.
pub trait GatedResidual: Tensors {
    /// y = x + gate · dropout(branch). `site` numbers the network's dropouts.
    ///
    /// # Errors
    /// The branch has another number of rows than x; the modulation does not have the chunk or the rows; memory runs out.
    fn gated_residual<D: ConstDim, M: ConstDim>(
        &self,
        x: &Self::Act<(usize, D)>,
        branch: &Self::Act<(usize, D)>,
        modulation: &Self::Act<(usize, M)>,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Self::Act<(usize, D)>>;
}

/// The reference, of dfdx operations.
impl<E: Number, Dev: Device<E>> GatedResidual for Composite<E, Dev> {
    fn gated_residual<D: ConstDim, M: ConstDim>(
        &self,
        x: &Self::Act<(usize, D)>,
        branch: &Self::Act<(usize, D)>,
        modulation: &Self::Act<(usize, M)>,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Self::Act<(usize, D)>> {
        let (x, branch, modulation) = (Self::matrix(x), Self::matrix(branch), Self::matrix(modulation));
        let shape = *x.shape();
        let gate = self.chunk_rows(rows, shape.0, &modulation, D::SIZE, gate)?;
        let kept = match dropout {
            None => None,
            Some((dropout, site)) => {
                let factors = dropout_factors(&dropout, site, rows, shape.0, shape.1);
                Some(self.tensor(shape, factors.into_iter().map(f64::from))?)
            }
        };
        let y = self.run(x, |x| {
            let mut branch = branch.put_tape(OwnedTape::default());
            if let Some(kept) = kept {
                branch = branch.try_mul(kept)?;
            }
            x.try_add(branch.try_mul(chunk(&modulation, shape.1, gate)?)?)
        });
        Self::typed(y?)
    }
}

/// What each element of a (count, width) branch is multiplied with: 0 or 1 / (1 − rate), as [`Dropout`] states.
fn dropout_factors(
    dropout: &Dropout,
    site: u32,
    rows: TokenRows<'_>,
    count: usize,
    width: usize,
) -> Vec<f32> {
    let (threshold, kept) = (dropout.threshold(), 1.0 / (1.0 - dropout.rate));
    let mut factors = Vec::with_capacity(count * width);
    for i in 0..count {
        let (sequence, position) = rows.place(i);
        for column in 0..width {
            let element = (position * width + column) as u32;
            let words = dropout.random.block(
                dropout.step,
                dropout.first_row + sequence as u64,
                (site << 24) | (element / 4),
            );
            factors.push(if words[element as usize % 4] >= threshold {
                kept
            } else {
                0.0
            });
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::{GatedResidual as _, dropout_factors};
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, assert_close, compare, descend, exact, gradient, look_up, noise, same_on_any_threads,
        table,
    };
    use crate::kernels::{Backend, Dropout, Tensors as _, TokenRows};
    use crate::rng::{Random, Stream};

    struct Residual {
        rows: usize,
        modulation_rows: usize,
        length: usize,
        rate: Option<f32>,
        /// Every how many token rows one is held.
        every: usize,
    }

    fn dropout(rate: f32) -> Dropout {
        Dropout {
            rate,
            random: Random::new(5, Stream::Dropout),
            step: 1 << 33,
            first_row: (1 << 32) - 2,
        }
    }

    fn run<B: Backend, const D: usize, const M: usize>(case: &Residual, backend: &B) -> Result<Results> {
        backend.record(B::Gradients::default());
        let x = table::<B, D>(backend, 1.0, 1)?;
        let branch = table::<B, D>(backend, 1.0, 2)?;
        let modulation = table::<B, M>(backend, 1.0, 3)?;
        let listed: Vec<u32> = (0..case.rows as u32).step_by(case.every).collect();
        let rows = TokenRows {
            length: case.length,
            listed: (case.every > 1).then_some(&listed),
        };
        let y = backend.gated_residual(
            &look_up(backend, &x, listed.len())?,
            &look_up(backend, &branch, listed.len())?,
            &look_up(backend, &modulation, case.modulation_rows)?,
            1,
            case.rate.map(|rate| (dropout(rate), 3)),
            rows,
        )?;
        let values = backend.values(&y)?;
        let g = descend(backend, &y)?;
        Ok(vec![
            ("y", values),
            ("dx", gradient(backend, &x, &g)?),
            ("dbranch", gradient(backend, &branch, &g)?),
            ("dmodulation", gradient(backend, &modulation, &g)?),
        ])
    }

    impl Case for Residual {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            // A width of whole Philox blocks and an odd one.
            let mut results = run::<B, 136, 408>(self, backend)?;
            results.extend(run::<B, 71, 213>(self, backend)?);
            Ok(results)
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        for (rows, modulation_rows, length, rate, every) in [
            (6, 1, 3, None, 1),
            (60, 1, 15, Some(0.1), 1),
            (60, 1, 15, Some(0.1), 4),
            (60, 4, 15, Some(0.5), 1),
            (60, 4, 15, Some(0.5), 17),
            (240, 24, 10, Some(0.1), 1),
            (240, 24, 10, Some(0.1), 3),
        ] {
            let case = Residual {
                rows,
                modulation_rows,
                length,
                rate,
                every,
            };
            compare(&case, 5e-6); // sums over up to 240 rows in f32
            same_on_any_threads(&case);
        }
    }

    #[test]
    fn dropout_mask_is_that_of_the_contract() {
        let dropout = dropout(0.3);
        let factors = dropout_factors(&dropout, 9, TokenRows::all(2), 4, 71);
        for row in 0..4 {
            let mut factor = vec![0.0; 71];
            super::cpu::Mask::new(&dropout, 9).factors(row / 2, row % 2 * 71, &mut factor);
            assert_eq!(factor, factors[row * 71..][..71]);
            // Any part of a row, too.
            super::cpu::Mask::new(&dropout, 9).factors(row / 2, row % 2 * 71 + 5, &mut factor[..66]);
            assert_eq!(factor[..66], factors[row * 71 + 5..][..66]);
        }
    }

    #[test]
    fn reference_drops_by_the_global_row() {
        let backend = exact();
        let dropout = Dropout {
            rate: 0.5,
            random: Random::new(1, Stream::Dropout),
            step: 3,
            first_row: 10,
        };
        let (x, branch) = (noise(6 * 4, 1), noise(6 * 4, 2));
        let modulation = [9., 9., 9., 9., 2., 3., 4., 5.];
        let modulation = backend.input((1, Const::<8>), &modulation).unwrap();
        let residual = |rows: std::ops::Range<usize>, first_row: u64| {
            let range = rows.start * 4..rows.end * 4;
            let x = backend
                .input((rows.len(), Const::<4>), &x[range.clone()])
                .unwrap();
            let branch = backend.input((rows.len(), Const::<4>), &branch[range]).unwrap();
            let dropout = Dropout { first_row, ..dropout };
            let y = backend
                .gated_residual(&x, &branch, &modulation, 1, Some((dropout, 7)), TokenRows::all(2))
                .unwrap();
            backend.wide_values(&y)
        };
        let whole = residual(0..6, 10);
        let factors = dropout_factors(&dropout, 7, TokenRows::all(2), 6, 4);
        assert!(factors.contains(&0.0) && factors.contains(&2.0));
        let expected: Vec<f64> = (0..24)
            .map(|i| f64::from(x[i]) + f64::from(branch[i]) * f64::from(factors[i]) * [2., 3., 4., 5.][i % 4])
            .collect();
        assert_close(&whole, &expected);
        // The last two rows of the batch alone: the same masks.
        assert_close(&residual(2..6, 11), &whole[8..]);
    }
}
