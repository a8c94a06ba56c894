//! The texts of `mdlm sample` on standard output.

use serde::Serialize;

use crate::cli::render::terminal::Terminal;
use mdlm::data::SpecialIds;
use mdlm::data::tokenizer::Tokenizer;
use mdlm::error::{Error, Result};
use mdlm::manifest::Sampler;
use mdlm::stages::draw;

/// Characters at the end of a text that is not complete which are not printed yet: with the next token, a decoder may spell them
/// in another way.
const HELD_BACK: usize = 16;

/// How tokens are spelled: as text, or without a tokenizer as numbers.
#[derive(Clone, Copy)]
pub struct TokenSpelling<'a> {
    /// The tokenizer, where texts are printed.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The tokens of special roles.
    pub special: SpecialIds,
}

impl TokenSpelling<'_> {
    /// The text of a row, or of a part of one.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn text(self, tokens: &[u32]) -> Result<String> {
        let Some(tokenizer) = self.tokenizer else {
            let tokens: Vec<_> = tokens.iter().map(|token| format!("{token} ")).collect();
            return Ok(tokens.concat());
        };
        // As `draw::text`, but that the end of a part is the beginning of the next.
        let pieces: Result<Vec<String>> = tokens
            .split(|&token| token == self.special.eos)
            .map(|piece| tokenizer.decode(piece))
            .collect();
        Ok(pieces?.join("\n"))
    }

    /// The whole text of a row as it is printed.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn whole(self, tokens: &[u32]) -> Result<String> {
        match self.tokenizer {
            Some(tokenizer) => draw::text(tokens, self.special, tokenizer),
            None => Ok(self.text(tokens)?.trim_end().to_owned()),
        }
    }
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
pub struct TextLine<'a> {
    /// Its text, where there is a tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its tokens.
    pub tokens: &'a [u32],
    /// How often the network was asked about it.
    pub network_calls: u32,
    /// Steps of the sampler.
    pub steps: u32,
    /// Seed of the draws.
    pub seed: u64,
    /// The sampler, with its settings.
    pub sampler: Sampler,
    /// Which line of the file of given texts it has, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<u32>,
}

impl TextLine<'_> {
    /// The line.
    ///
    /// # Errors
    /// An internal error.
    pub fn json(&self) -> Result<String> {
        let line = serde_json::to_string(self);
        line.map(|line| line + "\n")
            .map_err(|error| Error::internal(format!("write a text: {error}")))
    }
}

/// A text that is printed while its tokens come.
#[derive(Default)]
pub struct TextStream {
    tokens: Vec<u32>,
    /// What is printed.
    printed: String,
}

impl TextStream {
    /// Adds tokens, and returns what they add to what is printed.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn push(&mut self, tokens: &[u32], spelling: TokenSpelling<'_>) -> Result<String> {
        self.tokens.extend_from_slice(tokens);
        let text = spelling.whole(&self.tokens)?;
        let held_back = if spelling.tokenizer.is_some() {
            HELD_BACK
        } else {
            0
        };
        let kept = text.chars().count().saturating_sub(held_back);
        let end = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
        Ok(self.print(&text[..end]))
    }

    /// Returns what is yet to be printed of the whole text.
    pub fn finish(&mut self, text: &str) -> String {
        self.print(text)
    }

    /// Prints a text whose beginning is printed. Should a decoder have changed that, the rest by length.
    fn print(&mut self, text: &str) -> String {
        let rest = match text.strip_prefix(&self.printed) {
            Some(rest) => rest.to_owned(),
            None => text.chars().skip(self.printed.chars().count()).collect(),
        };
        self.printed += &rest;
        rest
    }
}

/// A text for standard output: a terminal obeys control characters, which are spelled out there.
pub fn shown(text: &str, terminal: &Terminal) -> String {
    if !terminal.is_output_live() {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_stream_prints_each_character_once() {
        let tokenizer = Tokenizer::characters(" abcdefghijklmnopqrstuvwxyz").unwrap();
        let special = tokenizer.special();
        let spelling = TokenSpelling {
            tokenizer: Some(&tokenizer),
            special,
        };
        let mut tokens = vec![special.bos];
        tokenizer.encode("the quick brown fox", &mut tokens).unwrap();
        tokens.push(special.eos);
        tokenizer.encode("jumps over the dog", &mut tokens).unwrap();
        let whole = spelling.whole(&tokens).unwrap();
        assert_eq!(whole, "the quick brown fox\njumps over the dog");
        for size in 1..tokens.len() {
            let mut stream = TextStream::default();
            let mut printed = String::new();
            for window in tokens.chunks(size) {
                printed += &stream.push(window, spelling).unwrap();
                assert!(whole.starts_with(&printed));
            }
            assert!(
                printed.chars().count() + HELD_BACK >= whole.chars().count(),
                "{size}"
            );
            printed += &stream.finish(&whole);
            assert_eq!(printed, whole, "{size}");
        }
        let numbers = TokenSpelling {
            tokenizer: None,
            special,
        };
        let mut stream = TextStream::default();
        let printed = stream.push(&[5, 6], numbers).unwrap() + &stream.push(&[7], numbers).unwrap();
        assert_eq!(printed, "5 6 7");
    }
}
