//! An evaluation in words: `evaluation.md`.

use std::fmt::Write as _;

use super::{Evaluation, NORMALIZED};
use crate::data::{Unit, split_name};
use crate::manifest::{BoundEnds, Estimator, Weights};
use crate::plural::{agreeing, counted};

/// The evaluation as Markdown.
#[expect(clippy::too_many_lines, reason = "one sentence or table after the other")]
pub(super) fn text(found: &Evaluation) -> String {
    let weights = match found.weights {
        Weights::Ema => "averaged",
        Weights::Raw => "last step's",
    };
    let title = match found.estimator {
        Estimator::Time | Estimator::Count => "Bound",
        Estimator::Exact => "Exact likelihood",
        Estimator::Pseudo => "Pseudo-likelihood",
    };
    let estimator = found.estimator.name();
    let steps = found
        .steps
        .map_or_else(String::new, |steps| format!(" in {}", counted(steps, "step")));
    let scored = found
        .scored_tokens
        .map_or_else(String::new, |scored| format!(", {scored} of them scored"));
    let mut text = format!(
        "# {title} on the {} split\n\n\
         {weights} weights · estimator `{estimator}`{steps} · {} of {} · {} per row · {} counted{scored}\n\n\
         | quantity | {} | 95% interval |\n|---|---|---|\n",
        split_name(found.split),
        found.rows,
        counted(found.rows_of_split, "row"),
        counted(found.draws, "draw"),
        counted(
            found.tokens,
            match found.unit {
                Unit::Token => "token",
                Unit::Position => "position",
            }
        ),
        found.quantity(),
    );
    let per = |what: &str, unit: Unit| format!("{what} {}", unit.name());
    let own = found.per();
    let mut quantities = vec![
        (format!("nats {own}"), found.nats_per_token),
        (format!("{} {own}", found.perplexity_name()), found.perplexity),
    ];
    quantities.extend(
        found
            .nats_per_token_of_text
            .map(|nats| (per("nats", Unit::Token), nats)),
    );
    let words = found.perplexity_per_word;
    quantities.extend(words.map(|perplexity| (format!("{} per word", found.perplexity_name()), perplexity)));
    let last = found.last_word;
    quantities.extend(last.map(|last| {
        (
            format!("{} per last word", found.perplexity_name()),
            last.perplexity,
        )
    }));
    let of_text = found.perplexity_per_token_of_text;
    quantities.extend(of_text.map(|perplexity| (per(found.perplexity_name(), Unit::Token), perplexity)));
    let of = if found.normalized { NORMALIZED } else { "" };
    quantities.extend(
        found
            .bits_per_byte
            .map(|bits| (format!("bits per byte{of}"), bits)),
    );
    for (name, interval) in quantities {
        let ends = interval.ends().map_or("not defined".to_owned(), |(low, high)| {
            format!("{low:.4} to {high:.4}")
        });
        let _ = writeln!(text, "| {name} | {:.4} | {ends} |", interval.value);
    }
    if let Some(last) = last {
        let percent = last.accuracy.map(|share| 100.0 * share);
        let ends = percent.ends().map_or("not defined".to_owned(), |(low, high)| {
            format!("{low:.2}% to {high:.2}%")
        });
        let _ = writeln!(
            text,
            "| accuracy of the last word ({} of {}) | {:.2}% | {ends} (Wilson) |",
            last.right, found.rows, percent.value
        );
    }
    if let Some(entropy) = found.entropy_bits_per_byte {
        let _ = writeln!(
            text,
            "| entropy of the grammar, bits per byte | {entropy:.4} | exact |"
        );
    }
    let drawn = if found.estimator.is_random() {
        "which rows were held out and which times and masks were drawn"
    } else {
        "which rows were held out; nothing was drawn"
    };
    let _ = write!(
        text,
        "\nThe interval is value ± t · standard error, the error clustered by row: it covers {drawn}."
    );
    text.push_str(&of_rows(found));
    if found.scored_tokens.is_some() {
        text.push_str(
            " The model is given the first token of each row, which a diffusion model predicts: compare it with one by \
             bits per byte of the same text.",
        );
    }
    if found.estimator == Estimator::Pseudo {
        text.push_str(
            " Each token is predicted from all others: the number is neither a likelihood nor a bound on one, and is not \
             comparable with either.",
        );
    }
    if let Some(error) = found.monte_carlo_error {
        let _ = write!(
            text,
            " More draws per row would remove at most {error:.4} nats of the standard error."
        );
    }
    if found.bound == BoundEnds::Published {
        text.push_str(
            " The published estimate is the mean over the noise levels that training draws. It leaves out both ends, \
             is lower \
             than the bound, and is not a bound: use it only to compare with published figures.",
        );
    }
    let bounds = if found.is_bound() { "bounds" } else { "is that of" };
    if found.unit == Unit::Position {
        let perplexities = match found.estimator {
            Estimator::Pseudo => "pseudo-perplexities",
            _ => "perplexities",
        };
        let _ = write!(
            text,
            " Padding counts as text does: the number {bounds} the whole record with its length. Per position, padding \
             that is easy to guess lowers the mean: compare {perplexities} per token of text"
        );
        if found.bits_per_byte.is_some() {
            text.push_str(", and bits per byte between tokenizers");
        }
        text.push('.');
    }
    if found.lost_bits_per_byte > 0.0 && found.bits_per_byte.is_none() {
        text.push_str(
            " No token spells some of the text (unknown tokens, dropped characters): the numbers leave it out.",
        );
    } else if found.lost_bits_per_byte > 0.0 {
        let _ = write!(
            text,
            " No token spells some of the text (unknown tokens, dropped characters): {:.4} of the bits per byte \
             spell it out, \
             8 bits a byte, 8 that end it, and 33 for the place of text without a token. Perplexity and nats leave \
             it out.",
            found.lost_bits_per_byte
        );
    }
    if found.normalized && found.bits_per_byte.is_some() {
        text.push_str(
            " The tokenizer changes the text (letter case, accents, white space or forms of characters), so that \
             bits per \
             byte bound the text as it normalizes it, per byte of the original: they are not a bound on the original \
             text, and are not comparable with those of a tokenizer that keeps it.",
        );
    }
    if found.padding_excluded && !found.is_given_lengths() {
        text.push_str(
            " Padding is excluded, but the model predicts where each record ends, and so pays for its length, which a \
             diffusion model is given: compare them under `\"padding\": \"counted\"`.",
        );
    }
    if found.is_given_lengths() {
        let _ = write!(
            text,
            " Padding is excluded, as the authors do it: the number {bounds} the text given its length, which the \
             visible padding shows."
        );
    }
    text.push('\n');
    text
}

