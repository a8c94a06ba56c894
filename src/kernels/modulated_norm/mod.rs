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

pub mod cpu;
mod cuda;

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, compare, descend, gradient, look_up, same_on_any_threads, table, weight,
    };
    use crate::kernels::{Backend, TokenRows};

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
}
