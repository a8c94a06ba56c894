//! y(R, N) = x · sigmoid(x).
//!
//! # Gradient
//!
//! With s = sigmoid(x): dy/dx = s + x s (1 − s), recomputed from x.

pub mod cpu;

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::kernels::Backend;
    use crate::kernels::testing::{
        Case, Results, compare, descend, gradient, look_up, same_on_any_threads, table,
    };

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
}
