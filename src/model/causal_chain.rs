//! A chain that reads its rows from left to right, once: keys and values of what it has read are kept.
//!
//! In a plain transformer under [`Pattern::Causal`] all that is computed at a position depends on the tokens up to it alone.
//! A request is answered from the positions that are new: those behind the cached ones, up to the last that is asked about,
//! and those that are asked about again. A token that changes makes its row's cache end before it, so that answers have the
//! bits of [`HostChain`]'s, whatever is asked and written and in which order.
//!
//! The first rows of the chain have room in the cache, [`cached_rows`] of them; those beyond are computed whole each time.

use super::chain::HostChain;
use super::checks::check_positions;
use super::dit::{Arch, Dit};
use super::footprint::cached_rows;
use super::{Chain, Network, Request};
use crate::error::{Error, Result};
use crate::kernels::HostBackend;
use crate::kernels::categorical::Draw;

/// Rows of tokens beside a plain transformer on the host, with keys and values.
pub(super) struct CausalChain<'a, A: Arch, B: HostBackend> {
    backend: &'a B,
    dit: &'a Dit<A, B>,
    /// The tokens, and the same network for what is computed whole.
    rows: HostChain<'a, dyn Network + 'a>,
    /// Keys and values of each block.
    cache: Vec<B::Cache>,
    /// How many positions of each row that has room are cached, from the first on: their tokens are still those that they
    /// were computed from.
    cached: Vec<usize>,
}

impl<'a, A: Arch, B: HostBackend> CausalChain<'a, A, B> {
    /// These tokens beside a network, as many of their rows cached as [`cached_rows`] says; none where the system has no
    /// memory for them. `dit` is the network's, on its backend.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn new(
        network: &'a dyn Network,
        (backend, dit): (&'a B, &'a Dit<A, B>),
        tokens: &[u32],
    ) -> Result<Self> {
        let rows = cached_rows(A::SHAPE, tokens.len() / A::SHAPE.length);
        let with_room = |rows| Self::with_room(network, (backend, dit), tokens, rows);
        with_room(rows).or_else(|_| with_room(0))
    }

    /// These tokens, the first `rows` of their rows cached.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn with_room(
        network: &'a dyn Network,
        (backend, dit): (&'a B, &'a Dit<A, B>),
        tokens: &[u32],
        rows: usize,
    ) -> Result<Self> {
        Ok(Self {
            cache: dit.cache(backend, rows)?,
            cached: vec![0; rows],
            rows: HostChain::new(network, tokens),
            backend,
            dit,
        })
    }

    /// How many rows of a request have room: its first ones.
    fn with_cache(&self, request: &Request<'_>) -> Result<usize> {
        if !request.rows.is_sorted_by(|a, b| a < b) {
            return Err(Error::internal("rows of a request must ascend"));
        }
        let room = self.cached.len();
        Ok(if request.pattern.span() == 1 {
            request.rows.partition_point(|&row| (row as usize) < room)
        } else {
            0
        })
    }

    /// How many positions of each row that has room are cached.
    #[cfg(test)]
    pub(super) fn cached(&self) -> &[usize] {
        &self.cached
    }

    /// Logits (n, V) at the request's positions.
    pub(super) fn logits(&mut self, request: &Request<'_>) -> Result<Vec<f32>> {
        let length = A::SHAPE.length;
        check_positions(request.positions, request.rows.len() * length)?;
        let rows = self.with_cache(request)?;
        let end = (rows * length) as u32;
        let positions = request.positions.partition_point(|&position| position < end);
        let mut logits = self.step(&request.rows[..rows], &request.positions[..positions])?;
        if positions == request.positions.len() {
            return Ok(logits);
        }
        let others: Vec<u32> = request.positions[positions..]
            .iter()
            .map(|position| position - end)
            .collect();
        let whole = self.rows.logits(&Request {
            rows: &request.rows[rows..],
            positions: &others,
            ..*request
        })?;
        if logits.is_empty() {
            return Ok(whole);
        }
        logits.extend(whole);
        Ok(logits)
    }

    /// Logits at positions, flat and ascending, of rows that have room. Their keys and values are cached then.
    fn step(&mut self, rows: &[u32], positions: &[u32]) -> Result<Vec<f32>> {
        let length = A::SHAPE.length;
        // The places of the new positions, and which of these are asked about.
        let (mut places, mut wanted, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = positions;
        for (i, &row) in rows.iter().enumerate() {
            let (first, row) = (i * length, row as usize);
            let asked = left.partition_point(|&position| (position as usize) < first + length);
            let (asked, rest) = left.split_at(asked);
            left = rest;
            let Some(&last) = asked.last() else {
                continue;
            };
            let end = last as usize - first + 1;
            let mut asked = asked.iter().map(|&position| position as usize - first).peekable();
            for l in asked.peek().map_or(end, |&l| l.min(self.cached[row]))..end {
                let is_asked = asked.next_if_eq(&l).is_some();
                if is_asked {
                    wanted.push(places.len() as u32);
                }
                if is_asked || l >= self.cached[row] {
                    places.push((row * length + l) as u32);
                }
            }
            ends.push((row, end));
        }
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = places.iter().map(|&place| self.rows.token(place as usize));
        let tokens: Vec<u32> = tokens.collect::<Result<_>>()?;
        let backend = self.backend;
        let tokens = backend.tokens(&tokens)?;
        let cache = &mut self.cache;
        let logits = self.dit.step(backend, &tokens, &places, &wanted, cache)?;
        let logits = backend.values(&logits)?;
        for (row, end) in ends {
            self.cached[row] = self.cached[row].max(end);
        }
        Ok(logits)
    }

    /// A place has another token: what was computed from it does not count any more.
    fn forget(&mut self, place: usize) {
        let (row, position) = (place / A::SHAPE.length, place % A::SHAPE.length);
        if let Some(cached) = self.cached.get_mut(row) {
            *cached = position.min(*cached);
        }
    }
}

impl<A: Arch, B: HostBackend> Chain for CausalChain<'_, A, B> {
    fn draw(&mut self, request: &Request<'_>) -> Result<Vec<Draw>> {
        request.check()?;
        let logits = self.logits(request)?;
        let taken = self.rows.take(request, logits)?;
        for place in taken.committed {
            self.forget(place);
        }
        Ok(taken.reported)
    }

    fn write(&mut self, places: &[usize], tokens: &[u32]) -> Result<()> {
        for (&place, &token) in places.iter().zip(tokens) {
            if self.rows.token(place)? != token {
                self.forget(place);
            }
        }
        self.rows.write(places, tokens)
    }

    fn tokens(&self) -> Result<Vec<u32>> {
        self.rows.tokens()
    }
}
