//! The fused backend: dfdx tensors and tape on the CPU, our operations on them.
//!
//! Every method here is a thin typed wrapper: it takes slices of the tensors, calls the operation's `cpu` functions,
//! and puts a closure on the tape. Activations' gradients live in the tape's own gradients and are taken out when
//! they are consumed, so that each is freed as early as it can be. Weights and their gradients are [ranges of two
//! vectors](super::flat), the latter beside the tape, across micro-batches.

use std::cell::RefCell;
use std::rc::Rc;

use dfdx::prelude::{
    Backward as _, Cpu, CpuError, Gradients as TapeGradients, HasShape as _, OwnedTape, PutTape as _,
    Tape as _, Tensor, TensorFromVec as _,
};
use dfdx::shapes::{ConstDim, ConstShape, Shape};

use super::attention::cpu::{Heads, Inputs};
use super::checks::{check_count, check_indices, check_modulation, check_token_rows};
use super::flat::{Gradients, Weight, Weights};
use super::gated_residual::cpu::{Gate, Mask};
use super::gemm::Precision;
use super::modulated_norm::cpu::{Modulation, Places};
use super::profile;
use super::{Backend, Dropout, HostBackend, Operation, Pattern, ReadoutRequest, Tensors, TokenRows, seam};
use super::{attention, embed, gated_residual, gather, linear, linear_gelu, modulated_norm, readout, silu};
use crate::error::{Error, Kind, Result, Wrap as _};

type Grads = TapeGradients<f32, Cpu>;

/// The fused operations on dfdx's CPU device.
#[derive(Default)]
pub struct Fused {
    device: Cpu,
    precision: Precision,
    weights: Weights,
    recording: RefCell<Option<Recording>>,
    /// Rotary tables by shape; a network has one.
    heads: RefCell<Vec<Rc<Heads>>>,
}

struct Recording {
    tape: OwnedTape<f32, Cpu>,
    weights: Rc<RefCell<Gradients>>,
}

type Matrix<D> = Tensor<(usize, D), f32, Cpu>;

impl Fused {
    /// The backend whose linear layers multiply in that precision, forwards and towards the activations; gradients of
    /// weights, attention and readouts without a gradient stay in f32.
    #[must_use]
    pub fn with_precision(precision: Precision) -> Self {
        Self {
            precision,
            ..Self::default()
        }
    }

    /// A tensor of these values.
    fn tensor<S: Shape>(&self, shape: S, values: Vec<f32>) -> Result<Tensor<S, f32, Cpu>> {
        let count = values.len();
        self.device
            .try_tensor_from_vec(values, shape)
            .wrap(Kind::Internal, || format!("{count} values for shape {shape:?}"))
    }

    fn is_recording(&self) -> bool {
        self.recording.borrow().is_some()
    }

    /// Puts an operation's gradient on the tape: a function of the activations' and of the weights' gradients.
    fn push(&self, gradient: impl FnOnce(&mut Grads, &mut Gradients) -> Result<(), CpuError> + 'static) {
        if let Some(recording) = &mut *self.recording.borrow_mut() {
            let weights = Rc::clone(&recording.weights);
            recording
                .tape
                .add_backward_op(move |activations| gradient(activations, &mut weights.borrow_mut()));
        }
    }

    /// Records y = f(x) · …: `Fused::push` with the common beginning, taking dy out.
    fn push_from<S: Shape>(
        &self,
        operation: Operation,
        y: &Tensor<S, f32, Cpu>,
        gradient: impl FnOnce(&mut [f32], &mut Grads, &mut Gradients) -> Result<(), CpuError> + 'static,
    ) {
        let y = y.ghost();
        self.push(move |activations, weights| {
            let _timer = profile::backward(operation);
            let mut dy = std::mem::take(&mut **activations.get_or_alloc_mut(&y)?);
            gradient(&mut dy, activations, weights)
        });
    }

