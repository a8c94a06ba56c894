//! The CUDA backend: the same network on mdlm's kernels, over a [`Driver`].
//!
//! Activations are matrices of [`DType`]s. Weights have f32 masters, working copies in the data type of the
//! activations, and f32 gradients. All sums are in f32, in an order that depends on sizes alone: two runs on one device
//! give the same bits. The tape is a list of closures. A gradient is freed when it is consumed; gradients of a value
//! that several operations use are added.
//!
//! Calling an operation runs nothing: the operation [queues](queue) its device work, which is submitted when a result
//! is needed or a step is complete.
//!
//! Every operation is a thin typed wrapper in its folder, over code that does not depend on types; [`launch`] is what they
//! share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;

use dfdx::shapes::{ConstShape, Shape};

use super::Tensors;
use super::checks::check_count;
use crate::error::{Error, Result};

mod buffer_plan;
pub mod compiler;
pub mod device;
pub mod driver;
#[cfg(all(any(test, feature = "testing"), target_os = "linux"))]
pub mod emulated;
pub(super) mod launch;
#[cfg(unix)]
pub mod nccl;
mod peers;
pub mod planning;
pub mod probe;
mod products;
pub(super) mod queue;
pub mod support;
pub mod surroundings;
pub(super) mod weights;

use driver::{Address, DType, Driver};
pub(super) use queue::Buffer;
use queue::Queue;
pub use queue::Taken;
pub use weights::room;
use weights::{Allocation, Weight, WeightArena};

/// The network's operations on a CUDA device.
pub struct Cuda {
    pub(super) queue: Rc<Queue>,
    pub(super) element: DType,
    /// Whether products of f32 may round their factors to tf32.
    tf32: bool,
    pub(super) recording: RefCell<Option<Recording>>,
    pub(super) arenas: RefCell<Vec<WeightArena>>,
    /// Rotary tables by row length and head width; a network has one.
    pub(super) turns: RefCell<BTreeMap<(usize, usize), Rc<Allocation>>>,
    /// The last parameters of dropout: the same for all operations of a step.
    pub(super) random: RefCell<Option<([u32; 6], Rc<Buffer>)>>,
    /// Where losses are added up, an f64.
    pub(super) losses: Cell<Option<Address>>,
}

type BackwardStep = Box<dyn FnOnce(&Cuda, &mut Gradients) -> Result<()>>;

pub(super) struct Recording {
    tape: Vec<BackwardStep>,
    pub(super) gradients: Gradients,
}

/// The gradients of the weights: f32, an arena for each arena of weights, zeros where there is none yet.
#[derive(Default)]
pub struct Gradients {
    pub(super) arenas: BTreeMap<usize, Allocation>,
}

/// A weight.
pub struct Param<S> {
    pub(super) weight: Rc<Weight>,
    shape: PhantomData<S>,
}

/// An activation.
pub struct Act<S> {
    pub(super) matrix: Matrix,
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
pub(super) struct Matrix {
    pub(super) values: Rc<Buffer>,
    pub(super) element: DType,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) gradient: Slot,
    /// Whether it is an input, whose gradient no weight needs.
    pub(super) is_input: bool,
    /// Of the output of a GELU its input: a product that makes this one's gradient may make that one's at once.
    pub(super) inner: Option<Rc<Inner>>,
}

/// The input of a GELU.
pub(super) struct Inner {
    pub(super) values: Buffer,
    /// Whether the output's slot holds the input's gradient.
    pub(super) is_reached: Cell<bool>,
}

/// Where the gradient of an activation gathers.
pub(super) type Slot = Rc<RefCell<Option<Buffer>>>;

/// Tokens on the device.
#[derive(Clone)]
pub struct Tokens {
    pub(super) there: Rc<Buffer>,
    /// What they are, where the host knows: an embedding's gradient needs it.
    pub(super) known: Option<Rc<[u32]>>,
    pub(super) count: usize,
}

/// Floats as a device keeps them.
pub(super) fn narrowed(values: &[f32], element: DType) -> Vec<u8> {
    match element {
        DType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::Bf16 => values
            .iter()
            .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
            .collect(),
    }
}

/// Floats of what a device keeps.
pub(super) fn widened(bytes: &[u8], element: DType) -> Vec<f32> {
    match element {
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]))
            .collect(),
        DType::Bf16 => bytes
            .chunks_exact(2)
            .map(|x| half::bf16::from_le_bytes([x[0], x[1]]).to_f32())
            .collect(),
    }
}

impl Cuda {
    /// The backend on a device, its activations made of that element.
    #[must_use]
    pub fn new(driver: Box<dyn Driver>, element: DType) -> Self {
        Self {
            queue: Rc::new(Queue::new(driver)),
            element,
            tf32: false,
            recording: RefCell::default(),
            arenas: RefCell::default(),
            turns: RefCell::default(),
            random: RefCell::default(),
            losses: Cell::default(),
        }
    }

    /// The same, the factors of f32 products rounded to tf32.
    #[must_use]
    pub fn with_tf32(self) -> Self {
        Self { tf32: true, ..self }
    }

    /// What activations are made of.
    #[must_use]
    pub fn element(&self) -> DType {
        self.element
    }

    /// Has so much memory for activations taken at once.
    pub fn reserve_activations(&self, bytes: usize) {
        self.queue.reserve(bytes);
    }

