//! The loop of a sampler: asks it about every row in each step, lets the network's chain draw, and changes the rows.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{Query, Sampler, Step, UNSEEN};
use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::kernels::VocabSupport;
use crate::kernels::categorical::{Draw, Truncation};
use crate::model::{Action, Chain, Guidance, LogitEdits, Network, RepetitionPenalty, Request};
use crate::rng::{Random, Stream};

/// Largest number of logits held at a time: 256 MiB of f32.
const LOGITS: usize = 1 << 26;

/// What to draw, and how.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// The first and the last token of every row, where they are given instead of drawn.
    pub ends: [Option<u32>; 2],
    /// Tokens that are given instead of drawn, row-major (n, L), [`UNSEEN`] where a token is drawn; n divides `count`, and each of
    /// the n rows is given to `count` / n rows that follow each other. Empty: none.
    pub given: &'a [u32],
    /// Rows.
    pub count: u32,
    /// Steps that are asked for ([`Sampler::steps`]).
    pub steps: u32,
    /// Divides the logits; 0 draws the likeliest token.
    pub temperature: f64,
    /// Which tokens may be drawn.
    pub truncation: Truncation,
    /// Tokens that are never drawn.
    pub banned: &'a [u32],
    /// θ of the repetition penalty ([`RepetitionPenalty`]); 1 for none.
    pub repetition_penalty: f64,
    /// w of guidance by the given tokens ([`Guidance`]); 0 for none.
    pub guidance: f64,
    /// The model's tokens. The mask is never drawn, whether it is in the support or not.
    pub support: VocabSupport,
    /// Tokens that every row has by construction: the repetition penalty does not count them.
    pub structural: &'a [u32],
    /// Seed of the draws.
    pub seed: u64,
    /// Steps of earlier windows of the same rows, whose random numbers are not used again.
    pub first_step: u64,
    /// Rows that go through the network at a time.
    pub micro_batch: usize,
    /// Of how many rows, the first ones, the steps are recorded ([`DrawnRows::unmasked`]).
    pub recorded: usize,
}

/// Rows drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnRows {
    /// (count, L).
    pub tokens: Vec<u32>,
    /// How often the network was asked about each row (count). With guidance a question is two network calls.
    pub network_calls: Vec<u32>,
    /// When each token of the recorded rows was drawn, row-major (recorded, L); nothing where it was given.
    pub unmasked: Vec<Option<Unmasked>>,
}

/// When a token was drawn: of one that was masked again, the last time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unmasked {
    /// The step.
    pub step: u32,
    /// The probability that the model gave it; nothing for a token that the sampler put there without a draw.
    pub probability: Option<f64>,
}

/// What a run passes on after a step.
#[derive(Clone, Copy, Debug)]
pub struct StepDone<'a> {
    /// Steps done.
    pub steps: u32,
    /// The rows as a sampler sees them, (count, L): [`UNSEEN`] where only the device has the token.
    pub tokens: &'a [u32],
}