    fn heads(&self, length: usize, count: usize, width: usize) -> Rc<Heads> {
        let mut known = self.heads.borrow_mut();
        let found = known
            .iter()
            .find(|heads| (heads.length, heads.count, heads.width) == (length, count, width));
        if let Some(heads) = found {
            return Rc::clone(heads);
        }
        let heads = Rc::new(Heads::new(length, count, width));
        known.push(Rc::clone(&heads));
        heads
    }
}

/// The token rows of an activation, as a closure on the tape keeps them.
#[derive(Clone)]
struct KeptRows {
    length: usize,
    listed: Option<Rc<[u32]>>,
}

impl KeptRows {
    fn of(rows: TokenRows) -> Self {
        Self {
            length: rows.length,
            listed: rows.listed.map(Rc::from),
        }
    }

    fn view(&self) -> TokenRows<'_> {
        TokenRows {
            length: self.length,
            listed: self.listed.as_deref(),
        }
    }
}

impl Tensors for Fused {
    type Param<S: ConstShape> = Weight<S>;
    type Act<S: Shape> = Tensor<S, f32, Cpu>;
    type Tokens = Rc<[u32]>;
    type Gradients = Gradients;

    fn param<S: ConstShape>(&self, values: &[f32]) -> Result<Self::Param<S>> {
        self.weights.push(values)
    }

    fn read<S: ConstShape>(&self, param: &Self::Param<S>, into: &mut [f32]) -> Result<()> {
        check_count(S::NUMEL, into.len())?;
        into.copy_from_slice(&param.values());
        Ok(())
    }

    fn gradient<S: ConstShape>(
        &self,
        param: &Self::Param<S>,
        gradients: &Self::Gradients,
        into: &mut [f32],
    ) -> Result<()> {
        check_count(S::NUMEL, into.len())?;
        match gradients.get(param) {
            Some(gradient) => into.copy_from_slice(gradient),
            None => into.fill(0.0),
        }
        Ok(())
    }

    fn record(&self, gradients: Self::Gradients) {
        *self.recording.borrow_mut() = Some(Recording {
            tape: OwnedTape::default(),
            weights: Rc::new(RefCell::new(gradients)),
        });
    }

    fn backward(&self, loss: Self::Act<()>) -> Result<Self::Gradients> {
        let Recording { tape, weights } = self
            .recording
            .borrow_mut()
            .take()
            .ok_or_else(|| Error::internal("nothing was recorded"))?;
        loss.put_tape(tape)
            .try_backward()
            .wrap(Kind::Environment, || "run the backward pass".to_owned())?;
        match Rc::try_unwrap(weights) {
            Ok(weights) => Ok(weights.into_inner()),
            Err(_) => Err(Error::internal("the tape outlived its run")),
        }
    }

    fn input<S: Shape>(&self, shape: S, values: &[f32]) -> Result<Self::Act<S>> {
        let mut copy = seam::zeros(values.len())?;
        copy.copy_from_slice(values);
        self.tensor(shape, copy)
    }

    fn values<S: Shape>(&self, x: &Self::Act<S>) -> Result<Vec<f32>> {
        Ok(seam::slice(x).to_vec())
    }

    fn tokens(&self, tokens: &[u32]) -> Result<Rc<[u32]>> {
        Ok(tokens.into())
    }
}

