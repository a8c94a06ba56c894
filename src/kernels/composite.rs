//! The composite backend: every operation as plain public dfdx operations, differentiated by dfdx itself.
//!
//! It is the reference that every fused operation is held against (autodiff decides who is right), generic over
//! the number (`f32`, `f64`) and over dfdx's device: `Cpu` in tests, `Cuda` under the cargo feature `dfdx-cuda`.
//! Inside, every tensor has run-time dimensions (`realize` changes the type and nothing else), so that the compiled
//! shapes do not multiply its code.
//!
//! DIFFERENCE to the contract's fold over rows: gradients of a micro-batch are what dfdx's kernels sum, in their
//! order; micro-batches therefore accumulate to the same gradient up to rounding, not bit by bit.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use dfdx::prelude::{
    Axes2, Axis, Backward as _, BroadcastTo as _, ConstDim, ConstShape, Device, Dtype, GatherTo as _,
    Gradients, HasShape as _, OwnedTape, PermuteTo as _, PutTape as _, RealizeTo as _, ReshapeTo as _, Shape,
    SplitTape as _, Tensor, TryAdd as _, TryMatMul as _, TryMul as _,
};

use super::checks::check_count;
use super::flat::{self, Weights};
use super::{Backend, Dropout, HostBackend, Pattern, ReadoutRequest, Tensors, TokenRows};
use crate::error::{Error, Result};

/// Added to the variance under LayerNorm's root (PyTorch's default, which the authors keep).
const NORM_EPSILON: f64 = 1e-5;

/// Added to the logit of a token outside the support, or to the score of a key that is not attended to: e^x is exactly
/// zero in f32 and f64, yet no NaN can follow from it as from −∞.
pub(super) const EXCLUDED: f64 = -1e30;

/// The numbers that the composite backend computes with.
pub trait Number: Dtype {
    /// The nearest number of this type.
    fn of(value: f64) -> Self;
    /// Its value, exactly.
    fn value(self) -> f64;
}

impl Number for f32 {
    fn of(value: f64) -> Self {
        value as Self
    }
    fn value(self) -> f64 {
        f64::from(self)
    }
}

impl Number for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn value(self) -> f64 {
        self
    }
}

pub(super) type Traced<S, E, Dev> = Tensor<S, E, Dev, OwnedTape<E, Dev>>;
pub(super) type Matrix<E, Dev> = Tensor<(usize, usize), E, Dev>;
pub(super) type TracedMatrix<E, Dev> = Traced<(usize, usize), E, Dev>;

/// Copies the gradient of one weight out of dfdx's gradients.
type Collect<E, Dev> = Box<dyn FnOnce(&mut Gradients<E, Dev>) -> Result<Vec<E>>>;

/// Plain dfdx operations on the device `Dev` with numbers `E`.
pub struct Composite<E: Number, Dev: Device<E>> {
    device: Dev,
    recording: RefCell<Option<Recording<E, Dev>>>,
    weights: Weights,
    /// Counts the times that all weights were lent: tensors made before are out of date.
    version: Cell<u64>,
}

struct Recording<E: Number, Dev: Device<E>> {
    /// Taken while an operation runs: an operation that fails does not bring it back.
    tape: Option<OwnedTape<E, Dev>>,
    /// What the caller handed in.
    gradients: Accumulated<E>,
    /// The weights that took part.
    used: BTreeMap<usize, Collect<E, Dev>>,
}

/// A weight: its place among the backend's weights, and its values as a tensor, copied when they have changed.
pub struct Weight<S: Shape, E: Number, Dev: Device<E>> {
    flat: flat::Weight<S>,
    tensor: RefCell<(u64, Tensor<S, E, Dev>)>,
}

/// The gradients of the weights on the host, laid out as the weights; empty before the first.
#[derive(Clone, Debug)]
pub struct Accumulated<E>(Vec<E>);

