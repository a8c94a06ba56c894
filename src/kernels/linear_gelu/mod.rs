//! y(R, O) = gelu(u), u = x(R, I) · w(O, I)ᵀ + b(O); the tanh form of gelu.
//!
//! # Gradient
//!
//! u is kept. du = dy · gelu'(u), then as in [`super::linear`]: dx = du · w, dw += duᵀ · x, db += Σ_r du[r].

pub mod cpu;

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use crate::error::Result;
    use crate::kernels::Backend;
    use crate::kernels::testing::{
        Case, Results, compare, descend, gradient, look_up, same_on_any_threads, table, weight,
    };

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
}
