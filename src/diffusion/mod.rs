//! The mathematics of masked diffusion: noise schedules and objectives, without input or output and without a
//! network.
//!
//! - [`Schedule`]: how likely a token is masked at time t.
//! - [`Objective`]: what training asks of a network about a row: which tokens it sees, at which positions it must
//!   answer, and what each answer's negative log-likelihood weighs.
//! - [`Mdlm`]: the objective of arXiv 2406.07524, its two estimators of the bound and its reverse step.
//!
//! Shape letters: B rows of the global batch, L tokens a row, n positions that need an answer.

mod mdlm;
mod schedule;

pub use mdlm::{Draw, Level, Mdlm, shift, spread};
#[cfg(test)]
pub(crate) use schedule::EVERY_SCHEDULE;
pub use schedule::Schedule;

/// Where a training row stands: every random number about it is a function of this and the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Optimizer step, from 0.
    pub step: u64,
    /// Rows trained on before this one, over all steps: step · batch + index.
    pub row: u64,
    /// Position within the global batch.
    pub index: u32,
    /// B: rows of the global batch.
    pub batch: u32,
}

/// What training asks of a network.
pub trait Objective {
    /// Draws the noise of the row `x` (L tokens, of which the first `counted` count in the loss) and appends to
    /// `into` what the network is to see and to answer.
    fn noise(&self, place: Place, x: &[u32], counted: usize, into: &mut Noised);
}

/// Rows under noise, laid out as the network takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Noised {
    /// `x_t`, row-major (rows, L).
    pub tokens: Vec<u32>,
    /// σ fed to the network: one value for all rows where time conditioning is off (0, as the authors do), else one
    /// per row.
    pub sigma: Vec<f32>,
    /// Flat positions in `tokens` whose answer is wanted, ascending (n).
    pub positions: Vec<u32>,
    /// The true token at each of `positions` (n).
    pub targets: Vec<u32>,
    /// Weight of each position's negative log-likelihood (n).
    pub weights: Vec<f32>,
    /// End of each row's entries in `positions` (rows).
    pub ends: Vec<usize>,
}

impl Noised {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.sigma.clear();
        self.positions.clear();
        self.targets.clear();
        self.weights.clear();
        self.ends.clear();
    }

    /// Rows held.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// Each row's span of `positions`, in order.
    pub fn spans(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| start..end)
    }

    /// Appends a row whose positions with `masked(l)` show the token `mask`. Those below `counted` are to be answered,
    /// with that weight; `sigma` is the row's noise level where the network is to be told.
    pub fn push_masked(
        &mut self,
        x: &[u32],
        counted: usize,
        mask: u32,
        weight: f64,
        sigma: Option<f64>,
        mut masked: impl FnMut(usize) -> bool,
    ) {
        let start = self.tokens.len() as u32;
        for (l, &token) in x.iter().enumerate() {
            let hidden = masked(l);
            self.tokens.push(if hidden { mask } else { token });
            if hidden && l < counted {
                self.positions.push(start + l as u32);
                self.targets.push(token);
                self.weights.push(weight as f32);
            }
        }
        match sigma {
            Some(sigma) => self.sigma.push(sigma as f32),
            None if self.sigma.is_empty() => self.sigma.push(0.0),
            None => {}
        }
        self.ends.push(self.positions.len());
    }
}