/// What is said of the rows: their context, their words, and the text that is in none.
fn of_rows(found: &Evaluation) -> String {
    let mut text = String::new();
    if let Some(stride) = found.stride {
        let _ = write!(
            text,
            " Rows overlap: each begins {} of text after the one before, and every token is scored once, given those before it \
             in its row; BOS and EOS of rows are not scored.",
            counted(stride, "token")
        );
    }
    if found.last_word.is_some() {
        text.push_str(
            " The last word of each record is scored with its leading space, given the text before it and nothing behind it. It \
             is right where its tokens are the model's greedy choices, one after the other from left to right.",
        );
    }
    if let (Some(words), Some(_)) = (found.words, found.perplexity_per_word) {
        let proportion = if found.words_in_proportion {
            ", in proportion to the text, since not all of it is in the rows"
        } else {
            ""
        };
        let _ = write!(
            text,
            " Words are what lies between white space before the text was detokenized, ends of lines left out: {words} in these \
             rows{proportion}. Perplexity per word divides the nats of all scored tokens by them.",
        );
    }
    if let Some(of) = &found.text {
        if of.dropped_tokens > 0 {
            let _ = write!(
                text,
                " Of the {} of the split, {} {} in no row.",
                counted(of.tokens, "token"),
                of.dropped_tokens,
                agreeing(of.dropped_tokens as usize, "is", "are")
            );
        }
        if of.dropped_records > 0 {
            let _ = write!(
                text,
                " Of the {} of the split, {} {} in no row, since their last word has no room in one.",
                counted(of.records, "record"),
                of.dropped_records,
                agreeing(of.dropped_records as usize, "is", "are")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{LastWords, SplitText, bits};
    use super::*;
    use crate::evaluate::Interval;
    use crate::manifest::{Scored, Split};

    const INTERVAL: Interval = Interval {
        value: 1.0,
        low: Some(0.9),
        high: Some(1.1),
    };

    /// The evaluation of an any-order bound.
    fn evaluation() -> Evaluation {
        let interval = INTERVAL;
        Evaluation {
            model: None,
            tokenizer: None,
            split: Split::Validation,
            weights: Weights::Ema,
            objective: "mdlm".to_owned(),
            estimator: Estimator::Count,
            steps: None,
            rows: 20,
            rows_of_split: 40,
            draws: 4,
            tokens: 1200,
            scored_tokens: None,
            bytes_per_token: 2.0,
            bound: BoundEnds::Valid,
            unit: Unit::Token,
            nats_per_token: interval,
            standard_error: Some(0.05),
            monte_carlo_error: Some(0.02),
            perplexity: interval.map(f64::exp),
            nats_per_token_of_text: None,
            perplexity_per_token_of_text: None,
            bits_per_byte: Some(interval.map(|nats| nats / 2.0 / std::f64::consts::LN_2)),
            lost_bits_per_byte: 0.0,
            normalized: false,
            entropy_bits_per_byte: Some(0.7),
            stride: None,
            scored: Scored::All,
            words: None,
            words_in_proportion: false,
            perplexity_per_word: None,
            last_word: None,
            text: None,
            padding_excluded: true,
        }
    }

    #[test]
    fn evaluation_text_states_quantity_unit_and_interval() {
        let (interval, found) = (INTERVAL, evaluation());
        insta::assert_snapshot!(text(&found), @r"
        # Bound on the validation split

        averaged weights · estimator `count` · 20 of 40 rows · 4 draws per row · 1200 tokens counted

        | quantity | upper bound | 95% interval |
        |---|---|---|
        | nats per token of text | 1.0000 | 0.9000 to 1.1000 |
        | perplexity per token of text | 2.7183 | 2.4596 to 3.0042 |
        | bits per byte | 0.7213 | 0.6492 to 0.7935 |
        | entropy of the grammar, bits per byte | 0.7000 | exact |

        The interval is value ± t · standard error, the error clustered by row: it covers which rows were held out and which times and masks were drawn. More draws per row would remove at most 0.0200 nats of the standard error. Padding is excluded, as the authors do it: the number bounds the text given its length, which the visible padding shows.
        ");
        let padded = text(&Evaluation {
            bound: BoundEnds::Published,
            unit: Unit::Position,
            nats_per_token_of_text: Some(interval.map(|nats| 1.5 * nats)),
            perplexity_per_token_of_text: Some(interval.map(|nats| (1.5 * nats).exp())),
            padding_excluded: false,
            ..found.clone()
        });
        let lines = |start: &str| {
            padded
                .lines()
                .filter(|line| line.starts_with(start))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lines("| perplexity"),
            [
                "| perplexity per position, padding included | 2.7183 | 2.4596 to 3.0042 |",
                "| perplexity per token of text | 4.4817 | 3.8574 to 5.2070 |"
            ]
        );
        assert_eq!(
            lines("| quantity"),
            ["| quantity | published estimate | 95% interval |"]
        );
        assert!(
            padded.contains("is not a bound") && padded.contains("1200 positions counted"),
            "{padded}"
        );
        assert!(!padded.contains("bounds"), "{padded}");
        assert_eq!(bits(&found).unwrap(), "0.7213 ± 0.0721");
        let lossy = Evaluation {
            lost_bits_per_byte: 0.25,
            normalized: true,
            ..found
        };
        assert_eq!(
            bits(&lossy).unwrap(),
            "0.7213 ± 0.0721 of normalized text, 0.2500 of it for lost text"
        );
        let text = text(&lossy);
        for expected in [
            "| bits per byte of normalized text | 0.7213 | 0.6492 to 0.7935 |",
            "0.2500 of the bits per byte spell it out",
            "they are not a bound on the original text",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn evaluation_text_states_words_context_and_dropped_text() {
        let found = Evaluation {
            stride: Some(16),
            words: Some(700),
            words_in_proportion: true,
            perplexity_per_word: Some(INTERVAL.map(|nats| (1.5 * nats).exp())),
            text: Some(SplitText {
                records: 50,
                bytes: 3000,
                tokens: 1210,
                words: Some(702),
                dropped_tokens: 10,
                dropped_records: 0,
            }),
            padding_excluded: false,
            ..evaluation()
        };
        let of_words = text(&found);
        for expected in [
            "| perplexity per word | 4.4817 | 3.8574 to 5.2070 |",
            "Rows overlap: each begins 16 tokens of text after the one before",
            "700 in these rows, in proportion to the text",
            "Of the 1210 tokens of the split, 10 are in no row.",
        ] {
            assert!(of_words.contains(expected), "{expected}: {of_words}");
        }
        assert!(!of_words.contains("given its length"), "{of_words}");
        let last = text(&Evaluation {
            scored: Scored::LastWord,
            stride: None,
            perplexity_per_word: None,
            last_word: Some(LastWords {
                perplexity: INTERVAL.map(f64::exp),
                right: 5,
                accuracy: Interval {
                    value: 0.25,
                    low: Some(0.11),
                    high: Some(0.47),
                },
            }),
            ..found
        });
        for expected in [
            "| perplexity per last word | 2.7183 | 2.4596 to 3.0042 |",
            "| accuracy of the last word (5 of 20) | 25.00% | 11.00% to 47.00% (Wilson) |",
            "given the text before it and nothing behind it",
        ] {
            assert!(last.contains(expected), "{expected}: {last}");
        }
    }

    #[test]
    fn pseudo_likelihoods_are_called_neither_perplexities_nor_bounds_nor_bits() {
        let pseudo = Evaluation {
            estimator: Estimator::Pseudo,
            bits_per_byte: None,
            lost_bits_per_byte: 0.25,
            normalized: true,
            entropy_bits_per_byte: None,
            ..evaluation()
        };
        let of_positions = Evaluation {
            unit: Unit::Position,
            nats_per_token_of_text: Some(INTERVAL),
            perplexity_per_token_of_text: Some(INTERVAL),
            padding_excluded: false,
            ..pseudo.clone()
        };
        for (found, whole) in [
            (pseudo, "the text given its length"),
            (of_positions, "the whole record"),
        ] {
            let text = text(&found);
            assert!(text.contains(&format!("the number is that of {whole}")), "{text}");
            assert!(text.contains("| pseudo-perplexity per token of text |"), "{text}");
            for wrong in ["| perplexity", " perplexities", "bounds", "bits per byte"] {
                assert!(!text.contains(wrong), "{wrong}: {text}");
            }
        }
    }
}
