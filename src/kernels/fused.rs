//! The fused backend: dfdx tensors and tape on the CPU, our operations on them.
//!
//! Every operation is a thin typed wrapper at the end of its `cpu.rs`: it takes slices of the tensors, calls the functions
//! on slices, and puts a closure on the tape. Activations' gradients live in the tape's gradients and are taken out when
//! they are consumed, so that each is freed as early as it can be. Weights and their gradients are [ranges of two
//! vectors](super::flat), the latter beside the tape, across micro-batches.

use std::cell::RefCell;
use std::rc::Rc;

use dfdx::prelude::{
    Backward as _, Cpu, CpuError, Gradients as TapeGradients, OwnedTape, PutTape as _, Tape as _, Tensor,
    TensorFromVec as _,
};
use dfdx::shapes::{ConstShape, Shape};

use super::attention::heads::Heads;
use super::checks::check_count;
use super::flat::{Gradients, Weight, Weights};
use super::{HostBackend, Operation, Tensors, TokenRows, profile, seam};
use crate::error::{Error, Kind, Result, Wrap as _};
use crate::precision::Precision;

pub(super) type Grads = TapeGradients<f32, Cpu>;

/// The fused operations on dfdx's CPU device.
#[derive(Default)]
pub struct Fused {
    device: Cpu,
    pub(super) precision: Precision,
    weights: Weights,
    recording: RefCell<Option<Recording>>,
    /// Rotary tables by shape; a network has one.
    pub(super) heads: RefCell<Vec<Rc<Heads>>>,
}

struct Recording {
    tape: OwnedTape<f32, Cpu>,
    weights: Rc<RefCell<Gradients>>,
}

pub(super) type Matrix<D> = Tensor<(usize, D), f32, Cpu>;

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
    pub(super) fn tensor<S: Shape>(&self, shape: S, values: Vec<f32>) -> Result<Tensor<S, f32, Cpu>> {
        let count = values.len();
        self.device
            .try_tensor_from_vec(values, shape)
            .wrap(Kind::Internal, || format!("{count} values for shape {shape:?}"))
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.borrow().is_some()
    }

    /// The gradients of the weights while recording, for an operation that computes them in its forward pass.
    pub(super) fn recorded(&self) -> Option<Rc<RefCell<Gradients>>> {
        let recording = self.recording.borrow();
        recording.as_ref().map(|recording| Rc::clone(&recording.weights))
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
    pub(super) fn push_from<S: Shape>(
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
}

/// The token rows of an activation, as a closure on the tape keeps them.
#[derive(Clone)]
pub(super) struct KeptRows {
    length: usize,
    listed: Option<Rc<[u32]>>,
}

impl KeptRows {
    pub(super) fn of(rows: TokenRows) -> Self {
        Self {
            length: rows.length,
            listed: rows.listed.map(Rc::from),
        }
    }

    pub(super) fn view(&self) -> TokenRows<'_> {
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
pub(super) fn add(into: &mut [f32], from: &[f32]) {
    super::rows::zip(
        into,
        from,
        #[inline(always)]
        |into, from| into + from,
    );
}

#[cfg(test)]
mod tests {
    use dfdx::shapes::Const;

    use super::*;
    use crate::kernels::testing::{gradient, noise, on_threads, weight};
    use crate::kernels::{
        Attention as _, Constants, Dropout, Embed as _, GatedResidual as _, Gather as _, Linear as _,
        LinearGelu as _, Loss, ModulatedNorm as _, Pattern, Readout as _, ReadoutRequest, Silu as _,
        VocabSupport,
    };
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
    fn backward_without_a_recording_is_an_error() {
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