    /// The device's memory that is taken.
    #[must_use]
    pub fn taken(&self) -> Taken {
        self.queue.taken()
    }

    /// The device.
    #[must_use]
    pub fn driver(&self) -> &dyn Driver {
        self.queue.driver()
    }

    /// Makes room for weights that together take `count` elements ([`room`] returns each one's): they will lie end to end.
    ///
    /// # Errors
    /// Out of memory.
    pub fn reserve(&self, count: usize) -> Result<()> {
        let arena = WeightArena::new(&self.queue, self.element, count)?;
        self.arenas.borrow_mut().push(arena);
        Ok(())
    }

    /// A place for a weight.
    fn place(&self, dims: &[usize]) -> Result<Weight> {
        let fits = |arenas: &mut Vec<WeightArena>| arenas.last_mut().and_then(|arena| arena.take(dims));
        let mut offset = fits(&mut self.arenas.borrow_mut());
        if offset.is_none() {
            self.reserve(room(dims))?;
            offset = fits(&mut self.arenas.borrow_mut());
        }
        let (arenas, offset) = (self.arenas.borrow(), offset.unwrap_or(0));
        let arena = arenas
            .last()
            .ok_or_else(|| Error::internal("no room for a weight"))?;
        let master = arena.master.at().offset(offset * DType::F32.bytes());
        let working = arena.working.as_ref();
        Ok(Weight {
            arena: arenas.len() - 1,
            offset,
            count: dims.iter().product(),
            master,
            working: working.map_or(master, |working| {
                working.at().offset(offset * self.element.bytes())
            }),
            queue: Rc::clone(&self.queue),
        })
    }

    /// Refuses what lies on another device, or belongs to another network's backend: its addresses mean nothing here.
    pub(super) fn check_own(&self, matrices: &[&Matrix], weights: &[&Weight]) -> Result<()> {
        let own = matrices.iter().all(|matrix| matrix.values.is_of(&self.queue))
            && weights
                .iter()
                .all(|weight| Rc::ptr_eq(&weight.queue, &self.queue));
        if own {
            return Ok(());
        }
        Err(Error::internal(
            "a tensor of another device takes part in an operation",
        ))
    }

    /// Gives a weight its values.
    fn fill(&self, weight: &Weight, values: &[f32]) -> Result<()> {
        if self.driver().is_planning() {
            return Ok(());
        }
        self.queue.write(weight.master, &narrowed(values, DType::F32))?;
        if self.element != DType::F32 {
            self.queue
                .write(weight.working, &narrowed(values, self.element))?;
        }
        Ok(())
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.borrow().is_some()
    }

    /// Puts an operation's gradient on the tape.
    pub(super) fn push(&self, step: impl FnOnce(&Cuda, &mut Gradients) -> Result<()> + 'static) {
        if let Some(recording) = &mut *self.recording.borrow_mut() {
            recording.tape.push(Box::new(step));
        }
    }

    pub(super) fn act<S>(matrix: Matrix) -> Act<S> {
        Act {
            matrix,
            shape: PhantomData,
        }
    }
}

impl Tensors for Cuda {
    type Param<S: ConstShape> = Param<S>;
    type Act<S: Shape> = Act<S>;
    type Tokens = Tokens;
    type Gradients = Gradients;

    fn param<S: ConstShape>(&self, values: &[f32]) -> Result<Param<S>> {
        if values.len() != S::NUMEL {
            return Err(Error::internal(format!(
                "{} values for {}",
                values.len(),
                S::NUMEL
            )));
        }
        let weight = self.place(S::default().concrete().as_ref())?;
        self.fill(&weight, values)?;
        Ok(Param {
            weight: Rc::new(weight),
            shape: PhantomData,
        })
    }

    fn read<S: ConstShape>(&self, param: &Param<S>, into: &mut [f32]) -> Result<()> {
        check_count(S::NUMEL, into.len())?;
        let bytes = self
            .queue
            .read(param.weight.master, S::NUMEL * DType::F32.bytes())?;
        into.copy_from_slice(&widened(&bytes, DType::F32));
        Ok(())
    }

    fn gradient<S: ConstShape>(
        &self,
        param: &Param<S>,
        gradients: &Gradients,
        into: &mut [f32],
    ) -> Result<()> {
        check_count(S::NUMEL, into.len())?;
        let Some(arena) = gradients.arenas.get(&param.weight.arena) else {
            into.fill(0.0);
            return Ok(());
        };
        let at = arena.at().offset(param.weight.offset * DType::F32.bytes());
        let bytes = self.queue.read(at, S::NUMEL * DType::F32.bytes())?;
        into.copy_from_slice(&widened(&bytes, DType::F32));
        Ok(())
    }

    fn record(&self, gradients: Gradients) {
        // Passed again for each recording, so that each finds the same feed.
        *self.random.borrow_mut() = None;
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
        let buffer = self.queue.upload(&narrowed(values, self.element));
        Ok(Self::act(Matrix {
            is_input: true,
            ..self.matrix(buffer, rows, columns)
        }))
    }

    fn values<S: Shape>(&self, x: &Act<S>) -> Result<Vec<f32>> {
        Ok(widened(&x.matrix.values.read()?, x.matrix.element))
    }

    fn tokens(&self, tokens: &[u32]) -> Result<Tokens> {
        Ok(Tokens {
            there: self.numbers(tokens),
            known: Some(tokens.into()),
            count: tokens.len(),
        })
    }
}
