//! The given tokens of a sample stage: texts with holes → rows.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use crate::data::read::Consumed;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Context as _, Error, Result};
use crate::manifest::GivenText;
use crate::manifest::template::{self, Piece};
use crate::sample::UNSEEN;
use crate::sample::given::{GivenPart, row};
use crate::stages::trained::ModelInfo;

/// Rows with given tokens.
#[derive(Debug, Default)]
pub struct GivenRows {
    /// (n, L), [`UNSEEN`] where a token is drawn; empty where none is given.
    pub tokens: Vec<u32>,
    /// n.
    rows: u32,
    /// Whether they come from a file of many.
    is_list: bool,
    /// What was read outside the store.
    pub consumed: Vec<(PathBuf, Consumed)>,
}

impl GivenRows {
    /// Rows to draw, so many for each given one.
    ///
    /// # Errors
    /// More than a stage can draw.
    pub fn count(&self, each: u32) -> Result<u32> {
        each.checked_mul(self.rows.max(1)).ok_or_else(|| {
            Error::input(format!(
                "{each} rows for each of {} texts are too many",
                self.rows
            ))
            .hint("set `count` to a smaller number")
        })
    }

    /// Which of many a row has.
    #[must_use]
    pub fn number_of(&self, index: usize, count: u32) -> Option<u32> {
        (self.is_list && self.rows > 0).then(|| index as u32 / (count / self.rows))
    }
}

/// How many texts a stage gives: the lines of its file. A file that cannot be read counts as one: the run reports it.
#[must_use]
pub fn count_texts(given: &GivenText, base: &Path) -> u32 {
    let lines = |file: &String| {
        let file = File::open(base.join(file)).ok()?;
        let lines = BufReader::new(file)
            .split(b'\n')
            .map_while(std::result::Result::ok);
        u32::try_from(lines.filter(|line| !line.trim_ascii().is_empty()).count()).ok()
    };
    given.file.as_ref().and_then(lines).unwrap_or(1)
}

/// The rows that a stage gives; `base` is the folder that its file's path starts from.
///
/// # Errors
/// A text is longer than a row or leaves nothing to draw, the tokenizer does not know a part of it, a token is outside the
/// vocabulary, or the file cannot be read; each with its line.
pub fn rows(given: &GivenText, base: &Path, model: &ModelInfo, tokenizer: &Tokenizer) -> Result<GivenRows> {
    let Some(file) = &given.file else {
        return Ok(GivenRows {
            tokens: one(given, model, tokenizer)?,
            rows: 1,
            ..GivenRows::default()
        });
    };
    let path = base.join(file);
    let bytes = std::fs::read(&path).context(|| format!("read `{}`", path.display()))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        Error::input(format!(
            "read `{}`: invalid UTF-8 at byte {}",
            path.display(),
            error.valid_up_to() + 1
        ))
        .hint("write the file as UTF-8")
    })?;
    // A byte order mark is no text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all = GivenRows {
        is_list: true,
        ..GivenRows::default()
    };
    for (number, line) in (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let place = || format!("`{}`, line {number}", path.display());
        let given: GivenText = serde_json::from_str(line).map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line 1 column").next().unwrap_or_default();
            Error::input(format!("{}, column {}: {message}", place(), error.column())).hint(
                "write an object on each line, such as `{\"prompt\": \"Once\"}` or `{\"template\": \"The⟨…⟩ is\"}`",
            )
        })?;
        let fault = if given.file.is_some() {
            let message = "a file of many cannot name another file".to_owned();
            Some((message, "write the texts themselves".to_owned()))
        } else {
            given.fault().map(|(_, message, hint)| (message, hint))
        };
        if let Some((message, hint)) = fault {
            return Err(Error::input(format!("{}: {message}", place())).hint(hint));
        }
        let row = one(&given, model, tokenizer).map_err(|error| error.context(place()))?;
        all.tokens.extend(row);
        all.rows += 1;
    }
    if all.rows == 0 {
        return Err(Error::input(format!("`{}` has no line", path.display()))
            .hint("write an object on each line, such as `{\"prompt\": \"Once\"}`"));
    }
    all.consumed = vec![(path, Consumed::whole(&bytes))];
    Ok(all)
}

