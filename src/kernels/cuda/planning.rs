//! A driver that does nothing: what a step would need of a device's memory is known once its commands are queued.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use super::driver::{Address, Capacity, Command, Driver, Epilogue, Product, Ticket};
use crate::error::{Error, Result};
use crate::ranks::{Communicator, Cut};

/// Where made-up memory begins.
const BASE: u64 = 1 << 40;

/// A device without bounds that is never asked anything.
#[derive(Default)]
pub struct Planning {
    taken: Cell<u64>,
}

impl Driver for Planning {
    fn allocate(&self, bytes: usize) -> Result<Address> {
        let at = BASE + self.taken.get();
        self.taken.set(self.taken.get() + bytes as u64);
        Ok(Address(at))
    }

    fn free(&self, _: Address, _: usize) {}

    fn grow(&self, _: Address, _: usize, _: usize, to: usize) -> Result<Address> {
        self.allocate(to)
    }

    fn write(&self, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: Address, _: &mut [u8]) -> Result<()> {
        Err(Error::internal("a result of what was only planned"))
    }

    fn fetch(&self, _: Address, _: usize) -> Result<Ticket> {
        Err(Error::internal("a result of what was only planned"))
    }

    fn collect(&self, _: Ticket) -> Result<Vec<u8>> {
        Err(Error::internal("a result of what was only planned"))
    }

    fn run(&self, _: Vec<Command>, _: bool) -> Result<()> {
        Ok(())
    }

    fn join(&self, _: &Arc<dyn Communicator>) -> Result<()> {
        Ok(())
    }

    fn exchange(&self, _: Address, _: &[Range<usize>], _: Address) -> Result<()> {
        Ok(())
    }

    fn gather(&self, _: Address, _: &Cut) -> Result<()> {
        Ok(())
    }

    /// As for a device that takes the more memory for it: sums that no product makes have partial ones.
    fn fuses(&self, product: &Product) -> bool {
        !matches!(product.epilogue, Epilogue::RowSums(_))
    }

    fn is_planning(&self) -> bool {
        true
    }

    fn capacity(&self) -> Result<Capacity> {
        let all = usize::MAX;
        Ok(Capacity {
            free: all,
            total: all,
        })
    }
}