impl<E: Number> Accumulated<E> {
    /// All of them in the backend's own precision.
    #[must_use]
    pub fn wide(&self) -> Vec<f64> {
        self.0.iter().map(|&gradient| gradient.value()).collect()
    }
}

impl<E> Default for Accumulated<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

fn device_failed(error: impl fmt::Display) -> Error {
    Error::environment(format!("compute on the device: {error}"))
}

fn mismatch(what: &str, expected: usize, found: usize) -> Error {
    Error::internal(format!("{what}: expected {expected} elements, found {found}"))
}

impl<E: Number, Dev: Device<E>> Composite<E, Dev> {
    /// The backend on a dfdx device.
    #[must_use]
    pub fn new(device: Dev) -> Self {
        Self {
            device,
            recording: RefCell::new(None),
            weights: Weights::default(),
            version: Cell::new(0),
        }
    }

    /// An activation's values in the backend's own precision, row-major.
    #[must_use]
    pub fn wide_values<S: Shape>(&self, x: &Tensor<S, E, Dev>) -> Vec<f64> {
        x.as_vec().into_iter().map(Number::value).collect()
    }

    /// A weight's accumulated gradient in the backend's own precision, row-major; `None` when it has none yet.
    #[must_use]
    pub fn wide_gradient<S: ConstShape>(
        &self,
        weight: &Weight<S, E, Dev>,
        gradients: &Accumulated<E>,
    ) -> Option<Vec<f64>> {
        let gradient = gradients.0.get(weight.flat.range())?;
        Some(gradient.iter().map(|&g| g.value()).collect())
    }

    /// A tensor of these numbers, rounded to the backend's.
    pub(super) fn tensor<S: Shape>(
        &self,
        shape: S,
        values: impl Iterator<Item = f64>,
    ) -> Result<Tensor<S, E, Dev>> {
        let values: Vec<E> = values.map(E::of).collect();
        if values.len() != shape.num_elements() {
            return Err(mismatch(
                &format!("tensor {shape:?}"),
                shape.num_elements(),
                values.len(),
            ));
        }
        self.device
            .try_tensor_from_vec(values, shape)
            .map_err(device_failed)
    }

    /// Indices on the device.
    pub(super) fn indices(&self, indices: Vec<usize>) -> Result<Tensor<(usize,), usize, Dev>> {
        let count = indices.len();
        self.device
            .try_tensor_from_vec(indices, (count,))
            .map_err(device_failed)
    }

    /// Runs dfdx operations on `x` with the backend's tape. Without a recording the tape is a fresh one and dropped:
    /// what the operation saved lives no longer than the operation.
    pub(super) fn run<S: Shape, O: Shape>(
        &self,
        x: Tensor<S, E, Dev>,
        operation: impl FnOnce(Traced<S, E, Dev>) -> Result<Traced<O, E, Dev>, Dev::Err>,
    ) -> Result<Tensor<O, E, Dev>> {
        let tape = match &mut *self.recording.borrow_mut() {
            None => OwnedTape::default(),
            Some(recording) => recording.tape.take().ok_or_else(|| {
                Error::internal("an earlier operation of this recording failed: nothing can follow it")
            })?,
        };
        let (y, tape) = operation(x.put_tape(tape)).map_err(device_failed)?.split_tape();
        if let Some(recording) = &mut *self.recording.borrow_mut() {
            recording.tape = Some(tape);
        }
        Ok(y)
    }

    /// The tensor of a weight that takes part in an operation.
    fn take<S: ConstShape>(&self, weight: &Weight<S, E, Dev>) -> Result<Tensor<S, E, Dev>> {
        let mut cached = weight.tensor.borrow_mut();
        if cached.0 != self.version.get() {
            let values = weight.flat.values();
            let tensor = self.tensor(S::default(), values.iter().map(|&value| f64::from(value)))?;
            *cached = (self.version.get(), tensor);
        }
        let tensor = &cached.1;
        if let Some(recording) = &mut *self.recording.borrow_mut() {
            recording
                .used
                .entry(weight.flat.range().start)
                .or_insert_with(|| {
                    let tensor = tensor.clone();
                    Box::new(move |gradients| {
                        // Zeros where the operation had nothing to compute.
                        gradients.try_alloc_for(&tensor).map_err(device_failed)?;
                        Ok(gradients.get(&tensor).as_vec())
                    })
                });
        }
        Ok(tensor.clone())
    }