/// The row (L) of one text.
///
/// # Errors
/// As of [`rows`].
pub fn one(given: &GivenText, model: &ModelInfo, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let length = model.length as usize;
    let encode = |text: &str| -> Result<GivenPart> {
        let mut tokens = Vec::new();
        let loss = tokenizer.encode(text, &mut tokens)?;
        if loss.unknown > 0 || loss.characters > 0 || loss.bytes > 0 {
            return Err(Error::input(format!(
                "the tokenizer does not know a part of the given text `{text}`"
            ))
            .hint("write it with characters of the text that the model learnt from"));
        }
        Ok(GivenPart::Given(tokens))
    };
    if let Some((_, token)) = given
        .largest_token()
        .filter(|(_, token)| *token >= model.vocabulary)
    {
        return Err(Error::input(format!(
            "the given token {token} is not in the vocabulary, which has {} tokens",
            model.vocabulary
        ))
        .hint(format!("give tokens below {}", model.vocabulary)));
    }
    if let Some(tokens) = &given.template_tokens {
        if tokens.len() > length {
            return Err(Error::input(format!(
                "{} tokens are given, but a row has {length}",
                tokens.len()
            ))
            .hint("give fewer tokens, or use a model with longer rows"));
        }
        let given = tokens.iter().map(|&token| u32::try_from(token).unwrap_or(UNSEEN));
        let mut row: Vec<u32> = given.collect();
        row.resize(length, UNSEEN);
        if !row.contains(&UNSEEN) {
            return Err(
                Error::input("the given tokens leave none to draw").hint("write -1 where a token is drawn")
            );
        }
        return refuse_mask(row, model);
    }
    let mut parts = Vec::new();
    if let Some(template) = &given.template {
        let pieces = template::parse(template).map_err(Error::input)?;
        for piece in pieces {
            parts.push(match piece {
                Piece::Text(text) => encode(&text)?,
                Piece::Hole(count) => GivenPart::Hole(count as usize),
                Piece::Rest => GivenPart::Rest,
            });
        }
    } else {
        if let Some(prompt) = &given.prompt {
            parts.push(encode(prompt)?);
        }
        parts.extend(given.prompt_tokens.clone().map(GivenPart::Given));
        parts.push(GivenPart::Rest);
        if let Some(suffix) = &given.suffix {
            parts.push(encode(suffix)?);
        }
        parts.extend(given.suffix_tokens.clone().map(GivenPart::Given));
    }
    refuse_mask(row(&parts, model.special, model.wrap, length)?, model)
}

/// Refuses the mask among the given tokens: it stands for tokens that are drawn.
fn refuse_mask(row: Vec<u32>, model: &ModelInfo) -> Result<Vec<u32>> {
    if row.contains(&model.special.mask) {
        return Err(Error::input(format!(
            "the mask token {} is given, but it stands for tokens that are drawn",
            model.special.mask
        ))
        .hint("write a hole (`⟨4⟩`, or -1 among tokens) where a token is drawn"));
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_texts_of_a_file_are_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let lines = "{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\"}\n  \n{\"prompt\": \"c\"}";
        std::fs::write(folder.path().join("many.jsonl"), lines).unwrap();
        let of = |file: &str| GivenText {
            file: Some(file.to_owned()),
            ..GivenText::default()
        };
        assert_eq!(count_texts(&of("many.jsonl"), folder.path()), 3);
        assert_eq!(count_texts(&of("absent.jsonl"), folder.path()), 1);
        let prompt = GivenText {
            prompt: Some("a".to_owned()),
            ..GivenText::default()
        };
        assert_eq!(count_texts(&prompt, folder.path()), 1);
    }
}