impl Backend for Fused {
    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Self::Param<(V, D)>,
        tokens: &Rc<[u32]>,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::Embed);
        check_indices("token", tokens, V::SIZE)?;
        let mut y = seam::zeros(tokens.len() * D::SIZE)?;
        embed::cpu::forward(&table.values(), tokens, D::SIZE, &mut y);
        let y = self.tensor((tokens.len(), D::default()), y)?;
        if self.is_recording() {
            let (table, tokens) = (table.clone(), Rc::clone(tokens));
            self.push_from(Operation::Embed, &y, move |dy, _, weights| {
                embed::cpu::backward(dy, &tokens, D::SIZE, weights.of(&table));
                Ok(())
            });
        }
        Ok(y)
    }

    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Matrix<I>,
        w: &Self::Param<(O, I)>,
        b: Option<&Self::Param<(O,)>>,
    ) -> Result<Matrix<O>> {
        let _timer = profile::forward(Operation::Linear);
        let rows = x.shape().0;
        let mut y = seam::zeros(rows * O::SIZE)?;
        let precision = self.precision;
        linear::cpu::forward(
            precision,
            seam::slice(x),
            &w.values(),
            b.map(Weight::values).as_deref(),
            I::SIZE,
            &mut y,
        );
        let y = self.tensor((rows, O::default()), y)?;
        if self.is_recording() {
            let (x, w, b) = (x.clone(), w.clone(), b.cloned());
            self.push_from(Operation::Linear, &y, move |dy, activations, weights| {
                linear_backward(precision, dy, &x, &w, b.as_ref(), activations, weights)
            });
        }
        Ok(y)
    }

    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Matrix<I>,
        w: &Self::Param<(O, I)>,
        first: usize,
    ) -> Result<Matrix<P>> {
        let _timer = profile::forward(Operation::Linear);
        if first + P::SIZE > O::SIZE {
            return Err(Error::internal(format!(
                "outputs {first} and {} more of {}",
                P::SIZE,
                O::SIZE
            )));
        }
        let rows = x.shape().0;
        let part = first * I::SIZE..(first + P::SIZE) * I::SIZE;
        let mut y = seam::zeros(rows * P::SIZE)?;
        let precision = self.precision;
        linear::cpu::forward(
            precision,
            seam::slice(x),
            &w.values()[part.clone()],
            None,
            I::SIZE,
            &mut y,
        );
        let y = self.tensor((rows, P::default()), y)?;
        if self.is_recording() {
            let (x, w) = (x.clone(), w.clone());
            self.push_from(Operation::Linear, &y, move |dy, activations, weights| {
                let dw = &mut weights.of(&w)[part.clone()];
                linear::cpu::weight_gradient(dy, seam::slice(&x), I::SIZE, P::SIZE, dw);
                let dx = activations.get_or_alloc_mut(&x)?;
                linear::cpu::input_gradient(precision, dy, &w.values()[part], I::SIZE, P::SIZE, dx);
                Ok(())
            });
        }
        Ok(y)
    }

    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Matrix<I>,
        w: &Self::Param<(O, I)>,
        b: &Self::Param<(O,)>,
    ) -> Result<Matrix<O>> {
        let _timer = profile::forward(Operation::LinearGelu);
        let rows = x.shape().0;
        let (mut u, mut y) = (seam::zeros(rows * O::SIZE)?, seam::zeros(rows * O::SIZE)?);
        let precision = self.precision;
        linear_gelu::cpu::forward(
            precision,
            seam::slice(x),
            &w.values(),
            &b.values(),
            I::SIZE,
            &mut u,
            &mut y,
        );
        let y = self.tensor((rows, O::default()), y)?;
        if self.is_recording() {
            let (x, w, b) = (x.clone(), w.clone(), b.clone());
            self.push_from(Operation::LinearGelu, &y, move |dy, activations, weights| {
                linear_gelu::cpu::activation_gradient(&u, dy);
                drop(u);
                linear_backward(precision, dy, &x, &w, Some(&b), activations, weights)
            });
        }
        Ok(y)
    }

    fn silu<N: ConstDim>(&self, x: &Matrix<N>) -> Result<Matrix<N>> {
        let _timer = profile::forward(Operation::Silu);
        let mut y = seam::zeros(x.shape().0 * N::SIZE)?;
        silu::cpu::forward(&mut y, seam::slice(x));
        let y = self.tensor(*x.shape(), y)?;
        if self.is_recording() {
            let x = x.clone();
            self.push_from(Operation::Silu, &y, move |dy, activations, _| {
                silu::cpu::backward(seam::slice(&x), dy);
                add(activations.get_or_alloc_mut(&x)?, dy);
                Ok(())
            });
        }
        Ok(y)
    }

    fn modulated_norm<D: ConstDim, M: ConstDim>(
        &self,
        x: &Matrix<D>,
        weight: &Self::Param<(D,)>,
        modulation: &Matrix<M>,
        shift: usize,
        scale: usize,
        rows: TokenRows<'_>,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::ModulatedNorm);
        let (count, shared) = (x.shape().0, modulation.shape().0);
        check_modulation(rows, count, D::SIZE, (shared, M::SIZE), &[shift, scale])?;
        let mut y = seam::zeros(count * D::SIZE)?;
        let mut statistics = vec![[0.0; 2]; count];
        let places = Places {
            columns: M::SIZE,
            shift: shift * D::SIZE,
            scale: scale * D::SIZE,
        };
        let view = Modulation {
            values: seam::slice(modulation),
            places,
            rows,
        };
        modulated_norm::cpu::forward(seam::slice(x), &weight.values(), view, &mut y, &mut statistics);
        let y = self.tensor(*x.shape(), y)?;
        if self.is_recording() {
            let (x, weight, modulation) = (x.clone(), weight.clone(), modulation.clone());
            let rows = KeptRows::of(rows);
            self.push_from(Operation::ModulatedNorm, &y, move |dy, activations, weights| {
                let (values, weight_values) = (seam::slice(&x), &*weight.values());
                let view = Modulation {
                    values: seam::slice(&modulation),
                    places,
                    rows: rows.view(),
                };
                let dmodulation = activations.get_or_alloc_mut(&modulation)?;
                let dweight = weights.of(&weight);
                modulated_norm::cpu::parameter_gradients(
                    dy,
                    values,
                    weight_values,
                    view,
                    &statistics,
                    dweight,
                    dmodulation,
                );
                let dx = activations.get_or_alloc_mut(&x)?;
                modulated_norm::cpu::input_gradient(dy, values, weight_values, view, &statistics, dx);
                Ok(())
            });
        }
        Ok(y)
    }

    fn attention<D: ConstDim, D2: ConstDim>(
        &self,
        q: &Matrix<D>,
        kv: &Matrix<D2>,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::Attention);
        let (queries, keys, length) = (q.shape().0, kv.shape().0, rows.length);
        if heads == 0
            || !D::SIZE.is_multiple_of(2 * heads)
            || D2::SIZE != 2 * D::SIZE
            || length == 0
            || !keys.is_multiple_of(length)
        {
            return Err(Error::internal(format!(
                "attention over rows of {length} with {heads} heads on {keys}x{} to width {}",
                D2::SIZE,
                D::SIZE
            )));
        }
        check_token_rows(rows, queries, keys / length)?;
        pattern.check()?;
        let heads = self.heads(length, heads, D::SIZE / heads);
        let mut y = seam::zeros(queries * D::SIZE)?;
        let mut denominators = seam::zeros(queries * heads.count)?;
        let inputs = Inputs {
            q: seam::slice(q),
            kv: seam::slice(kv),
            rows,
            pattern,
        };
        attention::cpu::forward(inputs, &heads, &mut y, &mut denominators);
        let y = self.tensor(*q.shape(), y)?;
        if self.is_recording() {
            let (q, kv, y_again, rows) = (q.clone(), kv.clone(), y.clone(), KeptRows::of(rows));
            self.push_from(Operation::Attention, &y, move |dy, activations, _| {
                // Taken out and put back, to have both gradients at once.
                let mut dq = std::mem::take(&mut **activations.get_or_alloc_mut(&q)?);
                let dkv = activations.get_or_alloc_mut(&kv)?;
                let inputs = Inputs {
                    q: seam::slice(&q),
                    kv: seam::slice(&kv),
                    rows: rows.view(),
                    pattern,
                };
                let y = seam::slice(&y_again);
                attention::cpu::backward(dy, inputs, y, &denominators, &heads, &mut dq, dkv);
                **activations.get_or_alloc_mut(&q)? = dq;
                Ok(())
            });
        }
        Ok(y)
    }

    fn gated_residual<D: ConstDim, M: ConstDim>(
        &self,
        x: &Matrix<D>,
        branch: &Matrix<D>,
        modulation: &Matrix<M>,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::GatedResidual);
        let (count, shared) = (x.shape().0, modulation.shape().0);
        check_modulation(rows, count, D::SIZE, (shared, M::SIZE), &[gate])?;
        if branch.shape().0 != count {
            return Err(Error::internal(format!(
                "a branch of {} rows for {count}",
                branch.shape().0
            )));
        }
        let mask = dropout.map(|(dropout, site)| Mask::new(&dropout, site));
        let width = D::SIZE;
        let place = (M::SIZE, gate * width);
        let gate = Gate {
            modulation: seam::slice(modulation),
            place,
            width,
            rows,
            mask,
        };
        let mut y = seam::zeros(count * D::SIZE)?;
        gated_residual::cpu::forward(seam::slice(x), seam::slice(branch), gate, &mut y);
        let y = self.tensor(*x.shape(), y)?;
        if self.is_recording() {
            let (x, branch, modulation) = (x.ghost(), branch.clone(), modulation.clone());
            let rows = KeptRows::of(rows);
            self.push_from(Operation::GatedResidual, &y, move |dy, activations, _| {
                let gate = Gate {
                    modulation: seam::slice(&modulation),
                    place,
                    width,
                    rows: rows.view(),
                    mask,
                };
                // Taken out and put back, to have both gradients at once.
                let mut dmodulation = std::mem::take(&mut **activations.get_or_alloc_mut(&modulation)?);
                let dbranch = activations.get_or_alloc_mut(&branch)?;
                gated_residual::cpu::backward(dy, seam::slice(&branch), gate, dbranch, &mut dmodulation);
                **activations.get_or_alloc_mut(&modulation)? = dmodulation;
                add(activations.get_or_alloc_mut(&x)?, dy);
                Ok(())
            });
        }
        Ok(y)
    }

    fn gather<D: ConstDim>(&self, x: &Matrix<D>, rows: &[u32]) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::Gather);
        check_indices("row", rows, x.shape().0)?;
        let mut y = seam::zeros(rows.len() * D::SIZE)?;
        gather::cpu::forward(seam::slice(x), rows, D::SIZE, &mut y);
        let y = self.tensor((rows.len(), D::default()), y)?;
        if self.is_recording() {
            let (x, rows) = (x.ghost(), rows.to_vec());
            self.push_from(Operation::Gather, &y, move |dy, activations, _| {
                gather::cpu::backward(dy, &rows, D::SIZE, activations.get_or_alloc_mut(&x)?);
                Ok(())
            });
        }
        Ok(y)
    }

    fn readout<V: ConstDim, D: ConstDim>(
        &self,
        h: &Matrix<D>,
        w: &Self::Param<(V, D)>,
        b: &Self::Param<(V,)>,
        readout: &ReadoutRequest<'_>,
    ) -> Result<(Self::Act<()>, Self::Act<(usize,)>)> {
        let _timer = profile::forward(Operation::Readout);
        let count = h.shape().0;
        readout.check(count, V::SIZE)?;
        let mut losses = seam::zeros(count)?;
        let (values, w_values, b_values) = (seam::slice(h), &*w.values(), &*b.values());
        let recorded = self
            .recording
            .borrow()
            .as_ref()
            .map(|recording| Rc::clone(&recording.weights));
        let mut dh = Vec::new();
        if let Some(gradients) = &recorded {
            let mut gradients = gradients.borrow_mut();
            dh = seam::zeros(values.len())?;
            let [dw, db] = gradients.of_both(w, b)?;
            readout::cpu::forward_backward(
                self.precision,
                values,
                w_values,
                b_values,
                readout,
                &mut losses,
                &mut dh,
                dw,
                db,
            );
        } else {
            readout::cpu::forward(values, w_values, b_values, readout, &mut losses);
        }
        // Summed in f64: the loss of a large batch keeps its last digits.
        let total: f64 = losses
            .iter()
            .zip(readout.weights)
            .map(|(&loss, &weight)| f64::from(loss) * f64::from(weight))
            .sum();
        let loss = self.tensor((), vec![total as f32])?;
        if recorded.is_some() {
            let h = h.ghost();
            self.push_from(Operation::Readout, &loss, move |dloss, activations, _| {
                debug_assert_eq!(dloss, [1.0], "the loss is the end of the tape");
                add(activations.get_or_alloc_mut(&h)?, &dh);
                Ok(())
            });
        }
        Ok((loss, self.tensor((count,), losses)?))
    }
}