    fn matrix<A: dfdx::prelude::Dim, B: dfdx::prelude::Dim>(x: &Tensor<(A, B), E, Dev>) -> Matrix<E, Dev> {
        x.clone().realize()
    }

    fn typed<D: ConstDim>(x: Matrix<E, Dev>) -> Result<Tensor<(usize, D), E, Dev>> {
        x.try_realize()
            .map_err(|x| Error::internal(format!("shape {:?} where {} columns belong", x.shape(), D::SIZE)))
    }

    fn linear_matrix(
        &self,
        x: Matrix<E, Dev>,
        w: Matrix<E, Dev>,
        b: Option<Tensor<(usize,), E, Dev>>,
        gelu: bool,
    ) -> Result<Matrix<E, Dev>> {
        self.run(x, |x| {
            let mut y = linear(x, w, b)?;
            if gelu {
                y = y.try_fast_gelu()?;
            }
            Ok(y)
        })
    }

    /// Which row of the chunks' matrix each of `count` rows uses: the modulation (m, M) seen as
    /// (m · M/D, D) has chunk k of row i at row i · M/D + k.
    fn chunk_rows(
        &self,
        rows: TokenRows<'_>,
        count: usize,
        modulation: &Matrix<E, Dev>,
        width: usize,
        chunk: usize,
    ) -> Result<Tensor<(usize,), usize, Dev>> {
        let (shared, columns) = *modulation.shape();
        let chunks = columns / width;
        let row = |i: usize| if shared == 1 { 0 } else { rows.place(i).0 };
        if !columns.is_multiple_of(width) || chunk >= chunks || (0..count).any(|i| row(i) >= shared) {
            return Err(Error::internal(format!(
                "modulation {shared}x{columns} for {count} rows of width {width}, chunk {chunk}"
            )));
        }
        self.indices((0..count).map(|i| row(i) * chunks + chunk).collect())
    }

    pub(super) fn gather_matrix(
        &self,
        x: Matrix<E, Dev>,
        rows: impl Iterator<Item = usize>,
    ) -> Result<Matrix<E, Dev>> {
        let rows = self.indices(rows.collect())?;
        self.run(x, |x| x.try_gather::<(usize, usize), _>(rows))
    }
}

/// x · wᵀ + b.
pub(super) fn linear<E: Number, Dev: Device<E>>(
    x: TracedMatrix<E, Dev>,
    w: Matrix<E, Dev>,
    b: Option<Tensor<(usize,), E, Dev>>,
) -> Result<TracedMatrix<E, Dev>, Dev::Err> {
    let w = w.try_permute::<(usize, usize), Axes2<1, 0>>()?;
    let y = x.try_matmul(w)?;
    match b {
        None => Ok(y),
        Some(b) => {
            let shape = *y.shape();
            y.try_add(b.try_broadcast_like::<_, Axis<0>>(&shape)?)
        }
    }
}

/// The chunk of the modulation that each row uses; see [`Composite::chunk_rows`].
fn chunk<E: Number, Dev: Device<E>>(
    modulation: &Matrix<E, Dev>,
    width: usize,
    rows: Tensor<(usize,), usize, Dev>,
) -> Result<TracedMatrix<E, Dev>, Dev::Err> {
    let (shared, columns) = *modulation.shape();
    modulation
        .retaped::<OwnedTape<E, Dev>>()
        .try_reshape_like(&(shared * columns / width, width))?
        .try_gather(rows)
}

