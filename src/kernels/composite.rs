//! The composite backend: every operation as plain public dfdx operations, differentiated by dfdx itself. They stand in the
//! operations' folders, in `mod.rs` or, where they are long, in `composite.rs`.
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
    Backward as _, ConstDim, ConstShape, Device, Dtype, GatherTo as _, Gradients, HasShape as _, OwnedTape,
    PutTape as _, RealizeTo as _, ReshapeTo as _, Shape, SplitTape as _, Tensor,
};

use super::checks::check_count;
use super::flat::{self, Weights};
use super::{HostBackend, Tensors, TokenRows};
use crate::error::{Error, Result};

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

    pub(super) fn is_recording(&self) -> bool {
        self.recording.borrow().is_some()
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
    pub(super) fn take<S: ConstShape>(&self, weight: &Weight<S, E, Dev>) -> Result<Tensor<S, E, Dev>> {
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

    pub(super) fn matrix<A: dfdx::prelude::Dim, B: dfdx::prelude::Dim>(
        x: &Tensor<(A, B), E, Dev>,
    ) -> Matrix<E, Dev> {
        x.clone().realize()
    }

    pub(super) fn typed<D: ConstDim>(x: Matrix<E, Dev>) -> Result<Tensor<(usize, D), E, Dev>> {
        x.try_realize()
            .map_err(|x| Error::internal(format!("shape {:?} where {} columns belong", x.shape(), D::SIZE)))
    }

    /// Which row of the chunks' matrix each of `count` rows uses: the modulation (m, M) seen as
    /// (m · M/D, D) has chunk k of row i at row i · M/D + k.
    pub(super) fn chunk_rows(
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
}

/// The chunk of the modulation that each row uses; see [`Composite::chunk_rows`].
pub(super) fn chunk<E: Number, Dev: Device<E>>(
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

#[cfg(test)]
mod tests {
    use dfdx::prelude::Const;

    use super::*;
    use crate::kernels::testing::{assert_close, exact, noise};
    use crate::kernels::{Readout as _, ReadoutRequest, VocabSupport};

    #[test]
    fn gradients_are_not_rounded_by_being_read_and_are_written_in_place() {
        let backend = exact();
        let h = backend.input((2, Const::<2>), &[1., -1., 0.5, 2.]).unwrap();
        let w = backend.param::<(Const<3>, Const<2>)>(&noise(6, 1)).unwrap();
        let b = backend.param::<(Const<3>,)>(&[0.1, 0.2, 0.3]).unwrap();
        backend.record(Accumulated::default());
        let request = ReadoutRequest::cross_entropy(VocabSupport::without_mask(2, 3), &[1, 0], &[2.0, 0.5]);
        let (loss, _) = backend.readout(&h, &w, &b, &request).unwrap();
        let mut gradients = backend.backward(loss).unwrap();
        let before = backend.wide_gradient(&b, &gradients).unwrap();
        assert!(before.iter().any(|&g| f64::from(g as f32) != g), "{before:?}");
        backend.with_gradients(&mut gradients, &mut |_, _| {}).unwrap();
        assert_eq!(backend.wide_gradient(&b, &gradients).unwrap(), before);
        backend
            .with_gradients(&mut gradients, &mut |values, gradient| {
                let own = b.flat.range();
                assert_eq!(values.len(), own.end, "the last weight");
                values[own.end - 1] = 8.0;
                gradient[own].fill(0.25);
            })
            .unwrap();
        assert_close(&backend.wide_gradient(&b, &gradients).unwrap(), &[0.25; 3]);
        let mut read = [0.0; 3];
        backend.read(&b, &mut read).unwrap();
        assert_eq!(read.map(f32::to_bits)[1..], [0.2f32, 8.0].map(f32::to_bits));
        let taken = backend.take(&b).unwrap().as_vec();
        assert_eq!(taken[2], 8.0, "an operation takes the weight as it is now");
    }

    #[test]
    fn micro_batches_accumulate_and_a_failed_operation_ends_the_recording() {
        let backend = exact();
        let w = backend.param::<(Const<3>, Const<2>)>(&noise(6, 1)).unwrap();
        let b = backend.param::<(Const<3>,)>(&noise(3, 2)).unwrap();
        let h = noise(8, 3);
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
