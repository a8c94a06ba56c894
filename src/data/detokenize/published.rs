//! The detokenizers of arXiv 2406.07524 as published, for numbers that are put beside the paper's.
//!
//! Facts from `dataloader.py` of the authors' repository (kuleshov-group/mdlm at c112c52 and 06dd29f): which replacements
//! a corpus gets, and in which order. Each is done over the whole text before the next begins, and what one of them makes
//! another may take: that is kept, with what it does to text that it was not meant for. The rules above them
//! ([`super`]) make the better English.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::manifest::detokenize::Detokenizer;

/// The text of a record as the authors' code has it.
pub(super) fn detokenize(by: Detokenizer, text: &str) -> String {
    match by {
        // `datasets` takes the white space at the ends of a line of PTB and of One Billion Word away.
        Detokenizer::Ptb => penn_treebank(text.trim_matches(is_space)),
        Detokenizer::Wikitext => {
            // `datasets` keeps the line break that ends a line, and nothing of a line without text.
            if text.chars().all(is_space) {
                return String::new();
            }
            let ended = text.ends_with('\n');
            wikitext(Cow::Owned(format!("{text}{}", if ended { "" } else { "\n" })))
        }
        Detokenizer::Lm1b => one_billion_word(Cow::Borrowed(text.trim_matches(is_space))),
        Detokenizer::Lambada => {
            let plain = text.replace(['“', '”'], "\"");
            format!("\n{}", plain.trim_matches(is_space))
        }
        Detokenizer::ScientificPapers => one_billion_word(Cow::Owned(wikitext(Cow::Borrowed(text)))),
    }
}

/// DIFFERENCE: `N` counts as a number only between two spaces, so that one at a record's end stays and `$ N` closes up only
/// before a further word; of the contractions with a vowel gone only `'s` closes up; a possessive needs a word after it.
fn penn_treebank(text: &str) -> String {
    let mut text = replaced(
        Cow::Borrowed(text),
        &[
            (" 's", "'s"),
            ("s ' ", "s' "),
            (" n't", "n't"),
            (" \n ", "\n"),
            ("\\/", "/"),
        ],
    );
    // One pass takes every other one of a series, a second pass the rest.
    for _ in 0..2 {
        text = replaced(text, &[(" N ", " 1 ")]);
    }
    replaced(text, &[("$ 1", "$1"), ("# 1", "#1"), ("<unk>", "?")]).into_owned()
}

/// DIFFERENCE: a line keeps the space that it begins with and its line break; a possessive closes up after any `s`, also
/// before a quote; marks and separators close up only between two spaces; single quotes pair across apostrophes; ` N `
/// (north) becomes ` 1 `.
fn wikitext(text: Cow<'_, str>) -> String {
    // Meant for decades, it needs slashes around them.
    static DECADE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("/' [0-9]/").ok());

    let text = replaced(text, &[("s '", "s'")]);
    let text = match &*DECADE {
        Some(decade) => Cow::Owned(decade.replace_all(&text, "/'[0-9]/").into_owned()),
        None => text,
    };
    let mut text = replaced(
        text,
        &[
            (" @-@ ", "-"),
            (" @,@ ", ","),
            (" @.@ ", "."),
            (" : ", ": "),
            (" ; ", "; "),
            (" . ", ". "),
            (" ! ", "! "),
            (" ? ", "? "),
            (" , ", ", "),
        ],
    );
    for (open, close) in [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')] {
        text = Cow::Owned(hug_trimmed(&text, open, close));
    }
    replaced(
        text,
        &[
            ("= = = =", "===="),
            ("= = =", "==="),
            ("= =", "=="),
            (" ° ", "°"),
            (" \n", "\n"),
            ("\n ", "\n"),
            (" N ", " 1 "),
            (" 's", "'s"),
        ],
    )
    .into_owned()
}