impl<E: Number, Dev: Device<E>> Tensors for Composite<E, Dev> {
    type Param<S: ConstShape> = Weight<S, E, Dev>;
    type Act<S: Shape> = Tensor<S, E, Dev>;
    type Tokens = Rc<[u32]>;
    type Gradients = Accumulated<E>;

    fn param<S: ConstShape>(&self, values: &[f32]) -> Result<Self::Param<S>> {
        let tensor = self.tensor(S::default(), values.iter().map(|&value| f64::from(value)))?;
        Ok(Weight {
            flat: self.weights.push(values)?,
            tensor: RefCell::new((self.version.get(), tensor)),
        })
    }

    fn read<S: ConstShape>(&self, param: &Self::Param<S>, into: &mut [f32]) -> Result<()> {
        check_count(S::NUMEL, into.len())?;
        into.copy_from_slice(&param.flat.values());
        Ok(())
    }

    fn gradient<S: ConstShape>(
        &self,
        param: &Self::Param<S>,
        gradients: &Self::Gradients,
        into: &mut [f32],
    ) -> Result<()> {
        check_count(S::NUMEL, into.len())?;
        into.fill(0.0);
        let gradient = gradients.0.get(param.flat.range());
        for (into, value) in into.iter_mut().zip(gradient.into_iter().flatten()) {
            *into = value.value() as f32;
        }
        Ok(())
    }

    fn record(&self, gradients: Self::Gradients) {
        *self.recording.borrow_mut() = Some(Recording {
            tape: Some(OwnedTape::default()),
            gradients,
            used: BTreeMap::new(),
        });
    }

    fn backward(&self, loss: Self::Act<()>) -> Result<Self::Gradients> {
        let recording = self.recording.borrow_mut().take();
        let Some(Recording {
            tape: Some(tape),
            mut gradients,
            used,
        }) = recording
        else {
            return Err(Error::internal(
                "nothing was recorded, or an operation of the recording failed",
            ));
        };
        let mut from_tape = loss.put_tape(tape).try_backward().map_err(device_failed)?;
        gradients.0.resize(self.weights.len(), E::of(0.0));
        for (start, collect) in used {
            let gradient = collect(&mut from_tape)?;
            for (sum, gradient) in gradients.0[start..].iter_mut().zip(gradient) {
                *sum += gradient;
            }
        }
        Ok(gradients)
    }

    fn input<S: Shape>(&self, shape: S, values: &[f32]) -> Result<Self::Act<S>> {
        self.tensor(shape, values.iter().map(|&value| f64::from(value)))
    }

    fn values<S: Shape>(&self, x: &Self::Act<S>) -> Result<Vec<f32>> {
        Ok(x.as_vec().into_iter().map(|value| value.value() as f32).collect())
    }

    fn tokens(&self, tokens: &[u32]) -> Result<Rc<[u32]>> {
        Ok(tokens.into())
    }
}

