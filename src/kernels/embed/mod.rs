//! y(R, D) = table(V, D)[tokens].
//!
//! # Gradient
//!
//! dtable[v] += Σ dy[r] over the rows r whose token is v, in order. It is sparse: only rows of the table that occur in
//! `tokens` change.

pub(super) mod cpu;
mod cuda;

use dfdx::prelude::{ConstDim, Device, GatherTo as _};

use super::Tensors;
use super::composite::{Composite, Number};
use crate::error::Result;

/// Token rows looked up.
pub trait Embed: Tensors {
    /// y(R, D) = table(V, D)[tokens].
    ///
    /// # Errors
    /// A token is V or more; memory runs out.
    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Self::Param<(V, D)>,
        tokens: &Self::Tokens,
    ) -> Result<Self::Act<(usize, D)>>;
}

/// The reference, of dfdx operations.
impl<E: Number, Dev: Device<E>> Embed for Composite<E, Dev> {
    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Self::Param<(V, D)>,
        tokens: &Self::Tokens,
    ) -> Result<Self::Act<(usize, D)>> {
        let tokens = self.indices(tokens.iter().map(|&token| token as usize).collect())?;
        let table = Self::matrix(&self.take(table)?);
        Self::typed(self.run(table, |table| table.try_gather::<(usize, usize), _>(tokens))?)
    }
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::Embed as _;
    use crate::error::Result;
    use crate::kernels::testing::{
        Case, Results, assert_close, compare, descend, exact, gradient, same_on_any_threads, weight,
    };
    use crate::kernels::{Backend, Fused, Tensors as _};

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
    fn token_outside_the_table_is_an_error() {
        let backend = Fused::default();
        let table = weight::<_, (Const<9>, Const<2>)>(&backend, 1.0, 1).unwrap();
        assert!(backend.embed(&table, &[3, 9].into()).is_err());
    }

    #[test]
    fn reference_looks_rows_up() {
        let backend = exact();
        let table = backend
            .param::<(Const<3>, Const<2>)>(&[1., 2., 3., 4., 5., 6.])
            .unwrap();
        let y = backend.embed(&table, &[2, 0].into()).unwrap();
        assert_close(&backend.wide_values(&y), &[5., 6., 1., 2.]);
    }
}
