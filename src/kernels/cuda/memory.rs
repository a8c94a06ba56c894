//! Memory of the device, taken from the driver once and used again: a buffer that is let go serves the next request of its
//! size. Work is in one stream, so a buffer may be used again while the work that read it is still queued.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::driver::{Address, Driver};
use crate::error::Result;

/// Sizes are rounded up to multiples of this, so that more requests meet a free buffer; what the device aligns to.
const STEP: usize = 512;

/// The device and its memory.
pub struct Pool {
    driver: Box<dyn Driver>,
    free: RefCell<BTreeMap<usize, Vec<Address>>>,
    taken: RefCell<Taken>,
}

/// Bytes of the device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// From the driver.
    pub reserved: usize,
    /// In buffers now.
    pub used: usize,
    /// In buffers at most.
    pub peak: usize,
}

impl Pool {
    /// All of the device's.
    #[must_use]
    pub fn new(driver: Box<dyn Driver>) -> Self {
        Self {
            driver,
            free: RefCell::default(),
            taken: RefCell::default(),
        }
    }

    /// The driver.
    #[must_use]
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// What is taken.
    #[must_use]
    pub fn taken(&self) -> Taken {
        *self.taken.borrow()
    }

    /// A buffer; what is in it is undefined.
    ///
    /// # Errors
    /// Out of memory.
    pub fn buffer(self: &Rc<Self>, bytes: usize) -> Result<Buffer> {
        let size = bytes.max(1).next_multiple_of(STEP);
        let known = self.free.borrow_mut().get_mut(&size).and_then(Vec::pop);
        let at = if let Some(at) = known {
            self.driver.idle(at, false);
            at
        } else {
            let at = self.reserve(size)?;
            self.taken.borrow_mut().reserved += size;
            at
        };
        let mut taken = self.taken.borrow_mut();
        taken.used += size;
        taken.peak = taken.peak.max(taken.used);
        Ok(Buffer {
            at,
            bytes,
            size,
            pool: Rc::clone(self),
        })
    }

    /// Memory from the driver; if there is no more, after giving back what lies idle.
    fn reserve(&self, size: usize) -> Result<Address> {
        match self.driver.allocate(size) {
            Ok(at) => Ok(at),
            Err(error) => {
                let idle = std::mem::take(&mut *self.free.borrow_mut());
                if idle.is_empty() {
                    return Err(error);
                }
                for (size, addresses) in idle {
                    self.taken.borrow_mut().reserved -= size * addresses.len();
                    for at in addresses {
                        self.driver.free(at, size);
                    }
                }
                self.driver.allocate(size)
            }
        }
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// Out of memory.
    pub fn zeros(self: &Rc<Self>, bytes: usize) -> Result<Buffer> {
        let buffer = self.buffer(bytes)?;
        self.driver.clear(buffer.at, bytes)?;
        Ok(buffer)
    }

    /// A buffer with this content.
    ///
    /// # Errors
    /// Out of memory.
    pub fn filled(self: &Rc<Self>, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.buffer(bytes.len())?;
        self.driver.write(buffer.at, bytes)?;
        Ok(buffer)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Buffers hold the pool: none is left.
        for (size, addresses) in std::mem::take(&mut *self.free.borrow_mut()) {
            for at in addresses {
                self.driver.free(at, size);
            }
        }
    }
}

/// Memory of the device, given back when it is dropped.
pub struct Buffer {
    at: Address,
    bytes: usize,
    size: usize,
    pool: Rc<Pool>,
}

impl Buffer {
    /// Where it begins.
    #[must_use]
    pub fn at(&self) -> Address {
        self.at
    }

    /// Its length in bytes, as asked for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies it to the host.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes];
        self.pool.driver.read(self.at, &mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.taken.borrow_mut().used -= self.size;
        self.pool.driver.idle(self.at, true);
        self.pool
            .free
            .borrow_mut()
            .entry(self.size)
            .or_default()
            .push(self.at);
    }
}
