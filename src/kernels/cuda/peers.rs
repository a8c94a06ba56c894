//! Numbers that travel between devices through the memory of their hosts, over any [`Communicator`].

use std::ops::Range;

use super::driver::{Address, DType, Driver};
use super::{narrowed, widened};
use crate::error::Result;
use crate::ranks::{Communicator, Cut};

/// [`Driver::exchange`] through the host.
///
/// # Errors
/// The device or the exchange failed.
pub fn exchange(
    driver: &dyn Driver,
    ranks: &dyn Communicator,
    own: Address,
    runs: &[Range<usize>],
    received: Address,
) -> Result<()> {
    let rank = ranks.rank();
    // The runs alone, one after the other.
    let mut sent = Vec::with_capacity(runs.iter().map(Range::len).sum());
    let mut places = Vec::with_capacity(runs.len());
    for run in runs {
        let mut bytes = vec![0; run.len() * DType::F32.bytes()];
        driver.read(own.offset(run.start * DType::F32.bytes()), &mut bytes)?;
        places.push(sent.len()..sent.len() + run.len());
        sent.extend(widened(&bytes, DType::F32));
    }
    let mut all = vec![0.0; runs[rank.rank as usize].len() * rank.world as usize];
    ranks.exchange(&sent, &places, &mut all)?;
    driver.write(received, &narrowed(&all, DType::F32))
}

/// [`Driver::gather`] through the host. Words are copied as f32, which changes no bit of them.
///
/// # Errors
/// The device or the exchange failed.
pub fn gather(driver: &dyn Driver, ranks: &dyn Communicator, at: Address, cut: &Cut) -> Result<()> {
    let own = cut.of(ranks.rank());
    let mut bytes = vec![0; own.len() * DType::F32.bytes()];
    driver.read(at.offset(own.start * DType::F32.bytes()), &mut bytes)?;
    let mut all = vec![0.0; cut.length()];
    all[own.clone()].copy_from_slice(&widened(&bytes, DType::F32));
    ranks.gather(&mut all, cut)?;
    for rest in [0..own.start, own.end..cut.length()] {
        let to = at.offset(rest.start * DType::F32.bytes());
        driver.write(to, &narrowed(&all[rest], DType::F32))?;
    }
    Ok(())
}