impl HostBackend for Fused {
    fn reserve(&self, count: usize) -> Result<()> {
        self.weights.reserve(count)
    }

    fn with_weights(&self, f: &mut dyn FnMut(&mut [f32])) -> Result<()> {
        self.weights.with(f);
        Ok(())
    }

    fn with_gradients(
        &self,
        gradients: &mut Gradients,
        f: &mut dyn FnMut(&mut [f32], &mut [f32]),
    ) -> Result<()> {
        gradients.reach(self.weights.len())?;
        self.weights.with(|weights| f(weights, gradients.all()));
        Ok(())
    }
}

/// into += from.
fn add(into: &mut [f32], from: &[f32]) {
    super::rows::zip(
        into,
        from,
        #[inline(always)]
        |into, from| into + from,
    );
}

/// The gradients of y = x · wᵀ + b.
fn linear_backward<I: ConstDim, O: ConstDim>(
    precision: Precision,
    dy: &[f32],
    x: &Matrix<I>,
    w: &Weight<(O, I)>,
    b: Option<&Weight<(O,)>>,
    activations: &mut Grads,
    weights: &mut Gradients,
) -> Result<(), CpuError> {
    if let Some(b) = b {
        linear::cpu::bias_gradient(dy, weights.of(b));
    }
    linear::cpu::weight_gradient(dy, seam::slice(x), I::SIZE, O::SIZE, weights.of(w));
    linear::cpu::input_gradient(
        precision,
        dy,
        &w.values(),
        I::SIZE,
        O::SIZE,
        activations.get_or_alloc_mut(x)?,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::*;
    use crate::kernels::testing::{gradient, noise, on_threads, weight};
    use crate::kernels::{Constants, Loss, VocabSupport};
    use crate::rng::{Random, Stream};

    const LENGTH: usize = 8;
    const ROWS: usize = 4;

    type Matrix<const A: usize, const B: usize> = Weight<(Const<A>, Const<B>)>;
    type Vector<const A: usize> = Weight<(Const<A>,)>;

    /// One block of a network: every operation, each weight after every kind of operation.
    struct Net {
        table: Matrix<40, 24>,
        condition: Matrix<144, 5>,
        norms: [Vector<24>; 2],
        qkv: Matrix<72, 24>,
        up: Matrix<96, 24>,
        up_bias: Vector<96>,
        down: Matrix<24, 96>,
        head: Matrix<40, 24>,
        head_bias: Vector<40>,
        loss: Loss,
        support: VocabSupport,
        pattern: Pattern,
    }

    impl Net {
        fn new(backend: &Fused, loss: Loss) -> Result<Self> {
            let support = match loss {
                Loss::AbsorbingKl => VocabSupport::with_mask(39, 40),
                Loss::CrossEntropy | Loss::ScoreEntropy => VocabSupport::without_mask(39, 40),
            };
            Ok(Self {
                loss,
                support,
                // Each loss with another pattern.
                pattern: match loss {
                    Loss::CrossEntropy => Pattern::Full,
                    Loss::AbsorbingKl => Pattern::Causal,
                    Loss::ScoreEntropy => Pattern::BlockCausal { block: 3 },
                },
                table: weight(backend, 1.0, 1)?,
                condition: weight(backend, 0.5, 2)?,
                norms: [weight(backend, 1.0, 3)?, weight(backend, 1.0, 11)?],
                qkv: weight(backend, 0.5, 4)?,
                up: weight(backend, 0.3, 5)?,
                up_bias: weight(backend, 0.3, 6)?,
                down: weight(backend, 0.3, 7)?,
                head: weight(backend, 0.3, 8)?,
                head_bias: weight(backend, 0.3, 9)?,
            })
        }

        /// Forward and backward over rows `first..first + count` of the batch.
        fn accumulate(
            &self,
            backend: &Fused,
            gradients: Gradients,
            first: usize,
            count: usize,
        ) -> Result<Gradients> {
            let random = Random::new(3, Stream::Mask);
            let positions: Vec<usize> = (first * LENGTH..(first + count) * LENGTH).collect();
            let tokens: Vec<u32> = positions
                .iter()
                .map(|&p| random.below(39, 0, 0, p as u32) as u32)
                .collect();
            let masked: Vec<usize> = positions.iter().copied().filter(|p| p % 5 != 2).collect();
            let dropout = Dropout {
                rate: 0.2,
                random: Random::new(3, Stream::Dropout),
                step: 7,
                first_row: first as u64,
            };
            backend.record(gradients);
            let condition = noise(ROWS * 5, 10);
            let c = backend.input((count, Const::<5>), &condition[first * 5..(first + count) * 5])?;
            let modulation = backend.linear(&backend.silu(&c)?, &self.condition, None)?;
            let x = backend.embed(&self.table, &backend.tokens(&tokens)?)?;
            let listed: Vec<u32> = masked.iter().map(|p| (p - first * LENGTH) as u32).collect();
            let (all, rows) = (TokenRows::all(LENGTH), TokenRows::listed(LENGTH, &listed));
            let h = backend.modulated_norm(&x, &self.norms[0], &modulation, 0, 1, all)?;
            let kv = backend.linear_part::<_, _, Const<48>>(&h, &self.qkv, 24)?;
            let q = backend.linear_part::<_, _, Const<24>>(&backend.gather(&h, &listed)?, &self.qkv, 0)?;
            let h = backend.attention(&q, &kv, 2, rows, self.pattern)?;
            let x = backend.gather(&x, &listed)?;
            let x = backend.gated_residual(&x, &h, &modulation, 2, Some((dropout, 0)), rows)?;
            let h = backend.modulated_norm(&x, &self.norms[1], &modulation, 3, 4, rows)?;
            let h = backend.linear_gelu(&h, &self.up, &self.up_bias)?;
            let h = backend.linear(&h, &self.down, None)?;
            let h = backend.gated_residual(&x, &h, &modulation, 5, Some((dropout, 1)), rows)?;
            let targets: Vec<u32> = masked.iter().map(|p| (p * 11 % 39) as u32).collect();
            let weights: Vec<f32> = masked.iter().map(|p| 1.0 / (1 + p / LENGTH) as f32).collect();
            // The constants of a loss are the positions' own, whatever batch they come in.
            let constants: Vec<Constants> = masked
                .iter()
                .map(|p| match self.loss {
                    Loss::AbsorbingKl => [0.1 * (p % 7) as f32, 0.5, 0.25 * (p % 3) as f32],
                    _ => [0.5 + (p % 5) as f32, 0.1 * (p % 4) as f32, 0.0],
                })
                .collect();
            let is_plain = self.loss == Loss::CrossEntropy;
            let readout = ReadoutRequest {
                support: self.support,
                loss: self.loss,
                constants: if is_plain { &[] } else { &constants },
                targets: &targets,
                weights: &weights,
            };
            let (loss, _) = backend.readout(&h, &self.head, &self.head_bias, &readout)?;
            backend.backward(loss)
        }
    }

    /// The bits of every weight's gradient after a batch in micro-batches of `micro` rows.
    fn gradients(loss: Loss, micro: usize) -> Result<Vec<Vec<u32>>> {
        let backend = Fused::default();
        let net = Net::new(&backend, loss)?;
        let mut g = Gradients::default();
        for first in (0..ROWS).step_by(micro) {
            g = net.accumulate(&backend, g, first, micro)?;
        }
        let g = &g;
        let all = [
            gradient(&backend, &net.table, g)?,
            gradient(&backend, &net.condition, g)?,
            gradient(&backend, &net.norms[0], g)?,
            gradient(&backend, &net.norms[1], g)?,
            gradient(&backend, &net.qkv, g)?,
            gradient(&backend, &net.up, g)?,
            gradient(&backend, &net.up_bias, g)?,
            gradient(&backend, &net.down, g)?,
            gradient(&backend, &net.head, g)?,
            gradient(&backend, &net.head_bias, g)?,
        ];
        assert!(
            all.iter().all(|gradient| gradient.iter().any(|&x| x != 0.0)),
            "a gradient is all zero"
        );
        Ok(all
            .into_iter()
            .map(|gradient| gradient.into_iter().map(f32::to_bits).collect())
            .collect())
    }

    #[test]
    fn gradients_have_the_same_bits_for_any_micro_batch_and_any_threads() {
        for loss in [Loss::CrossEntropy, Loss::AbsorbingKl, Loss::ScoreEntropy] {
            let whole = on_threads(1, || gradients(loss, ROWS)).unwrap();
            for micro in [1, 2, 4] {
                for threads in [1, 2, 3] {
                    let found = on_threads(threads, || gradients(loss, micro)).unwrap();
                    assert!(
                        found == whole,
                        "{loss:?}: micro-batches of {micro} rows on {threads} threads"
                    );
                }
            }
        }
    }

    #[test]
    fn weights_and_gradients_lie_end_to_end_and_are_written_in_place() {
        let backend = Fused::default();
        let v: Vector<2> = backend.param(&[8.0, 9.0]).unwrap();
        let w: Vector<3> = backend.param(&[1.0, 2.0, 3.0]).unwrap();
        let mut g = Gradients::default();
        assert_eq!(gradient(&backend, &w, &g).unwrap(), [0.0; 3]);
        backend
            .with_gradients(&mut g, &mut |values, gradient| {
                assert_eq!(values, [8.0, 9.0, 1.0, 2.0, 3.0]);
                assert_eq!(gradient, [0.0; 5]);
                values[3] = 5.0;
                gradient[4] = 4.0;
            })
            .unwrap();
        assert_eq!(gradient(&backend, &w, &g).unwrap(), [0.0, 0.0, 4.0]);
        assert_eq!(gradient(&backend, &v, &g).unwrap(), [0.0; 2]);
        assert_eq!(*w.values(), [1.0, 5.0, 3.0]);
        assert!(g.of_both(&v, &w).is_ok());
        assert!(g.of_both(&w, &w).is_err());
        assert!(backend.param::<(Const<3>,)>(&[0.0; 2]).is_err());
    }

    #[test]
    fn a_backward_pass_without_a_recording_is_an_error() {
        let backend = Fused::default();
        let loss = backend.input((), &[1.0]).unwrap();
        assert!(backend.backward(loss).is_err());
    }

    #[test]
    fn nan_reaches_the_loss() {
        let backend = Fused::default();
        let mut values = noise(24 * LENGTH, 1);
        values[30] = f32::NAN;
        let x = backend.input((LENGTH, Const::<24>), &values).unwrap();
        let net = Net::new(&backend, Loss::CrossEntropy).unwrap();
        let q = backend.linear_part::<_, _, Const<24>>(&x, &net.qkv, 0).unwrap();
        let kv = backend.linear_part::<_, _, Const<48>>(&x, &net.qkv, 24).unwrap();
        let h = backend
            .attention(&q, &kv, 2, TokenRows::all(LENGTH), Pattern::Full)
            .unwrap();
        let readout =
            ReadoutRequest::cross_entropy(VocabSupport::without_mask(39, 40), &[1; LENGTH], &[1.0; LENGTH]);
        let (loss, nll) = backend.readout(&h, &net.head, &net.head_bias, &readout).unwrap();
        assert!(
            backend.values(&nll).unwrap().iter().all(|x| x.is_nan()),
            "attention mixes all positions of the row"
        );
        assert!(backend.values(&loss).unwrap()[0].is_nan());
    }
}
