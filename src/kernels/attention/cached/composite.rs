//! The reference: kept as numbers, and put beside the queries as the rows of an attention without a cache.

use dfdx::prelude::{ConstDim, Device, HasShape as _};

use super::{CachedAttention, Dimensions};
use crate::error::{Error, Result};
use crate::kernels::composite::{Composite, Number};
use crate::kernels::{Pattern, TokenRows};

/// Keys and values of some rows as they were put there: (B · L, 2D), on the host.
pub struct PlainCache {
    dimensions: Dimensions,
    values: Vec<f64>,
}

impl<E: Number, Dev: Device<E>> CachedAttention for Composite<E, Dev> {
    type Cache = PlainCache;

    fn cache(&self, rows: usize, length: usize, heads: usize, width: usize) -> Result<PlainCache> {
        let dimensions = Dimensions {
            rows,
            length,
            heads,
            width,
        }
        .check()?;
        Ok(PlainCache {
            dimensions,
            values: vec![0.0; rows * length * 2 * width],
        })
    }

    fn keep<D2: ConstDim>(
        &self,
        kv: &Self::Act<(usize, D2)>,
        places: TokenRows<'_>,
        cache: &mut PlainCache,
    ) -> Result<()> {
        let dimensions = cache.dimensions;
        dimensions.check_places(places, kv.shape().0, (D2::SIZE, 2))?;
        for (i, kv) in self.wide_values(kv).chunks_exact(D2::SIZE).enumerate() {
            cache.values[places.token_row(i) * D2::SIZE..][..D2::SIZE].copy_from_slice(kv);
        }
        Ok(())
    }

    fn cached_attention<D: ConstDim>(
        &self,
        q: &Self::Act<(usize, D)>,
        places: TokenRows<'_>,
        cache: &PlainCache,
    ) -> Result<Self::Act<(usize, D)>> {
        if self.is_recording() {
            return Err(Error::internal("attention over kept keys has no gradient"));
        }
        let Dimensions {
            length, heads, width, ..
        } = cache.dimensions;
        let queries = q.shape().0;
        cache.dimensions.check_places(places, queries, (D::SIZE, 1))?;
        // The rows that have queries, one below the other, and the places of the queries among them.
        let (mut rows, mut listed) = (Vec::new(), Vec::with_capacity(queries));
        for (row, position) in (0..queries).map(|i| places.place(i)) {
            if rows.last() != Some(&row) {
                rows.push(row);
            }
            listed.push(((rows.len() - 1) * length + position) as u32);
        }
        let size = length * 2 * width;
        let kv = rows.iter().flat_map(|row| &cache.values[row * size..][..size]);
        let kv = self.tensor((rows.len() * length, 2 * width), kv.copied())?;
        let rows = TokenRows::listed(length, &listed);
        Self::typed(self.attention_rows(Self::matrix(q), &kv, heads, rows, Pattern::Causal)?)
    }
}
