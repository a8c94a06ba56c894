//! Samplers: from rows without tokens to rows of tokens.
//!
//! Each sampler is one file. A [`Sampler`] decides how a row starts, which of its positions to query at each step, and
//! which tokens to commit. The loop here is the same for all samplers and devices: it asks the sampler about every row,
//! lets the network's [`Chain`] draw, and passes reported draws back to the sampler. The tokens are in the chain, on the
//! device of the network. A device draws there and returns only reported draws.
//!
//! Every decision takes random numbers that are functions of (step, row, position): the sampler uses the even positions
//! of the stream, the draws of tokens the odd ones. So a row depends only on the seed and its index, never on other
//! rows.
//!
//! The network has no absolute positions (rotary embeddings are relative), so it cannot distinguish the positions of an
//! all-masked row. The tokens that every row has by construction, BOS at its start and EOS at the end of a wrapped row,
//! can be given ([`Sampling::given`]). The rest is then drawn from the same model, conditioned on tokens that are
//! certain.
//!
//! CONTRIBUTING.md lists the files that a new sampler takes.

pub mod ancestral;
pub mod autoregressive;
pub mod cached;
pub mod first_hitting;
mod wilson;

pub use wilson::{wilson, wilson_of_share};

use rayon::prelude::*;

use crate::data::SpecialIds;
use crate::diffusion::Objective;
use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::kernels::categorical::Draw;
use crate::kernels::{Pattern, VocabSupport};
use crate::manifest;
use crate::model::{Action, Chain, Network, Request};
use crate::rng::{Random, Stream};

/// Largest number of logits held at a time: 256 MiB of f32.
const LOGITS: usize = 1 << 26;

/// In the tokens that a sampler sees: drawn with [`Action::Commit`], which token stays with the network.
pub const UNSEEN: u32 = u32::MAX;

/// One of the steps of a sampler.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Which one, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
    random: Random,
}

impl Step {
    /// A number uniform on [0, 1) for the sampler's decision about a position of a row in this step.
    #[must_use]
    pub fn uniform(&self, row: usize, position: u32) -> f64 {
        self.random
            .uniform(u64::from(self.index), row as u64, 2 * position)
    }

    /// The number by which the position's token is drawn.
    fn uniform_of_token(&self, row: usize, position: u32) -> f64 {
        self.random
            .uniform(u64::from(self.index), row as u64, 2 * position + 1)
    }
}

/// The masked positions of a row, ascending.
pub fn masked(mask: u32, tokens: &[u32]) -> impl Iterator<Item = u32> {
    (0..)
        .zip(tokens)
        .filter(move |&(_, &token)| token == mask)
        .map(|(position, _)| position)
}

/// What a sampler asks about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The position in its row.
    pub position: u32,
    /// What is done with the network's answer.
    pub action: Action,
}

/// A sampler.
pub trait Sampler: Sync {
    /// A row of `length` tokens before the first step: what stands at positions that are not drawn yet, and the tokens that
    /// this sampler always begins with. [`Sampling::given`] replaces its ends.
    fn start(&self, length: usize) -> Vec<u32>;

    /// Steps for rows of `length` tokens, where a manifest asks for `steps`.
    fn steps(&self, steps: u32, _length: usize) -> u32 {
        steps
    }

    /// σ fed to the network in this step.
    fn sigma(&self, step: &Step) -> f64;

    /// Which positions of a row attend to which.
    fn pattern(&self) -> Pattern {
        Pattern::Full
    }

    /// The positions of a row that the network is asked about in this step, ascending, and what is done with the answers.
    /// Without any the network is not asked about the row. In `tokens` (L), those drawn with [`Action::Commit`] are
    /// [`UNSEEN`].
    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query>;

    /// What the step changes in a row, given the row's draws that were to be reported: positions and their new tokens, the
    /// mask among them. What is given ([`Sampling::given`]) stays. It is called once for each row and step, for rows in no
    /// particular order.
    fn commit(
        &mut self,
        _step: &Step,
        _row: usize,
        _tokens: &[u32],
        _draws: &[(u32, Draw)],
    ) -> Vec<(u32, u32)> {
        Vec::new()
    }

    /// Whether reported draws carry the two largest probabilities and the entropy.
    fn wants_confidence(&self) -> bool {
        false
    }
}

