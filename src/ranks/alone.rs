//! A training of one process.

use std::ops::Range;

use super::{Communicator, Cut, Rank};
use crate::error::Result;

/// The only rank: what it sends to all, it has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> Rank {
        Rank::ALONE
    }

    fn local(&self) -> u32 {
        0
    }

    fn exchange(&self, own: &[f32], runs: &[Range<usize>], received: &mut [f32]) -> Result<()> {
        for run in runs {
            received.copy_from_slice(&own[run.clone()]);
        }
        Ok(())
    }

    fn gather(&self, _: &mut [f32], _: &Cut) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, own: &[f64], _: &[usize]) -> Result<Vec<f64>> {
        Ok(own.to_vec())
    }

    fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn abandon(&self, _: &str, _: u8) {}

    fn described(&self) -> String {
        "one process".to_owned()
    }
}
