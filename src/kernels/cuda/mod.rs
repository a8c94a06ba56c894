//! The CUDA backend: the same network on kernels of our own, over a [`Driver`].
//!
//! Activations are matrices of [`Element`]s; weights have f32 masters, working copies of elements, and f32 gradients. All
//! sums are in f32 and in an order that depends on sizes alone: two runs on one device give the same bits. The tape is a list
//! of closures; a gradient is let go when it is consumed, and what two operations share is added up.
//!
//! Every method of [`Backend`] is a thin typed wrapper: what does not depend on types is in [`operations`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;

use dfdx::shapes::{ConstDim, ConstShape, Shape};

use super::{Alphabet, Backend, Dropout, TokenRows};
use crate::error::{Error, Result};

pub mod compiler;
pub mod device;
pub mod driver;
#[cfg(all(test, target_os = "linux"))]
pub mod emulated;
mod memory;
mod operations;

use driver::{Driver, Element};
pub use memory::Taken;
use memory::{Buffer, Pool};

/// The network's operations on a CUDA device.
pub struct Cuda {
    pool: Rc<Pool>,
    element: Element,
    recording: RefCell<Option<Recording>>,
    /// Weights made so far: each has a number.
    weights: Cell<usize>,
    /// Rotary tables by row length and head width; a network has one.
    turns: RefCell<BTreeMap<(usize, usize), Rc<Buffer>>>,
    /// What dropout was last told: the same for all operations of a step.
    random: RefCell<Option<([u32; 6], Rc<Buffer>)>>,
}

type Step = Box<dyn FnOnce(&Cuda, &mut Gradients) -> Result<()>>;

struct Recording {
    tape: Vec<Step>,
    gradients: Gradients,
}

/// The gradients of the weights, f32, by the weights' numbers.
#[derive(Default)]
pub struct Gradients {
    buffers: BTreeMap<usize, Buffer>,
}

/// A weight.
pub struct Param<S> {
    weight: Rc<Weight>,
    shape: PhantomData<S>,
}

/// A weight without its type.
struct Weight {
    number: usize,
    count: usize,
    /// f32.
    master: Buffer,
    /// In the backend's element, where that is another one.
    working: Option<Buffer>,
}

impl Weight {
    /// What products take.
    fn working(&self) -> &Buffer {
        self.working.as_ref().unwrap_or(&self.master)
    }
}

/// An activation.
pub struct Act<S> {
    matrix: Matrix,
    shape: PhantomData<S>,
}

impl<S> Clone for Act<S> {
    fn clone(&self) -> Self {
        Self {
            matrix: self.matrix.clone(),
            shape: PhantomData,
        }
    }
}

/// An activation without its type.
#[derive(Clone)]
struct Matrix {
    values: Rc<Buffer>,
    element: Element,
    rows: usize,
    columns: usize,
    gradient: Slot,
}

/// Where the gradient of an activation gathers.
type Slot = Rc<RefCell<Option<Buffer>>>;

/// Floats as a device keeps them.
fn narrowed(values: &[f32], element: Element) -> Vec<u8> {
    match element {
        Element::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Element::Bf16 => values
            .iter()
            .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
            .collect(),
    }
}

/// Floats of what a device keeps.
fn widened(bytes: &[u8], element: Element) -> Vec<f32> {
    match element {
        Element::F32 => bytes
            .chunks_exact(4)
            .map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]))
            .collect(),
        Element::Bf16 => bytes
            .chunks_exact(2)
            .map(|x| half::bf16::from_le_bytes([x[0], x[1]]).to_f32())
            .collect(),
    }
}

impl Cuda {
    /// The backend on a device, its activations made of that element.
    #[must_use]
    pub fn new(driver: Box<dyn Driver>, element: Element) -> Self {
        Self {
            pool: Rc::new(Pool::new(driver)),
            element,
            recording: RefCell::default(),
            weights: Cell::default(),
            turns: RefCell::default(),
            random: RefCell::default(),
        }
    }