/// The sampler that a manifest names, for models of an objective with these settings. `special` are the tokens that rows
/// have by construction; `wrap` is whether they are joined texts rather than padded ones.
///
/// # Errors
/// [`Input`](crate::error::Kind::Input) where the sampler does not fit the objective.
pub fn build(
    sampler: manifest::Sampler,
    settings: &manifest::Objective,
    objective: &dyn Objective,
    special: SpecialIds,
    wrap: bool,
) -> Result<Box<dyn Sampler>> {
    settings.check_sampler(&sampler)?;
    let posterior = || {
        objective.posterior().ok_or_else(|| {
            let name = sampler.kind();
            Error::internal(format!(
                "sampler `{name}` takes reverse steps, but the objective has none"
            ))
        })
    };
    Ok(match sampler {
        manifest::Sampler::Autoregressive(_) => {
            let ending = autoregressive::Ending {
                eos: special.eos,
                pad: special.pad,
            };
            Box::new(autoregressive::Autoregressive {
                bos: special.bos,
                mask: special.mask,
                ending: (!wrap).then_some(ending),
            })
        }
        manifest::Sampler::Cached(settings) => Box::new(cached::Cached {
            grid: settings.grid,
            posterior: posterior()?,
        }),
        manifest::Sampler::Ancestral(settings) => Box::new(ancestral::Ancestral {
            grid: settings.grid,
            posterior: posterior()?,
        }),
        manifest::Sampler::FirstHitting(_) => Box::new(first_hitting::FirstHitting { mask: special.mask }),
    })
}

/// What to draw, and how.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// The first and the last token of every row, where they are given instead of drawn.
    pub given: [Option<u32>; 2],
    /// Rows.
    pub count: u32,
    /// Steps that are asked for ([`Sampler::steps`]).
    pub steps: u32,
    /// Divides the logits.
    pub temperature: f64,
    /// The model's tokens. The mask is never drawn, whether it is in the support or not.
    pub support: VocabSupport,
    /// Seed of the draws.
    pub seed: u64,
    /// Rows that go through the network at a time.
    pub micro_batch: usize,
}

/// Rows drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnRows {
    /// (count, L).
    pub tokens: Vec<u32>,
    /// How often the network was asked about each row (count).
    pub network_calls: Vec<u32>,
}