impl Sampling<'_> {
    /// Rows of the model's own distribution, with nothing given, 16 through the network at a time.
    #[must_use]
    pub fn new(count: u32, steps: u32, support: VocabSupport, seed: u64) -> Self {
        Self {
            ends: [None; 2],
            given: &[],
            count,
            steps,
            temperature: 1.0,
            truncation: Truncation::NONE,
            banned: &[],
            repetition_penalty: 1.0,
            guidance: 0.0,
            support,
            structural: &[],
            seed,
            first_step: 0,
            micro_batch: 16,
            recorded: 0,
        }
    }

    /// Draws the rows. `progress` is called after each step.
    ///
    /// # Errors
    /// The network failed, its logits are not finite, or the run was cancelled; an internal error where the sampler commits
    /// a token outside the vocabulary or a position outside the row.
    pub fn run(
        &self,
        sampler: &mut dyn Sampler,
        network: &dyn Network,
        cancel: &Cancel,
        progress: &mut dyn FnMut(StepDone<'_>),
    ) -> Result<DrawnRows> {
        let length = network.shape().length;
        let count = self.count as usize;
        let steps = sampler.steps(self.steps, length);
        let start = sampler.start(length);
        let given = self.given_rows(length)?;
        let mut tokens = Vec::with_capacity(count * length);
        for row in 0..count {
            let given = given.row(row);
            tokens.extend((0..length).map(|l| given.token(l).unwrap_or(start[l])));
        }
        sampler.begin(&tokens, length);
        let recorded = self.recorded.min(count);
        let mut rows = SampledRows {
            chain: network.chain(&tokens)?,
            tokens,
            length,
            support: self.support,
            given,
            changed: Vec::new(),
            unmasked: vec![None; recorded * length],
        };
        let mut network_calls = vec![0; count];
        for index in 0..steps {
            let step = Step {
                index,
                count: steps,
                number: self.first_step + u64::from(index),
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
                rows.change(row, index, &changes, &[])?;
            }
            rows.write_changes()?;
            for group in self.groups(&asked, network.shape().vocabulary) {
                cancel.check()?;
                let mut draws = self.draw(&step, group, sampler, &mut rows)?.into_iter();
                for Asked { row, queries } in group {
                    network_calls[*row] += 1 + u32::from(self.guidance != 0.0);
                    let (mut committed, mut reported) = (Vec::new(), Vec::new());
                    for &Query { position, action } in queries {
                        match action {
                            Action::Report => reported.extend(draws.next().map(|draw| (position, draw))),
                            Action::Commit if self.is_seen(*row) => {
                                committed.extend(draws.next().map(|draw| (position, draw)));
                            }
                            Action::Commit | Action::Evaluate => {}
                        }
                    }
                    let tokens: Vec<_> = committed.iter().map(|(l, draw)| (*l, draw.token)).collect();
                    rows.change(*row, index, &tokens, &committed)?;
                    let changes = sampler.commit(&step, *row, rows.row(*row), &reported);
                    rows.change(*row, index, &changes, &reported)?;
                }
                rows.write_changes()?;
            }
            progress(StepDone {
                steps: index + 1,
                tokens: &rows.tokens,
            });
        }
        Ok(DrawnRows {
            tokens: rows.chain.tokens()?,
            network_calls,
            unmasked: rows.unmasked,
        })
    }

    /// The tokens that are given, with the ends of rows among them.
    fn given_rows(&self, length: usize) -> Result<GivenRows> {
        let [first, last] = self.ends;
        let mut tokens = if self.given.is_empty() {
            vec![UNSEEN; length]
        } else {
            self.given.to_vec()
        };
        let distinct = tokens.len() / length;
        if !tokens.len().is_multiple_of(length) || !(self.count as usize).is_multiple_of(distinct) {
            return Err(Error::internal(format!(
                "{} given tokens for {} rows of {length}",
                tokens.len(),
                self.count
            )));
        }
        for row in tokens.chunks_exact_mut(length) {
            for (place, end) in [(0, first), (length - 1, last)] {
                // What is given is not replaced.
                if row[place] == UNSEEN {
                    row[place] = end.unwrap_or(UNSEEN);
                }
            }
        }
        Ok(GivenRows {
            each: self.count as usize / distinct,
            tokens,
            length,
        })
    }

    /// Whether the host has to see the tokens that a row's positions take: for what depends on them, or to record them.
    fn is_seen(&self, row: usize) -> bool {
        row < self.recorded || self.repetition_penalty != 1.0 || self.guidance != 0.0
    }

    /// Cuts the rows into groups that go through the network together: no more rows than a micro-batch, and no more
    /// logits than [`LOGITS`] (but for a single row).
    fn groups<'r>(&self, mut asked: &'r [Asked], vocabulary: usize) -> Vec<&'r [Asked]> {
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
                let is_seen = self.is_seen(asked.row);
                positions.push((i * length) as u32 + position);
                uniforms.push(match action {
                    Action::Evaluate => 0.0,
                    Action::Commit | Action::Report => step.uniform_of_token(asked.row, position),
                });
                actions.push(match action {
                    Action::Commit if is_seen => Action::Report,
                    action => action,
                });
                if action == Action::Commit && !is_seen {
                    rows.tokens[asked.row * length + position as usize] = UNSEEN;
                }
            }
        }
        let (mut seen, mut unguided) = (Vec::new(), Vec::new());
        for asked in group {
            let row = rows.row(asked.row);
            if self.repetition_penalty != 1.0 {
                let tokens: BTreeSet<u32> =
                    row.iter().copied().filter(|&token| self.is_word(token)).collect();
                seen.push(tokens.into_iter().collect());
            }
            if self.guidance != 0.0 {
                let given = rows.given.row(asked.row);
                let masked = |l| given.token(l).map_or(row[l], |_| self.support.mask);
                unguided.extend((0..length).map(masked));
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
            edits: LogitEdits {
                truncation: self.truncation,
                banned: self.banned,
                repetition: (self.repetition_penalty != 1.0).then_some(RepetitionPenalty {
                    factor: self.repetition_penalty,
                    tokens: &seen,
                }),
                guidance: (self.guidance != 0.0).then_some(Guidance {
                    scale: self.guidance,
                    tokens: &unguided,
                }),
            },
        })
    }

    /// Whether the repetition penalty counts a token: not those that end, begin or fill every row.
    fn is_word(&self, token: u32) -> bool {
        token < self.support.size && token != self.support.mask && !self.structural.contains(&token)
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
    /// What is given.
    given: GivenRows,
    /// Places whose tokens the chain does not have yet.
    changed: Vec<usize>,
    /// (recorded, L).
    unmasked: Vec<Option<Unmasked>>,
}