    /// The device's memory that is taken.
    #[must_use]
    pub fn taken(&self) -> Taken {
        self.pool.taken()
    }

    fn is_recording(&self) -> bool {
        self.recording.borrow().is_some()
    }

    /// Puts an operation's gradient on the tape.
    fn push(&self, step: impl FnOnce(&Cuda, &mut Gradients) -> Result<()> + 'static) {
        if let Some(recording) = &mut *self.recording.borrow_mut() {
            recording.tape.push(Box::new(step));
        }
    }

    fn act<S>(matrix: Matrix) -> Act<S> {
        Act {
            matrix,
            shape: PhantomData,
        }
    }
}

impl Backend for Cuda {
    type Param<S: ConstShape> = Param<S>;
    type Act<S: Shape> = Act<S>;
    type Gradients = Gradients;

    fn param<S: ConstShape>(&self, values: &[f32]) -> Result<Param<S>> {
        if values.len() != S::NUMEL {
            return Err(Error::internal(format!(
                "{} values for {}",
                values.len(),
                S::NUMEL
            )));
        }
        let number = self.weights.get();
        self.weights.set(number + 1);
        let working = match self.element {
            Element::F32 => None,
            Element::Bf16 => Some(self.pool.filled(&narrowed(values, Element::Bf16))?),
        };
        let weight = Weight {
            number,
            count: values.len(),
            master: self.pool.filled(&narrowed(values, Element::F32))?,
            working,
        };
        Ok(Param {
            weight: Rc::new(weight),
            shape: PhantomData,
        })
    }

    fn read<S: ConstShape>(&self, param: &Param<S>, into: &mut [f32]) -> Result<()> {
        let values = widened(&param.weight.master.read()?, Element::F32);
        if values.len() != into.len() {
            return Err(Error::internal(format!(
                "{} values into {}",
                values.len(),
                into.len()
            )));
        }
        into.copy_from_slice(&values);
        Ok(())
    }

    fn with_param<S: ConstShape>(
        &self,
        param: &mut Param<S>,
        gradients: &mut Gradients,
        f: &mut dyn FnMut(&mut [f32], &mut [f32]),
    ) -> Result<()> {
        let weight = &param.weight;
        let at = self.weight_gradient(gradients, weight)?;
        let mut values = widened(&weight.master.read()?, Element::F32);
        let mut gradient = vec![0; weight.count * 4];
        self.pool.driver().read(at, &mut gradient)?;
        let mut gradient = widened(&gradient, Element::F32);
        f(&mut values, &mut gradient);
        let driver = self.pool.driver();
        driver.write(at, &narrowed(&gradient, Element::F32))?;
        driver.write(weight.master.at(), &narrowed(&values, Element::F32))?;
        if let Some(working) = &weight.working {
            driver.write(working.at(), &narrowed(&values, self.element))?;
        }
        Ok(())
    }

    fn record(&self, gradients: Gradients) {
        *self.recording.borrow_mut() = Some(Recording {
            tape: Vec::new(),
            gradients,
        });
    }

    fn backward(&self, _: Act<()>) -> Result<Gradients> {
        let Recording { tape, mut gradients } = self
            .recording
            .borrow_mut()
            .take()
            .ok_or_else(|| Error::internal("nothing was recorded"))?;
        for step in tape.into_iter().rev() {
            step(self, &mut gradients)?;
        }
        Ok(gradients)
    }

    fn input<S: Shape>(&self, shape: S, values: &[f32]) -> Result<Act<S>> {
        let dims = shape.concrete();
        let columns = dims.as_ref().last().copied().unwrap_or(1);
        if values.len() != shape.num_elements() {
            return Err(Error::internal(format!("{} values for {shape:?}", values.len())));
        }
        let rows = values.len() / columns.max(1);
        let buffer = self.pool.filled(&narrowed(values, self.element))?;
        Ok(Self::act(self.matrix(buffer, rows, columns)))
    }

