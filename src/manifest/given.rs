//! What a sample stage gives instead of drawing it, and when a text ends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::published::is_default;
use super::template::{self, Piece};

/// When the token that ends a text is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndOfText {
    /// As any other token.
    #[default]
    Drawn,
    /// Never: rows are filled with text.
    Never,
    /// Last: EOS and padding are unmasked when no other token of the block is left (LLaDA's suppression of EOS, arXiv
    /// 2502.09992). Only for samplers that choose by confidence.
    Last,
}

/// Tokens that are given instead of drawn. Either `template`, or `prompt` and `suffix` or one of them, or `file`; each as text
/// or as tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenText {
    /// Text at the beginning of the row. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt: Option<String>,
    /// Text at the end of the row, with EOS after it. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suffix: Option<String>,
    /// Text with holes: `⟨4⟩` stands for 4 tokens, `⟨…⟩` for all that the row has room for, `⟨⟨` for the character `⟨`. After a
    /// text without `⟨…⟩` comes EOS. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub template: Option<String>,
    /// The prompt as tokens. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt_tokens: Option<Vec<u32>>,
    /// The suffix as tokens. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suffix_tokens: Option<Vec<u32>>,
    /// The row as tokens from BOS on, -1 where a token is drawn; positions after the last one are drawn. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(inner(range(min = -1, max = 4_294_967_294_i64)))]
    pub template_tokens: Option<Vec<i64>>,
    /// File of many, relative to the manifest's folder: each line is a JSON object with the fields above. `count` rows are
    /// drawn for each. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(length(min = 1))]
    pub file: Option<String>,
}

impl GivenText {
    /// The names of the fields that are stated.
    #[must_use]
    pub fn stated(&self) -> Vec<&'static str> {
        let all = [
            ("prompt", self.prompt.is_some()),
            ("suffix", self.suffix.is_some()),
            ("template", self.template.is_some()),
            ("prompt_tokens", self.prompt_tokens.is_some()),
            ("suffix_tokens", self.suffix_tokens.is_some()),
            ("template_tokens", self.template_tokens.is_some()),
            ("file", self.file.is_some()),
        ];
        let stated = all.into_iter().filter(|(_, is_stated)| *is_stated);
        stated.map(|(name, _)| name).collect()
    }

    /// What is wrong with the fields together or with one of them: the field, what is wrong, and the way out.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, String, String)> {
        let stated = self.stated();
        let excluding: [&[&str]; 5] = [
            &["prompt", "suffix"],
            &["prompt_tokens", "suffix_tokens"],
            &["template"],
            &["template_tokens"],
            &["file"],
        ];
        let Some(&first) = stated.first() else {
            let hint = "state `prompt`, `suffix`, `template` or `file`".to_owned();
            return Some(("", "nothing is given".to_owned(), hint));
        };
        let group = excluding.iter().find(|group| group.contains(&first));
        let other = stated
            .iter()
            .find(|name| !group.is_some_and(|group| group.contains(name)));
        if let Some(other) = other {
            return Some((
                *other,
                format!("`{other}` and `{first}` exclude each other"),
                format!("leave `{other}` or `{first}` out, or write one `template` with holes"),
            ));
        }
        for (name, text) in [("prompt", &self.prompt), ("suffix", &self.suffix)] {
            if text.as_ref().is_some_and(String::is_empty) {
                let message = format!("`{name}` is empty");
                return Some((name, message, format!("leave `{name}` out")));
            }
        }
        for (name, tokens) in [
            ("prompt_tokens", &self.prompt_tokens),
            ("suffix_tokens", &self.suffix_tokens),
        ] {
            if tokens.as_ref().is_some_and(Vec::is_empty) {
                let message = format!("`{name}` is empty");
                return Some((name, message, format!("leave `{name}` out")));
            }
        }
        if let Some(template) = &self.template
            && let Err(message) = template::parse(template)
        {
            let hint =
                "write holes as `⟨4⟩`, of 4 tokens, or `⟨…⟩`, which fills the row; `⟨⟨` is the character";
            return Some(("template", message, hint.to_owned()));
        }
        let is_token = |token: &&i64| **token == -1 || u32::try_from(**token).is_ok_and(|id| id < u32::MAX);
        let strange = self
            .template_tokens
            .iter()
            .flatten()
            .find(|token| !is_token(token));
        if let Some(token) = strange {
            let message = format!("{token} is no token");
            let hint = "write -1 where a token is drawn, and the number of a token where one is given";
            return Some(("template_tokens", message, hint.to_owned()));
        }
        if let Some(tokens) = &self.template_tokens
            && tokens.iter().all(|&token| token < 0)
        {
            let hint = "write a number for each token that is given, or leave `given` out".to_owned();
            return Some(("template_tokens", "no token is given".to_owned(), hint));
        }
        None
    }

    /// The largest token that is stated, and the field.
    #[must_use]
    pub fn largest_token(&self) -> Option<(&'static str, u32)> {
        let of = |name, tokens: &Option<Vec<u32>>| {
            let largest = tokens.iter().flatten().copied().max();
            largest.map(|token| (name, token))
        };
        let template = self.template_tokens.iter().flatten();
        let template = template.filter_map(|&token| u32::try_from(token).ok()).max();
        [
            of("prompt_tokens", &self.prompt_tokens),
            of("suffix_tokens", &self.suffix_tokens),
            template.map(|token| ("template_tokens", token)),
        ]
        .into_iter()
        .flatten()
        .max_by_key(|(_, token)| *token)
    }

    /// Tokens of the holes of the template together, but for one that fills the row.
    #[must_use]
    pub fn holes(&self) -> u64 {
        let pieces = self.template.as_deref().map(template::parse);
        let pieces = pieces.and_then(Result::ok).unwrap_or_default();
        let tokens = |piece: &Piece| match piece {
            Piece::Hole(tokens) => u64::from(*tokens),
            Piece::Text(_) | Piece::Rest => 0,
        };
        pieces.iter().map(tokens).sum()
    }

    /// Whether a token after the first drawn one is given.
    #[must_use]
    pub fn has_suffix(&self) -> bool {
        if self.suffix.is_some() || self.suffix_tokens.is_some() {
            return true;
        }
        if let Some(tokens) = &self.template_tokens {
            let mut after_prompt = tokens.iter().skip_while(|token| **token >= 0);
            return after_prompt.any(|&token| token >= 0);
        }
        let pieces = self.template.as_deref().map(template::parse);
        pieces.and_then(Result::ok).is_some_and(|pieces| {
            let is_prompt = matches!(pieces[..], [Piece::Text(_), Piece::Rest] | [Piece::Rest]);
            !is_prompt
        })
    }
}
