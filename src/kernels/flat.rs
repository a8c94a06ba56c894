//! Weights and gradients of the CPU's backends: each one vector, in the order in which the weights were made, so that a norm,
//! an update, a sum over ranks and an export are one loop over it. A weight is a range of both.

use std::cell::{Ref, RefCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

use dfdx::shapes::ConstShape;

use super::seam;
use crate::error::{Error, Result};

/// The weights of one backend, end to end.
#[derive(Clone, Default)]
pub struct Weights(Rc<RefCell<Vec<f32>>>);

impl Weights {
    /// Appends a weight with these values, row-major.
    ///
    /// # Errors
    /// The values are not as many as the shape has elements, or memory runs out.
    pub fn push<S: ConstShape>(&self, values: &[f32]) -> Result<Weight<S>> {
        if values.len() != S::NUMEL {
            return Err(Error::internal(format!(
                "{} values for shape {:?}",
                values.len(),
                S::default()
            )));
        }
        let mut all = self.0.borrow_mut();
        let start = all.len();
        all.try_reserve(values.len())
            .map_err(|_| out_of_memory(start + values.len()))?;
        all.extend_from_slice(values);
        Ok(Weight {
            all: self.clone(),
            start,
            shape: PhantomData,
        })
    }

    /// Reserves that many more elements, so that existing ones do not move when they are added.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn reserve(&self, count: usize) -> Result<()> {
        let mut all = self.0.borrow_mut();
        let room = all.try_reserve_exact(count);
        room.map_err(|_| out_of_memory(all.len() + count))
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// All weights for writing. Values that a weight lends must have been given back.
    pub fn with<R>(&self, f: impl FnOnce(&mut [f32]) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}

fn out_of_memory(count: usize) -> Error {
    Error::environment(format!(
        "allocate {} MiB of memory for weights",
        (count >> 20) * size_of::<f32>()
    ))
    .hint("choose a smaller shape")
}

/// A weight: its place among its backend's weights.
pub struct Weight<S> {
    all: Weights,
    start: usize,
    shape: PhantomData<S>,
}

impl<S> Clone for Weight<S> {
    fn clone(&self) -> Self {
        Self {
            all: self.all.clone(),
            start: self.start,
            shape: PhantomData,
        }
    }
}

impl<S: ConstShape> Weight<S> {
    /// Its elements, row-major.
    #[must_use]
    pub fn values(&self) -> Ref<'_, [f32]> {
        Ref::map(self.all.0.borrow(), |all| &all[self.range()])
    }

    /// Where it lies among the weights, and its gradient among the gradients.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + S::NUMEL
    }
}

/// The gradients of the weights, accumulated over micro-batches; empty before the first one.
#[derive(Debug, Default)]
pub struct Gradients(Vec<f32>);

impl Gradients {
    /// Makes room for the gradients of `count` elements: zeros where there were none.
    ///
    /// # Errors
    /// Memory runs out.
    pub fn reach(&mut self, count: usize) -> Result<()> {
        if self.0.is_empty() {
            // Fresh pages, which are zeroed when they are first touched.
            self.0 = seam::zeros(count)?;
        } else if self.0.len() < count {
            self.0.resize(count, 0.0);
        }
        Ok(())
    }

    /// All of them.
    pub fn all(&mut self) -> &mut [f32] {
        &mut self.0
    }

    /// The gradient of a weight; absent where there is none yet.
    #[must_use]
    pub fn get<S: ConstShape>(&self, weight: &Weight<S>) -> Option<&[f32]> {
        self.0.get(weight.range())
    }

    /// The gradient of a weight.
    pub fn of<S: ConstShape>(&mut self, weight: &Weight<S>) -> &mut [f32] {
        let range = weight.range();
        // Made after the recording had begun.
        if self.0.len() < range.end {
            self.0.resize(range.end, 0.0);
        }
        &mut self.0[range]
    }

    /// The gradients of two weights.
    ///
    /// # Errors
    /// Both are the same weight.
    pub fn of_both<S: ConstShape, T: ConstShape>(
        &mut self,
        first: &Weight<S>,
        second: &Weight<T>,
    ) -> Result<[&mut [f32]; 2]> {
        let ranges = [first.range(), second.range()];
        let end = ranges[0].end.max(ranges[1].end);
        if self.0.len() < end {
            self.0.resize(end, 0.0);
        }
        self.0
            .get_disjoint_mut(ranges)
            .map_err(|_| Error::internal("one weight in two places of an operation"))
    }
}
