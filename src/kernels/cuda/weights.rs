//! Weights on a device: laid end to end in arenas, so that the norm of all gradients and the update are one pass each.
//!
//! An arena has f32 masters and, where the backend computes in another element, working copies in it; gradients, moments and
//! averages are arenas of the same layout. Each weight begins at a multiple of [`ALIGNMENT`] elements, and has as many rows
//! more, all zeros, as make its rows a multiple of [`ROWS`]: a product may then take whole tiles of it. What lies between
//! weights has no gradient, so that it stays zero.

use std::rc::Rc;

use super::driver::{Address, DType};
use super::queue::Queue;
use crate::error::Result;

/// Elements at whose multiples weights begin: 256 bytes of bf16.
const ALIGNMENT: usize = 128;
/// Rows of a weight come in multiples of this.
pub const ROWS: usize = 64;

/// Memory on the device, given back when it is dropped.
pub struct Allocation {
    at: Address,
    bytes: usize,
    queue: Rc<Queue>,
}

impl Allocation {
    /// What is in it is undefined.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(queue: &Rc<Queue>, bytes: usize) -> Result<Self> {
        Ok(Self {
            at: queue.keep(bytes)?,
            bytes,
            queue: Rc::clone(queue),
        })
    }

    /// With this content. Nothing that is queued knows of it, so nothing has to be done first.
    ///
    /// # Errors
    /// Out of memory, or the device failed.
    pub fn filled(queue: &Rc<Queue>, content: &[u8]) -> Result<Self> {
        let kept = Self::new(queue, content.len())?;
        queue.driver().write(kept.at, content)?;
        Ok(kept)
    }

    /// Where it begins.
    #[must_use]
    pub fn at(&self) -> Address {
        self.at
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.queue.drop_kept(self.at);
    }
}

/// Weights end to end.
pub struct WeightArena {
    /// f32.
    pub master: Allocation,
    /// In the backend's element, where that is another one.
    pub working: Option<Allocation>,
    /// Elements, the gaps counted in.
    pub count: usize,
    /// Elements that weights have so far.
    used: usize,
}

impl WeightArena {
    /// Zeros.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(queue: &Rc<Queue>, element: DType, count: usize) -> Result<Self> {
        let zeros = |bytes: usize| {
            let kept = Allocation::new(queue, bytes)?;
            queue.push(super::driver::Command::Clear { at: kept.at(), bytes });
            Ok(kept)
        };
        Ok(Self {
            master: zeros(count * DType::F32.bytes())?,
            working: match element {
                DType::F32 => None,
                DType::Bf16 => Some(zeros(count * element.bytes())?),
            },
            count,
            used: 0,
        })
    }

    /// The first element of a weight's place; nothing where there is no room.
    pub fn take(&mut self, dims: &[usize]) -> Option<usize> {
        let (at, end) = (self.used, self.used + room(dims));
        (end <= self.count).then(|| {
            self.used = end;
            at
        })
    }
}

/// Elements that a weight of these dimensions takes.
#[must_use]
pub fn room(dims: &[usize]) -> usize {
    let count = match dims {
        [rows, columns @ ..] if !columns.is_empty() => {
            rows.next_multiple_of(ROWS) * columns.iter().product::<usize>()
        }
        _ => dims.iter().product(),
    };
    count.next_multiple_of(ALIGNMENT)
}

/// A weight without its type.
pub struct Weight {
    /// Which arena it lies in.
    pub arena: usize,
    /// Its first element there.
    pub offset: usize,
    /// Its elements.
    pub count: usize,
    /// f32.
    pub master: Address,
    /// What products take.
    pub working: Address,
    /// The device.
    pub queue: Rc<Queue>,
}
