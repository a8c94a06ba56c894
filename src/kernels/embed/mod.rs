//! y(R, D) = table(V, D)[tokens].
//!
//! # Gradient
//!
//! dtable[v] += Σ dy[r] over the rows r whose token is v, in order. It is sparse: only rows of the table that occur in
//! `tokens` change.

pub mod cpu;

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use crate::error::Result;
    use crate::kernels::testing::{Case, Results, compare, descend, gradient, same_on_any_threads, weight};
    use crate::kernels::{Backend, Fused};

    struct Embed(usize);

    impl Case for Embed {
        fn run<B: Backend>(&self, backend: &B) -> Result<Results> {
            backend.record(B::Gradients::default());
            let table = weight::<B, (Const<9>, Const<19>)>(backend, 1.0, 1)?;
            let tokens: Vec<u32> = (0..self.0).map(|row| (row * row % 7 + row % 3) as u32).collect();
            let y = backend.embed(&table, &backend.tokens(&tokens)?)?;
            let values = backend.values(&y)?;
            let gradients = descend(backend, &y)?;
            Ok(vec![
                ("y", values),
                ("dtable", gradient(backend, &table, &gradients)?),
            ])
        }
    }

    #[test]
    fn agrees_with_the_composite() {
        for rows in [1, 5, 400] {
            compare(&Embed(rows), 2e-6); // up to a hundred rows added into one
        }
        same_on_any_threads(&Embed(400));
    }

    #[test]
    fn a_token_outside_the_table_is_an_error() {
        let backend = Fused::default();
        let table = weight::<_, (Const<9>, Const<2>)>(&backend, 1.0, 1).unwrap();
        assert!(backend.embed(&table, &[3, 9].into()).is_err());
    }
}