/// The tokens that are given to rows.
struct GivenRows {
    /// (n, L), [`UNSEEN`] where a token is drawn.
    tokens: Vec<u32>,
    /// Rows of each of the n.
    each: usize,
    length: usize,
}

/// What is given to a row (L).
#[derive(Clone, Copy)]
struct GivenRow<'a>(&'a [u32]);

impl GivenRows {
    fn row(&self, row: usize) -> GivenRow<'_> {
        GivenRow(&self.tokens[row / self.each * self.length..][..self.length])
    }
}

impl GivenRow<'_> {
    fn token(self, l: usize) -> Option<u32> {
        Some(self.0[l]).filter(|&token| token != UNSEEN)
    }
}

impl SampledRows<'_> {
    fn row(&self, row: usize) -> &[u32] {
        &self.tokens[row * self.length..][..self.length]
    }

    /// Puts tokens at positions of a row in a step; the chain has them after [`SampledRows::write_changes`]. `draws` are those
    /// that the tokens come from.
    fn change(&mut self, row: usize, step: u32, changes: &[(u32, u32)], draws: &[(u32, Draw)]) -> Result<()> {
        for &(position, token) in changes {
            let l = position as usize;
            if l >= self.length || (token >= self.support.size && token != self.support.mask) {
                return Err(Error::internal(format!(
                    "the sampler commits token {token} at position {position} of {}",
                    self.length
                )));
            }
            if self.given.row(row).token(l).is_some() {
                continue;
            }
            let place = row * self.length + l;
            self.tokens[place] = token;
            self.changed.push(place);
            if let Some(unmasked) = self.unmasked.get_mut(place) {
                let is_drawn = |(at, draw): &&(u32, Draw)| *at == position && draw.token == token;
                let probability = draws
                    .iter()
                    .find(is_drawn)
                    .map(|(_, draw)| draw.log_probability.exp());
                *unmasked = (token != self.support.mask).then_some(Unmasked { step, probability });
            }
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