impl<E: Number, Dev: Device<E>> Backend for Composite<E, Dev> {
    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Self::Param<(V, D)>,
        tokens: &Rc<[u32]>,
    ) -> Result<Self::Act<(usize, D)>> {
        let tokens = self.indices(tokens.iter().map(|&token| token as usize).collect())?;
        let table = Self::matrix(&self.take(table)?);
        Self::typed(self.run(table, |table| table.try_gather::<(usize, usize), _>(tokens))?)
    }

    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: Option<&Self::Param<(O,)>>,
    ) -> Result<Self::Act<(usize, O)>> {
        let w = Self::matrix(&self.take(w)?);
        let b = b.map(|b| Ok::<_, Error>(self.take(b)?.realize())).transpose()?;
        Self::typed(self.linear_matrix(Self::matrix(x), w, b, false)?)
    }

    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        first: usize,
    ) -> Result<Self::Act<(usize, P)>> {
        let rows = self.indices((first..first + P::SIZE).collect())?;
        let w = Self::matrix(&self.take(w)?);
        let w = w.put_tape(OwnedTape::default());
        let y = self.run(Self::matrix(x), |x| {
            let w = w
                .try_gather::<(usize, usize), _>(rows)?
                .try_permute::<(usize, usize), Axes2<1, 0>>()?;
            x.try_matmul(w)
        });
        Self::typed(y?)
    }

    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: &Self::Param<(O,)>,
    ) -> Result<Self::Act<(usize, O)>> {
        let (w, b) = (Self::matrix(&self.take(w)?), self.take(b)?.realize());
        Self::typed(self.linear_matrix(Self::matrix(x), w, Some(b), true)?)
    }

    fn silu<N: ConstDim>(&self, x: &Self::Act<(usize, N)>) -> Result<Self::Act<(usize, N)>> {
        let y = self.run(Self::matrix(x), |x| {
            let sigmoid = x.retaped::<OwnedTape<E, Dev>>().try_sigmoid()?;
            x.try_mul(sigmoid)
        });
        Self::typed(y?)
    }

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
            let normal = x.try_normalize::<Axis<1>>(NORM_EPSILON)?;
            let weighted = normal.try_mul(weight.try_broadcast_like::<_, Axis<0>>(&shape)?)?;
            let scale = chunk(&modulation, shape.1, scale)?.try_add(E::of(1.0))?;
            weighted
                .try_mul(scale)?
                .try_add(chunk(&modulation, shape.1, shift)?)
        });
        Self::typed(y?)
    }

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

    fn gather<D: ConstDim>(&self, x: &Self::Act<(usize, D)>, rows: &[u32]) -> Result<Self::Act<(usize, D)>> {
        Self::typed(self.gather_matrix(Self::matrix(x), rows.iter().map(|&row| row as usize))?)
    }

    fn readout<V: ConstDim, D: ConstDim>(
        &self,
        h: &Self::Act<(usize, D)>,
        w: &Self::Param<(V, D)>,
        b: &Self::Param<(V,)>,
        readout: &ReadoutRequest<'_>,
    ) -> Result<(Self::Act<()>, Self::Act<(usize,)>)> {
        let (w, b) = (Self::matrix(&self.take(w)?), self.take(b)?.realize());
        self.readout_matrix(Self::matrix(h), w, b, readout)
    }
}

impl<E: Number, Dev: Device<E>> HostBackend for Composite<E, Dev> {
    fn reserve(&self, count: usize) -> Result<()> {
        self.weights.reserve(count)
    }

    fn with_weights(&self, f: &mut dyn FnMut(&mut [f32])) -> Result<()> {
        self.weights.with(f);
        self.version.set(self.version.get() + 1);
        Ok(())
    }

    fn with_gradients(
        &self,
        gradients: &mut Accumulated<E>,
        f: &mut dyn FnMut(&mut [f32], &mut [f32]),
    ) -> Result<()> {
        gradients.0.resize(self.weights.len(), E::of(0.0));
        let single = |value: &E| value.value() as f32;
        let mut lent: Vec<f32> = gradients.0.iter().map(single).collect();
        self.with_weights(&mut |weights| f(weights, &mut lent))?;
        // Only what changed is taken back: f64 is not rounded to f32 by being looked at.
        for (own, &lent) in gradients.0.iter_mut().zip(&lent) {
            if single(own).to_bits() != lent.to_bits() {
                *own = E::of(f64::from(lent));
            }
        }
        Ok(())
    }
}

