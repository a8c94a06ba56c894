//! Chains: rows of tokens that a sampler changes step by step. They lie where the network computes, and tokens are drawn
//! there; back comes only what is asked for.

use rayon::prelude::*;

use super::Network;
use crate::error::{Error, Result};
use crate::kernels::categorical::{Draw, Truncation, cpu};
use crate::kernels::profile;
use crate::kernels::{Operation, Pattern, VocabSupport};

/// What is done with the network's answer at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the network is asked, no token is drawn.
    Evaluate,
    /// A token is drawn and takes the position.
    Commit,
    /// A token is drawn and reported with its numbers; the position stays as it is.
    Report,
}

/// What changes the logits before a draw, and which tokens may be drawn. A device computes draws without any of it; with
/// some, its logits come to the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitEdits<'a> {
    /// Which tokens of the support may be drawn.
    pub truncation: Truncation,
    /// Tokens that are never drawn.
    pub banned: &'a [u32],
    /// What makes tokens of the row less likely.
    pub repetition: Option<RepetitionPenalty<'a>>,
    /// A second answer that the first is extrapolated from.
    pub guidance: Option<Guidance<'a>>,
}

/// The repetition penalty of CTRL (arXiv 1909.05858, section 4.1): the logit l of a token that stands in the row already
/// becomes l / θ if it is positive, else l θ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RepetitionPenalty<'a> {
    /// θ, above 0; 1 changes nothing.
    pub factor: f64,
    /// Of each row asked about its tokens, in any order, each once.
    pub tokens: &'a [Vec<u32>],
}

/// Classifier-free guidance by a masked prompt (arXiv 2410.18514): logits u + (1 + w) (l − u), where l are those of the row
/// and u those of the row with its prompt masked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance<'a> {
    /// w; 0 changes nothing.
    pub scale: f64,
    /// The rows asked about with their prompts masked, row-major (rows, L).
    pub tokens: &'a [u32],
}

impl LogitEdits<'_> {
    /// No change.
    pub const NONE: Self = Self {
        truncation: Truncation::NONE,
        banned: &[],
        repetition: None,
        guidance: None,
    };

    /// Changes the logits (V) of a position of the `row`-th row asked about.
    fn apply(&self, logits: &mut [f32], row: usize) {
        if let Some(RepetitionPenalty { factor, tokens }) = self.repetition {
            for &token in &tokens[row] {
                if let Some(logit) = logits.get_mut(token as usize) {
                    let wide = f64::from(*logit);
                    *logit = if wide > 0.0 { wide / factor } else { wide * factor } as f32;
                }
            }
        }
        for &token in self.banned {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// What a sampler asks of the network about some rows of a chain, in one step.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The rows of the chain, ascending.
    pub rows: &'a [u32],
    /// Positions asked about, flat in the rows asked about, ascending (n).
    pub positions: &'a [u32],
    /// What is done at each of them (n).
    pub actions: &'a [Action],
    /// For each of them a number on [0, 1) by which its token is drawn (n).
    pub uniforms: &'a [f64],
    /// Whether reported draws carry the two largest probabilities and the entropy.
    pub confidence: bool,
    /// σ fed to the network.
    pub sigma: f32,
    /// Which positions attend to which.
    pub pattern: Pattern,
    /// Divides the logits; 0 draws the likeliest token.
    pub temperature: f64,
    /// The tokens to draw from.
    pub support: VocabSupport,
    /// What changes the logits, and which tokens may be drawn.
    pub edits: LogitEdits<'a>,
}

impl Request<'_> {
    /// Refuses lists of different lengths.
    pub(super) fn check(&self) -> Result<()> {
        let count = self.positions.len();
        if [self.actions.len(), self.uniforms.len()] == [count; 2] && !(count > 0 && self.rows.is_empty()) {
            return Ok(());
        }
        Err(Error::internal(format!(
            "{} actions and {} numbers for {count} positions of {} rows",
            self.actions.len(),
            self.uniforms.len(),
            self.rows.len()
        )))
    }

    /// Whether draws need logits on the host: a device draws from its own at a temperature above 0 alone.
    pub(super) fn needs_logits(&self) -> bool {
        self.temperature == 0.0 || self.edits != LogitEdits::NONE
    }

    /// The draws of the positions, in order, from the logits (n, V) of the network, which answers also about what guidance
    /// compares them with.
    pub(super) fn draws<N: Network + ?Sized>(
        &self,
        network: &N,
        mut logits: Vec<f32>,
    ) -> Result<Vec<Option<Draw>>> {
        let (length, vocabulary) = (network.shape().length, network.shape().vocabulary);
        if let Some(Guidance { scale, tokens }) = self.edits.guidance {
            let unguided = network.logits(tokens, &[self.sigma], self.positions, self.pattern)?;
            logits
                .par_iter_mut()
                .zip(&unguided)
                .for_each(|(logit, unguided)| {
                    let unguided = f64::from(*unguided);
                    *logit = (unguided + (1.0 + scale) * (f64::from(*logit) - unguided)) as f32;
                });
        }
        let _timer = profile::forward(Operation::Categorical);
        let draws = self
            .actions
            .par_iter()
            .zip(self.uniforms)
            .zip(self.positions)
            .zip(logits.par_chunks_mut(vocabulary));
        draws
            .map_init(Vec::new, |scratch, (((&action, &u), &position), logits)| {
                let confidence = match action {
                    Action::Evaluate => return Ok(None),
                    Action::Commit => false,
                    Action::Report => self.confidence,
                };
                self.edits.apply(logits, position as usize / length);
                let (temperature, truncation) = (self.temperature, self.edits.truncation);
                cpu::draw_truncated(
                    logits,
                    self.support,
                    temperature,
                    truncation,
                    u,
                    confidence,
                    scratch,
                )
                .map(Some)
            })
            .collect()
    }

    /// The place in the chain of a position, in rows of `length` tokens.
    pub(super) fn place(&self, position: u32, length: usize) -> usize {
        let position = position as usize;
        self.rows[position / length] as usize * length + position % length
    }
}