/// DIFFERENCE: a full stop closes up only to a word of letters and digits, and not to the second of two words that each have
/// one; every word that begins with an apostrophe closes up, a quoted one too; quotes and brackets hug what they enclose
/// only where a single space stands inside each.
fn one_billion_word(text: Cow<'_, str>) -> String {
    struct Words {
        apostrophe: Regex,
        stop: Regex,
        last_stop: Regex,
        last_question: Regex,
        last_exclamation: Regex,
    }
    // Letters and digits as Python's `\w` has them; its `$` is the end, or a line break that ends the text.
    static WORDS: LazyLock<Option<Words>> = LazyLock::new(|| {
        Some(Words {
            apostrophe: Regex::new(r" '([\p{L}\p{N}_])").ok()?,
            stop: Regex::new(r" ([\p{L}\p{N}_]+) \. ").ok()?,
            last_stop: Regex::new(r" ([\p{L}\p{N}_]+) \.(\n?)\z").ok()?,
            last_question: Regex::new(r" \?(\n?)\z").ok()?,
            last_exclamation: Regex::new(r" !(\n?)\z").ok()?,
        })
    });
    let with = |text: Cow<'_, str>, regex: &Regex, by: &str| regex.replace_all(&text, by).into_owned();
    let mut text = replaced(text, &[("http : / / ", "http://"), ("https : / / ", "https://")]).into_owned();
    if let Some(words) = &*WORDS {
        text = with(text.into(), &words.apostrophe, "'$1");
        text = with(text.into(), &words.stop, " $1. ");
        text = with(text.into(), &words.last_stop, " $1.$2");
        text = text.replace(" ? ", "? ");
        text = with(text.into(), &words.last_question, "?$1");
        text = text.replace(" ! ", "! ");
        text = with(text.into(), &words.last_exclamation, "!$1");
    }
    let mut text = replaced(
        text.into(),
        &[(" , ", ", "), (" : ", ": "), (" ; ", "; "), (" / ", "/")],
    );
    for (open, close) in [('"', '"'), ('\'', '\''), ('(', ')'), ('[', ']')] {
        text = Cow::Owned(hug_spaced(&text, open, close));
    }
    replaced(text, &[("$ ", "$"), ("£ ", "£")]).into_owned()
}

/// Each in turn, over the whole text.
fn replaced<'a>(text: Cow<'a, str>, pairs: &[(&str, &str)]) -> Cow<'a, str> {
    pairs.iter().fold(text, |text, (from, to)| {
        if text.contains(from) {
            Cow::Owned(text.replace(from, to))
        } else {
            text
        }
    })
}

/// White space as Python has it: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Takes white space away within each pair: from an opening sign to the next closing one, whatever lies between.
fn hug_trimmed(text: &str, open: char, close: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open)
        && let Some((within, after)) = after.split_once(close)
    {
        out.push_str(before);
        out.push(open);
        out.push_str(within.trim_matches(is_space));
        out.push(close);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Takes one space away at both ends within each pair that has one there, and something between them, and neither sign
/// within.
fn hug_spaced(text: &str, open: char, close: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open) {
        out.push_str(before);
        out.push(open);
        let Some(end) = after.find([open, close]) else {
            rest = after;
            break;
        };
        let (within, from_sign) = after.split_at(end);
        let inner = within
            .strip_prefix(' ')
            .and_then(|within| within.strip_suffix(' '));
        match inner {
            Some(inner) if !inner.is_empty() && from_sign.starts_with(close) => {
                out.push_str(inner);
                out.push(close);
                rest = &from_sign[close.len_utf8()..];
            }
            _ => {
                out.push_str(within);
                rest = from_sign;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the authors' functions return for each text, by `tests/it/golden/detokenizers.py`.
    const GOLDEN: &str = include_str!("../../../tests/it/golden/detokenizers.json");

    #[test]
    fn published_rules_return_what_the_authors_functions_do() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(GOLDEN).unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let of = |field: &str| case[field].as_str().unwrap();
            let (text, expected) = (of("text"), of("published"));
            let found = match of("rules") {
                // The functions alone, without what `datasets` does to a line.
                "ptb" => penn_treebank(text),
                "wikitext" => wikitext(Cow::Borrowed(text)),
                "lm1b" => one_billion_word(Cow::Borrowed(text)),
                "lambada" => detokenize(Detokenizer::Lambada, text),
                "scientific_papers" => detokenize(Detokenizer::ScientificPapers, text),
                other => panic!("{other}"),
            };
            assert_eq!(found, expected, "{} of {text:?}", of("rules"));
        }
    }

    #[test]
    fn published_wikitext_keeps_line_break_and_first_space() {
        assert_eq!(detokenize(Detokenizer::Wikitext, " = Title = "), " = Title =\n");
        assert_eq!(detokenize(Detokenizer::Wikitext, " = Title = \n"), " = Title =\n");
        assert_eq!(detokenize(Detokenizer::Wikitext, " a , b . "), " a, b.\n");
        assert_eq!(detokenize(Detokenizer::Wikitext, ""), "");
        assert_eq!(detokenize(Detokenizer::Wikitext, " \n"), "");
    }

    /// As in `ptb.valid.txt`, where a space begins each line and another ends it.
    #[test]
    fn published_ptb_and_lm1b_have_no_space_at_the_ends() {
        assert_eq!(detokenize(Detokenizer::Ptb, " on nov. N "), "on nov. N");
        assert_eq!(detokenize(Detokenizer::Ptb, " N N for $ N "), "N 1 for $ N");
        assert_eq!(detokenize(Detokenizer::Lm1b, " It ended . "), "It ended.");
    }
}