    fn values<S: Shape>(&self, x: &Act<S>) -> Result<Vec<f32>> {
        Ok(widened(&x.matrix.values.read()?, x.matrix.element))
    }

    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Param<(V, D)>,
        tokens: &[u32],
    ) -> Result<Act<(usize, D)>> {
        self.embed_rows(&table.weight, D::SIZE, V::SIZE, tokens)
            .map(Self::act)
    }

    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Act<(usize, I)>,
        w: &Param<(O, I)>,
        b: Option<&Param<(O,)>>,
    ) -> Result<Act<(usize, O)>> {
        let bias = b.map(|b| &b.weight);
        self.linear_rows(&x.matrix, &w.weight, 0..O::SIZE, bias)
            .map(Self::act)
    }

    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Act<(usize, I)>,
        w: &Param<(O, I)>,
        first: usize,
    ) -> Result<Act<(usize, P)>> {
        if first + P::SIZE > O::SIZE {
            let message = format!("outputs {first} and {} more of {}", P::SIZE, O::SIZE);
            return Err(Error::internal(message));
        }
        let outputs = first..first + P::SIZE;
        self.linear_rows(&x.matrix, &w.weight, outputs, None)
            .map(Self::act)
    }

    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Act<(usize, I)>,
        w: &Param<(O, I)>,
        b: &Param<(O,)>,
    ) -> Result<Act<(usize, O)>> {
        self.linear_gelu_rows(&x.matrix, &w.weight, &b.weight)
            .map(Self::act)
    }

    fn silu<N: ConstDim>(&self, x: &Act<(usize, N)>) -> Result<Act<(usize, N)>> {
        self.silu_rows(&x.matrix).map(Self::act)
    }

    fn modulated_norm<D: ConstDim, M: ConstDim>(
        &self,
        x: &Act<(usize, D)>,
        weight: &Param<(D,)>,
        modulation: &Act<(usize, M)>,
        shift: usize,
        scale: usize,
        rows: TokenRows<'_>,
    ) -> Result<Act<(usize, D)>> {
        let chunks = [shift, scale];
        self.norm_rows(&x.matrix, &weight.weight, &modulation.matrix, chunks, rows)
            .map(Self::act)
    }

    fn attention<D: ConstDim, D2: ConstDim>(
        &self,
        q: &Act<(usize, D)>,
        kv: &Act<(usize, D2)>,
        heads: usize,
        rows: TokenRows<'_>,
    ) -> Result<Act<(usize, D)>> {
        self.attention_rows(&q.matrix, &kv.matrix, heads, rows)
            .map(Self::act)
    }

    fn gated_residual<D: ConstDim, M: ConstDim>(
        &self,
        x: &Act<(usize, D)>,
        branch: &Act<(usize, D)>,
        modulation: &Act<(usize, M)>,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Act<(usize, D)>> {
        self.residual_rows(
            [&x.matrix, &branch.matrix],
            &modulation.matrix,
            gate,
            dropout,
            rows,
        )
        .map(Self::act)
    }

    fn gather<D: ConstDim>(&self, x: &Act<(usize, D)>, rows: &[u32]) -> Result<Act<(usize, D)>> {
        self.gather_rows(&x.matrix, rows).map(Self::act)
    }

    fn nll<V: ConstDim, D: ConstDim>(
        &self,
        h: &Act<(usize, D)>,
        w: &Param<(V, D)>,
        b: &Param<(V,)>,
        alphabet: Alphabet,
        targets: &[u32],
        weights: &[f32],
        groups: &[u32],
    ) -> Result<(Act<()>, Vec<f32>)> {
        if groups.len() != h.matrix.rows {
            let message = format!("{} positions with {} groups", h.matrix.rows, groups.len());
            return Err(Error::internal(message));
        }
        let (loss, nll) = self.nll_rows(&h.matrix, [&w.weight, &b.weight], alphabet, targets, weights)?;
        Ok((Self::act(loss), nll))
    }
}
