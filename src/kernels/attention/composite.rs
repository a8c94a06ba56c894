//! Attention as plain dfdx operations, differentiated by dfdx. The scores of all pairs are computed, and those of pairs that
//! do not attend are made too small to count.

use dfdx::prelude::{
    Axes3, Axis, BroadcastTo as _, ConstDim, Device, GatherTo as _, HasShape as _, OwnedTape, PermuteTo as _,
    PutTape as _, ReshapeTo as _, SplitTape as _, TryAdd as _, TryMatMul as _, TryMul as _, TrySub as _,
};

use super::{Attention, Pattern, ROTARY_BASE};
use crate::error::{Error, Result};
use crate::kernels::TokenRows;
use crate::kernels::composite::{Composite, EXCLUDED, Matrix, Number, Traced, TracedMatrix};

/// Whether the query at position `l` attends to the key at position `key`: a pattern's definition, pair by pair.
fn attends(pattern: Pattern, l: usize, key: usize) -> bool {
    match pattern {
        Pattern::Full => true,
        Pattern::Causal => key <= l,
        Pattern::BlockCausal { block } => key / block <= l / block,
    }
}

impl<E: Number, Dev: Device<E>> Attention for Composite<E, Dev> {
    fn attention<D: ConstDim, D2: ConstDim>(
        &self,
        q: &Self::Act<(usize, D)>,
        kv: &Self::Act<(usize, D2)>,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Self::Act<(usize, D)>> {
        Self::typed(self.attention_rows(Self::matrix(q), &Self::matrix(kv), heads, rows, pattern)?)
    }
}

impl<E: Number, Dev: Device<E>> Composite<E, Dev> {
    /// y (n, D) of the queries of `rows`.
    pub(super) fn attention_rows(
        &self,
        q: Matrix<E, Dev>,
        kv: &Matrix<E, Dev>,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Matrix<E, Dev>> {
        pattern.check()?;
        let Some(listed) = rows.listed else {
            return self.attention_matrix(q, kv, rows.length, heads, pattern);
        };
        // Token rows that are not listed take a query that is: what it finds is not looked at.
        let mut query_of = vec![0; kv.shape().0];
        for (i, &at) in listed.iter().enumerate() {
            query_of[at as usize] = i;
        }
        let q = self.gather_matrix(q, query_of.into_iter())?;
        let y = self.attention_matrix(q, kv, rows.length, heads, pattern)?;
        self.gather_matrix(y, listed.iter().map(|&at| at as usize))
    }

    /// Attention of as many queries as keys.
    fn attention_matrix(
        &self,
        q: Matrix<E, Dev>,
        kv: &Matrix<E, Dev>,
        length: usize,
        heads: usize,
        pattern: Pattern,
    ) -> Result<Matrix<E, Dev>> {
        let (rows, columns) = *q.shape();
        let (width, half) = (columns / heads, columns / 2 / heads);
        if !rows.is_multiple_of(length) || half * 2 * heads != columns || *kv.shape() != (rows, 2 * columns) {
            return Err(Error::internal(format!(
                "attention over rows of {length} with {heads} heads on {rows}x{columns} and {:?}",
                kv.shape()
            )));
        }
        let batch = rows / length;
        let sequences = batch * heads;
        // Row of (b, h, l) and part p of `parts` in the matrix (R · parts · H, width); its halves lie at twice that, and
        // one further, in the matrix (R · parts · H · 2, width / 2).
        let places = |parts: usize, part: usize| {
            (0..batch).flat_map(move |b| {
                (0..heads).flat_map(move |h| {
                    (0..length).map(move |l| ((b * length + l) * parts + part) * heads + h)
                })
            })
        };
        let halves =
            |parts, part, half| self.indices(places(parts, part).map(|place| 2 * place + half).collect());
        let (q_first, q_second) = (halves(1, 0, 0)?, halves(1, 0, 1)?);
        let (k_first, k_second) = (halves(2, 0, 0)?, halves(2, 0, 1)?);
        let values = self.indices(places(2, 1).collect())?;
        // Back from (b, h, l) to (b, l, h).
        let back = self.indices(
            (0..batch)
                .flat_map(|b| {
                    (0..length).flat_map(move |l| (0..heads).map(move |h| (b * heads + h) * length + l))
                })
                .collect(),
        )?;
        let angle = |l: usize, j: usize| l as f64 * ROTARY_BASE.powf(-(2.0 * j as f64) / width as f64);
        let angles = || (0..length).flat_map(|l| (0..half).map(move |j| angle(l, j)));
        let cosine = self.tensor((length, half), angles().map(f64::cos))?;
        let sine = self.tensor((length, half), angles().map(f64::sin))?;
        let unseen = match pattern {
            Pattern::Full => None,
            Pattern::Causal | Pattern::BlockCausal { .. } => {
                let pairs = (0..length).flat_map(|l| (0..length).map(move |key| (l, key)));
                let excluded = pairs.map(|(l, key)| if attends(pattern, l, key) { 0.0 } else { EXCLUDED });
                Some(self.tensor((length, length), excluded)?)
            }
        };
        let scale = E::of(1.0 / (width as f64).sqrt());
        self.run(q, |q| {
            let shape = (sequences, length, half);
            let pick = |x: TracedMatrix<E, Dev>, index| {
                let (rows, columns) = *x.shape();
                x.try_reshape_like(&(rows * columns / half, half))?
                    .try_gather::<(usize, usize), _>(index)?
                    .try_reshape_like(&shape)
            };
            let rotate = |a: Traced<(usize, usize, usize), E, Dev>, b: Traced<_, E, Dev>| {
                let cosine = cosine.clone().try_broadcast_like::<_, Axis<0>>(&shape)?;
                let sine = sine.clone().try_broadcast_like::<_, Axis<0>>(&shape)?;
                let (a_again, b_again) = (a.retaped::<OwnedTape<E, Dev>>(), b.retaped::<OwnedTape<E, Dev>>());
                let first = a.try_mul(cosine.clone())?.try_sub(b.try_mul(sine.clone())?)?;
                let second = b_again.try_mul(cosine)?.try_add(a_again.try_mul(sine)?)?;
                Ok::<_, Dev::Err>((first, second))
            };
            let again = || q.retaped::<OwnedTape<E, Dev>>();
            let keys = || kv.retaped::<OwnedTape<E, Dev>>();
            let turned = rotate(pick(again(), q_first)?, pick(again(), q_second)?)?;
            let k = rotate(pick(keys(), k_first)?, pick(keys(), k_second)?)?;
            let v = keys()
                .try_reshape_like(&(rows * 2 * heads, width))?
                .try_gather::<(usize, usize), _>(values)?
                .try_reshape_like(&(sequences, length, width))?;
            let scores = turned
                .0
                .try_matmul(k.0.try_permute::<_, Axes3<0, 2, 1>>()?)?
                .try_add(turned.1.try_matmul(k.1.try_permute::<_, Axes3<0, 2, 1>>()?)?)?
                .try_mul(scale)?;
            let scores = match unseen {
                None => scores,
                Some(unseen) => {
                    scores.try_add(unseen.try_broadcast_like::<_, Axis<0>>(&(sequences, length, length))?)?
                }
            };
            let (context, tape) = scores
                .try_softmax::<Axis<2>>()?
                .try_matmul(v)?
                .try_reshape_like(&(sequences * length, width))?
                .try_gather::<(usize, usize), _>(back)?
                .try_reshape_like(&(rows, heads * width))?
                .split_tape();
            // The operations above hang on empty tapes of their own; the backend's tape joins them last. A tape runs
            // by the time of its operations, so the order of joining does not matter.
            let (_, backend_tape) = q.split_tape();
            Ok(context.put_tape(dfdx::prelude::Merge::merge(backend_tape, tape)))
        })
    }
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::{Const, Cpu};

    use super::*;
    use crate::kernels::testing::noise;
    use crate::kernels::{Gather as _, Tensors as _};

    /// Attention as loops over scalars, straight from the contract: [q | k | v] in columns, one row of the batch after the
    /// other, and the first key that each position does not attend to.
    fn by_loops(qkv: &[f32], ends: &[usize], width: usize, heads: usize) -> Vec<f64> {
        let (head, length) = (width / heads, ends.len());
        let at = |row: usize, part: usize, h: usize, j: usize| {
            f64::from(qkv[row * 3 * width + part * width + h * head + j])
        };
        let rotated = |row: usize, part: usize, h: usize, j: usize| {
            let pair = j % (head / 2);
            let angle = (row % length) as f64 * 10_000f64.powf(-2.0 * pair as f64 / head as f64);
            let (first, second) = (at(row, part, h, pair), at(row, part, h, pair + head / 2));
            if j < head / 2 {
                first * angle.cos() - second * angle.sin()
            } else {
                second * angle.cos() + first * angle.sin()
            }
        };
        let rows = qkv.len() / 3 / width;
        let mut y = vec![0.0; rows * width];
        for row in 0..rows {
            let start = row / length * length;
            let keys = start..start + ends[row % length];
            for h in 0..heads {
                let score = |other: usize| {
                    let dot: f64 = (0..head)
                        .map(|j| rotated(row, 0, h, j) * rotated(other, 1, h, j))
                        .sum();
                    (dot / (head as f64).sqrt()).exp()
                };
                let total: f64 = keys.clone().map(score).sum();
                for j in 0..head {
                    let terms = keys
                        .clone()
                        .map(|other| score(other) / total * at(other, 2, h, j));
                    y[row * width + h * head + j] = terms.sum();
                }
            }
        }
        y
    }

    #[test]
    fn patterns_match_loops_over_scalars() {
        let backend = Composite::<f64, Cpu>::new(Cpu::default());
        let values = noise(8 * 24, 3);
        let columns = |from: usize, to: usize| -> Vec<f32> {
            let rows = values.chunks(24);
            rows.flat_map(|row| row[from..to].iter().copied()).collect()
        };
        for (pattern, ends) in [
            (Pattern::Full, [4, 4, 4, 4]),
            (Pattern::Causal, [1, 2, 3, 4]),
            (Pattern::BlockCausal { block: 2 }, [2, 2, 4, 4]),
            (Pattern::BlockCausal { block: 3 }, [3, 3, 3, 4]),
        ] {
            let close = |found: &[f64], expected: &[f64]| {
                let mut pairs = found.iter().zip(expected);
                // Both sides are f64 over a few terms of order one.
                found.len() == expected.len() && pairs.all(|(a, b)| (a - b).abs() < 1e-12)
            };
            let q = backend.input((8, Const::<8>), &columns(0, 8)).unwrap();
            let kv = backend.input((8, Const::<16>), &columns(8, 24)).unwrap();
            let expected = by_loops(&values, &ends, 8, 2);
            let y = backend.attention(&q, &kv, 2, TokenRows::all(4), pattern).unwrap();
            assert!(close(&backend.wide_values(&y), &expected), "{pattern:?}");
            // Some queries: what they find among all.
            let q = backend.gather(&q, &[1, 3, 5]).unwrap();
            let rows = TokenRows::listed(4, &[1, 3, 5]);
            let y = backend.attention(&q, &kv, 2, rows, pattern).unwrap();
            let some: Vec<f64> = [1, 3, 5]
                .iter()
                .flat_map(|row| expected[row * 8..][..8].to_vec())
                .collect();
            assert!(close(&backend.wide_values(&y), &some), "{pattern:?}");
        }
    }
}