/// What each element of a (count, width) branch is multiplied with: 0 or 1 / (1 − rate), as [`Dropout`] states.
#[must_use]
pub fn dropout_factors(
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
    use super::*;
    use crate::kernels::VocabSupport;
    use crate::rng::{Random, Stream};
    use dfdx::prelude::{Const, Cpu};

    type Exact = Composite<f64, Cpu>;

    fn backend() -> Exact {
        Composite::new(Cpu::default())
    }

    /// Numbers without a pattern in [−1, 1].
    fn numbers(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 12.9898 + seed).sin()).collect()
    }

    #[track_caller]
    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            // 1e-12: both sides are f64 over a few dozen terms of order one.
            assert!(
                (found - expected).abs() < 1e-12,
                "element {i}: {found} where {expected} belongs"
            );
        }
    }

    #[test]
    fn embed_gather_linear_and_activations_match_pencil_and_paper() {
        let backend = backend();
        let table = backend
            .param::<(Const<3>, Const<2>)>(&[1., 2., 3., 4., 5., 6.])
            .unwrap();
        let x = backend.embed(&table, &[2, 0].into()).unwrap(); // [[5, 6], [1, 2]]
        assert_close(&backend.wide_values(&x), &[5., 6., 1., 2.]);
        let again = backend.gather(&x, &[1, 1, 0]).unwrap();
        assert_close(&backend.wide_values(&again), &[1., 2., 1., 2., 5., 6.]);
        // w = [[1, 0], [0, −1], [2, 1]], b = [0, 10, −1]: [5, 6] → [5, −6 + 10, 16 − 1].
        let w = backend
            .param::<(Const<3>, Const<2>)>(&[1., 0., 0., -1., 2., 1.])
            .unwrap();
        let b = backend.param::<(Const<3>,)>(&[0., 10., -1.]).unwrap();
        let y = backend.linear(&x, &w, Some(&b)).unwrap();
        assert_close(&backend.wide_values(&y), &[5., 4., 15., 1., 8., 3.]);
        let y = backend.linear(&x, &w, None).unwrap();
        assert_close(&backend.wide_values(&y), &[5., -6., 16., 1., -2., 4.]);
        let gelu = |u: f64| {
            0.5 * u * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (u + 0.044_715 * u.powi(3))).tanh())
        };
        let b = backend.param::<(Const<3>,)>(&[-5., 6.5, -16.25]).unwrap();
        let y = backend.linear_gelu(&x, &w, &b).unwrap();
        assert_close(
            &backend.wide_values(&y),
            &[
                gelu(0.),
                gelu(0.5),
                gelu(-0.25),
                gelu(-4.),
                gelu(4.5),
                gelu(-12.25),
            ],
        );
        let s = backend.silu(&x).unwrap();
        let silu = |u: f64| u / (1.0 + (-u).exp());
        assert_close(
            &backend.wide_values(&s),
            &[silu(5.), silu(6.), silu(1.), silu(2.)],
        );
    }

    #[test]
    fn modulated_norm_normalizes_then_scales_and_shifts_by_the_rows_modulation() {
        let backend = backend();
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

    #[test]
    fn the_gated_residual_drops_by_the_global_row() {
        let backend = backend();
        let dropout = Dropout {
            rate: 0.5,
            random: Random::new(1, Stream::Dropout),
            step: 3,
            first_row: 10,
        };
        let (x, branch) = (numbers(6 * 4, 1.0), numbers(6 * 4, 2.0));
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

    #[test]
    fn cross_entropy_ranges_over_the_support_and_its_gradient_is_softmax_minus_one_hot() {
        let backend = backend();
        let h = backend.input((2, Const::<2>), &[1., -1., 0.5, 2.]).unwrap();
        let weights = [0.3f32, -0.2, 0.1, 0.7, 1.5, -0.4, 0.9, 0.8, 5.0, 5.0];
        let w = backend.param::<(Const<5>, Const<2>)>(&weights).unwrap();
        let b = backend.param::<(Const<5>,)>(&[0.1, 0.2, 0.3, 0.4, 0.5]).unwrap();
        let support = VocabSupport::without_mask(1, 4); // tokens 0, 2, 3
        backend.record(Accumulated::default());
        let readout = ReadoutRequest::cross_entropy(support, &[2, 0], &[2.0, 0.5]);
        let (loss, nll) = backend.readout(&h, &w, &b, &readout).unwrap();
        let mut bias_gradient = [0.0f64; 5];
        let mut expected = Vec::new();
        for (row, h) in [[1.0, -1.0], [0.5, 2.0]].iter().enumerate() {
            let logit = |v: usize| {
                f64::from(weights[2 * v]) * h[0]
                    + f64::from(weights[2 * v + 1]) * h[1]
                    + f64::from([0.1f32, 0.2, 0.3, 0.4, 0.5][v])
            };
            let total: f64 = [0, 2, 3].iter().map(|&v| logit(v).exp()).sum();
            let (target, factor) = ([2, 0][row], [2.0, 0.5][row]);
            expected.push(total.ln() - logit(target));
            for v in [0, 2, 3] {
                let one = if v == target { 1.0 } else { 0.0 };
                bias_gradient[v] += factor * (logit(v).exp() / total - one);
            }
        }
        let nll = backend.values(&nll).unwrap();
        for (found, expected) in nll.iter().zip(&expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-6,
                "{nll:?} {expected:?}"
            ); // handed out as f32
        }
        assert_close(
            &backend.wide_values(&loss),
            &[2.0 * expected[0] + 0.5 * expected[1]],
        );
        let mut gradients = backend.backward(loss).unwrap();
        assert_close(&backend.wide_gradient(&b, &gradients).unwrap(), &bias_gradient);
        // Looking at a gradient does not round it; writing one does write it, and the weight too.
        backend.with_gradients(&mut gradients, &mut |_, _| {}).unwrap();
        assert_close(&backend.wide_gradient(&b, &gradients).unwrap(), &bias_gradient);
        backend
            .with_gradients(&mut gradients, &mut |values, gradient| {
                let own = b.flat.range();
                assert_eq!(values.len(), own.end, "the last weight");
                values[own.end - 1] = 8.0;
                gradient[own].fill(0.25);
            })
            .unwrap();
        assert_close(&backend.wide_gradient(&b, &gradients).unwrap(), &[0.25; 5]);
        let mut read = [0.0; 5];
        backend.read(&b, &mut read).unwrap();
        assert_eq!(read.map(f32::to_bits)[3..], [0.4f32, 8.0].map(f32::to_bits));
        let taken = backend.take(&b).unwrap().as_vec();
        assert_eq!(taken[4], 8.0, "an operation takes the weight as it is now");
    }

    #[test]
    fn micro_batches_accumulate_and_a_failed_operation_ends_the_recording() {
        let backend = backend();
        let w = backend.param::<(Const<3>, Const<2>)>(&numbers(6, 0.1)).unwrap();
        let b = backend.param::<(Const<3>,)>(&numbers(3, 0.2)).unwrap();
        let h = numbers(8, 0.5);
        let support = VocabSupport::without_mask(3, 3);
        let step = |rows: std::ops::Range<usize>, gradients| {
            backend.record(gradients);
            let targets: Vec<u32> = rows.clone().map(|row| row as u32 % 3).collect();
            let weights = vec![1.0; rows.len()];
            let readout = ReadoutRequest::cross_entropy(support, &targets, &weights);
            let h = backend
                .input((rows.len(), Const::<2>), &h[2 * rows.start..2 * rows.end])
                .unwrap();
            let (loss, _) = backend.readout(&h, &w, &b, &readout).unwrap();
            backend.backward(loss).unwrap()
        };
        let whole = step(0..4, Accumulated::default());
        let parts = step(1..4, step(0..1, Accumulated::default()));
        assert_close(
            &backend.wide_gradient(&w, &parts).unwrap(),
            &backend.wide_gradient(&w, &whole).unwrap(),
        );
        // Nothing to score: no gradient, no failure.
        let none = step(0..0, Accumulated::default());
        assert!(none.0.iter().all(|&gradient| gradient == 0.0));

        let loss = backend.input((), &[1.0]).unwrap();
        assert!(
            backend
                .backward(loss)
                .unwrap_err()
                .to_string()
                .contains("nothing was recorded")
        );
    }
}