/// Rows of tokens where the network computes. On a device, commands are queued: only reports and [`Chain::tokens`] wait.
///
/// # Errors
/// Every method fails when the device does, or on places beyond the chain's.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Chain {
    /// Asks the network about rows as they are, and draws tokens. Returns the draws of the positions with
    /// [`Action::Report`], in order. A draw whose logits are not finite is an error here or in [`Chain::tokens`].
    fn draw(&mut self, request: &Request<'_>) -> Result<Vec<Draw>>;

    /// Writes tokens to places of the chain, flat in all of its rows.
    fn write(&mut self, places: &[usize], tokens: &[u32]) -> Result<()>;

    /// All tokens.
    fn tokens(&self) -> Result<Vec<u32>>;
}

/// A chain in the host's memory, beside any network.
pub(super) struct HostChain<'a, N: ?Sized> {
    network: &'a N,
    tokens: Vec<u32>,
}

impl<'a, N: Network + ?Sized> HostChain<'a, N> {
    /// These tokens.
    pub(super) fn new(network: &'a N, tokens: &[u32]) -> Self {
        Self {
            network,
            tokens: tokens.to_vec(),
        }
    }
}

impl<N: Network + ?Sized> HostChain<'_, N> {
    /// The token at a place of the chain.
    pub(super) fn token(&self, place: usize) -> Result<u32> {
        let token = self.tokens.get(place).copied();
        token.ok_or_else(|| Error::internal("a place beyond the chain's last"))
    }

    /// Logits (n, V) at the request's positions, from its rows as they are.
    pub(super) fn logits(&self, request: &Request<'_>) -> Result<Vec<f32>> {
        let length = self.network.shape().length;
        let mut tokens = Vec::with_capacity(request.rows.len() * length);
        for &row in request.rows {
            let row = row as usize * length;
            let row = self.tokens.get(row..row + length);
            tokens.extend_from_slice(row.ok_or_else(|| Error::internal("a row beyond the chain's last"))?);
        }
        self.network
            .logits(&tokens, &[request.sigma], request.positions, request.pattern)
    }

    /// Draws the request's tokens from logits (n, V) and commits them.
    pub(super) fn take(&mut self, request: &Request<'_>, logits: Vec<f32>) -> Result<Taken> {
        let length = self.network.shape().length;
        let draws = request.draws(self.network, logits)?;
        let mut taken = Taken::default();
        for ((&position, action), draw) in request.positions.iter().zip(request.actions).zip(draws) {
            match (action, draw) {
                (Action::Commit, Some(draw)) => {
                    let place = request.place(position, length);
                    self.tokens[place] = draw.token;
                    taken.committed.push(place);
                }
                (Action::Report, Some(draw)) => taken.reported.push(draw),
                _ => {}
            }
        }
        Ok(taken)
    }
}

/// What came of a request.
#[derive(Default)]
pub(super) struct Taken {
    /// The draws to report, in the order of their positions.
    pub reported: Vec<Draw>,
    /// The places that have a new token.
    pub committed: Vec<usize>,
}

impl<N: Network + ?Sized> Chain for HostChain<'_, N> {
    fn draw(&mut self, request: &Request<'_>) -> Result<Vec<Draw>> {
        request.check()?;
        let logits = self.logits(request)?;
        Ok(self.take(request, logits)?.reported)
    }

    fn write(&mut self, places: &[usize], tokens: &[u32]) -> Result<()> {
        for (&place, &token) in places.iter().zip(tokens) {
            let place = self.tokens.get_mut(place);
            *place.ok_or_else(|| Error::internal("a place beyond the chain's last"))? = token;
        }
        Ok(())
    }

    fn tokens(&self) -> Result<Vec<u32>> {
        Ok(self.tokens.clone())
    }
}
