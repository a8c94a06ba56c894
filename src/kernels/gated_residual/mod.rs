//! y(R, D) = x + gate · dropout(branch). A token row uses its batch row's row of the modulation, or the only row; the
//! gate is one chunk of that row.
//!
//! Dropout multiplies an element by f = 1 / (1 − rate) or 0, as [`crate::kernels::Dropout`] states; the backward pass
//! computes its bits again.
//!
//! # Gradient
//!
//! dx = dy; dbranch = dy · f · gate; dgate = Σ dy · f · branch over the token rows of a modulation row, in order.

pub mod cpu;

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, compare, descend, gradient, look_up, same_on_any_threads, table,
    };
    use crate::kernels::{Backend, Dropout, TokenRows, composite};
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
    fn the_mask_is_that_of_the_contract() {
        let dropout = dropout(0.3);
        let factors = composite::dropout_factors(&dropout, 9, TokenRows::all(2), 4, 71);
        for row in 0..4 {
            let mut factor = vec![0.0; 71];
            super::cpu::Mask::new(&dropout, 9).factors(row / 2, row % 2 * 71, &mut factor);
            assert_eq!(factor, factors[row * 71..][..71]);
            // Any part of a row, too.
            super::cpu::Mask::new(&dropout, 9).factors(row / 2, row % 2 * 71 + 5, &mut factor[..66]);
            assert_eq!(factor[..66], factors[row * 71 + 5..][..66]);
        }
    }
}