impl Sampling {
    /// Draws the rows. `progress` is called with the number of steps done.
    ///
    /// # Errors
    /// The network failed, its logits are not finite, or the run was cancelled; an internal error where the sampler commits
    /// a token outside the vocabulary or a position outside the row.
    pub fn run(
        &self,
        sampler: &mut dyn Sampler,
        network: &dyn Network,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u32),
    ) -> Result<DrawnRows> {
        let length = network.shape().length;
        let count = self.count as usize;
        let steps = sampler.steps(self.steps, length);
        let mut tokens = sampler.start(length).repeat(count);
        for row in tokens.chunks_exact_mut(length) {
            row[0] = self.given[0].unwrap_or(row[0]);
            row[length - 1] = self.given[1].unwrap_or(row[length - 1]);
        }
        let mut rows = SampledRows {
            chain: network.chain(&tokens)?,
            tokens,
            length,
            support: self.support,
            is_given: self.given.map(|token| token.is_some()),
            changed: Vec::new(),
        };
        let mut network_calls = vec![0; count];
        for index in 0..steps {
            let step = Step {
                index,
                count: steps,
                random: Random::new(self.seed, Stream::Sample),
            };
            let asked: Vec<Asked> = {
                let sampler = &*sampler;
                let rows = rows.tokens.par_chunks(length).enumerate();
                rows.map(|(row, tokens)| Asked {
                    row,
                    queries: sampler.query(&step, row, tokens),
                })
                .filter(|asked| !asked.queries.is_empty())
                .collect()
            };
            let mut next = asked.iter().map(|asked| asked.row).peekable();
            for row in (0..count).filter(|row| next.next_if_eq(row).is_none()) {
                let changes = sampler.commit(&step, row, rows.row(row), &[]);
                rows.change(row, &changes)?;
            }
            rows.write_changes()?;
            for group in self.groups(&asked, network.shape().vocabulary) {
                cancel.check()?;
                let mut draws = self.draw(&step, group, sampler, &mut rows)?.into_iter();
                for Asked { row, queries } in group {
                    network_calls[*row] += 1;
                    let reported = queries.iter().filter(|query| query.action == Action::Report);
                    let draws: Vec<_> = reported.map(|query| query.position).zip(&mut draws).collect();
                    let changes = sampler.commit(&step, *row, rows.row(*row), &draws);
                    rows.change(*row, &changes)?;
                }
                rows.write_changes()?;
            }
            progress(index + 1);
        }
        Ok(DrawnRows {
            tokens: rows.chain.tokens()?,
            network_calls,
        })
    }

    /// Cuts the rows into groups that go through the network together: no more rows than a micro-batch, and no more
    /// logits than [`LOGITS`] (but for a single row).
    fn groups<'a>(&self, mut asked: &'a [Asked], vocabulary: usize) -> Vec<&'a [Asked]> {
        let mut groups = Vec::new();
        while !asked.is_empty() {
            let mut positions = 0;
            let fitting = asked
                .iter()
                .take(self.micro_batch.max(1))
                .take_while(|row| {
                    positions += row.queries.len();
                    positions * vocabulary <= LOGITS
                })
                .count();
            let (group, rest) = asked.split_at(fitting.max(1));
            groups.push(group);
            asked = rest;
        }
        groups
    }

    /// Asks the network about a group of rows and draws their tokens. Returns the reported draws, in order.
    fn draw(
        &self,
        step: &Step,
        group: &[Asked],
        sampler: &dyn Sampler,
        rows: &mut SampledRows<'_>,
    ) -> Result<Vec<Draw>> {
        let length = rows.length;
        let (mut positions, mut actions, mut uniforms) = (Vec::new(), Vec::new(), Vec::new());
        for (i, asked) in group.iter().enumerate() {
            for &Query { position, action } in &asked.queries {
                positions.push((i * length) as u32 + position);
                actions.push(action);
                uniforms.push(match action {
                    Action::Evaluate => 0.0,
                    Action::Commit | Action::Report => step.uniform_of_token(asked.row, position),
                });
                if action == Action::Commit {
                    rows.tokens[asked.row * length + position as usize] = UNSEEN;
                }
            }
        }
        rows.chain.draw(&Request {
            rows: &group.iter().map(|asked| asked.row as u32).collect::<Vec<_>>(),
            positions: &positions,
            actions: &actions,
            uniforms: &uniforms,
            confidence: sampler.wants_confidence(),
            sigma: sampler.sigma(step) as f32,
            pattern: sampler.pattern(),
            temperature: self.temperature,
            support: VocabSupport {
                includes_mask: false,
                ..self.support
            },
        })
    }
}

/// A row about which the network is asked.
struct Asked {
    row: usize,
    queries: Vec<Query>,
}

/// The rows: in their chain, and as far as a sampler sees them.
struct SampledRows<'a> {
    chain: Box<dyn Chain + 'a>,
    /// (count, L), [`UNSEEN`] where only the chain has the token.
    tokens: Vec<u32>,
    length: usize,
    support: VocabSupport,
    /// Whether the first and the last token of a row are given.
    is_given: [bool; 2],
    /// Places whose tokens the chain does not have yet.
    changed: Vec<usize>,
}

impl SampledRows<'_> {
    fn row(&self, row: usize) -> &[u32] {
        &self.tokens[row * self.length..][..self.length]
    }

    /// Puts a sampler's tokens at positions of a row; the chain has them after [`SampledRows::write_changes`].
    fn change(&mut self, row: usize, changes: &[(u32, u32)]) -> Result<()> {
        let [first, last] = self.is_given;
        for &(position, token) in changes {
            let l = position as usize;
            if l >= self.length || (token >= self.support.size && token != self.support.mask) {
                return Err(Error::internal(format!(
                    "the sampler commits token {token} at position {position} of {}",
                    self.length
                )));
            }
            if (first && l == 0) || (last && l + 1 == self.length) {
                continue;
            }
            let place = row * self.length + l;
            self.tokens[place] = token;
            self.changed.push(place);
        }
        Ok(())
    }

    fn write_changes(&mut self) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let places = std::mem::take(&mut self.changed);
        // As they are now: a place that changed twice has one token.
        let tokens: Vec<u32> = places.iter().map(|&place| self.tokens[place]).collect();
        self.chain.write(&places, &tokens)
    }
}

#[cfg(test)]
mod tests;
