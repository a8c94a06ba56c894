//! What must be said beneath a table: what numbers are per, what they are bounds on, and what does not compare.

use std::fmt::Write as _;

use super::{Row, are_signed, fields, measured, ranks, title};
use crate::data::Unit;
use crate::evaluate::Quantity;
use crate::manifest::Metric;
use crate::plural::{agreeing, counted};

/// What a reader has to know of [`Metric::BitsPerByteNormalized`].
const NORMALIZED: &str = "bits_per_byte_normalized: the tokenizer changes the text (letter case, accents, white \
     space), so that this bounds the changed text and is not comparable with bits_per_byte";

/// What a reader has to know of [`Metric::PseudoPerplexity`].
const PSEUDO: &str = "pseudo_perplexity: each token is predicted from all others; it is neither a likelihood nor a bound \
     on one, and is not ranked with them";

/// What a reader has to know of [`Metric::PerplexityPerWord`].
const PER_WORD: &str = "perplexity_per_word: words are what lies between white space before the text was detokenized, ends of \
     lines left out";

/// Rows with lost text that are named at most.
const LOST_NAMED: usize = 3;

/// What must be said about the metrics of some rows: which are bounds, what they are per, and which do not compare.
#[must_use]
pub fn remarks(rows: &[&Row]) -> Vec<String> {
    let mut remarks = Vec::new();
    remarks.extend(quantities(rows));
    remarks.extend(units(rows));
    let tokenizers = |by: &dyn Fn(Metric) -> bool| {
        let has = |row: &&&Row| row.metrics.iter().any(|(metric, _)| by(*metric));
        let mut all: Vec<_> = rows.iter().filter(has).map(|row| row.tokenizer).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    let several = tokenizers(&Metric::is_per_token);
    if several > 1 {
        remarks.push(format!(
            "{}: not ranked, because they count the tokens of {several} tokenizers, and these do not compare",
            names(rows, Metric::is_per_token)
        ));
    }
    if measured(rows).contains(&Metric::BitsPerByteNormalized) {
        let mut remark = NORMALIZED.to_owned();
        let several = tokenizers(&|metric| metric == Metric::BitsPerByteNormalized);
        if several > 1 {
            let _ = write!(
                remark,
                "; not ranked, because {several} tokenizers change it differently, and the bounds do not compare"
            );
        }
        remarks.push(remark);
    }
    remarks.extend(ends(rows));
    remarks.extend(lengths(rows));
    if measured(rows).contains(&Metric::PerplexityPerWord) {
        remarks.push(PER_WORD.to_owned());
    }
    remarks.extend(lost(rows));
    if measured(rows).contains(&Metric::PseudoPerplexity) {
        remarks.push(PSEUDO.to_owned());
    }
    let published = rows.iter().filter(|row| row.published).count();
    if published > 0 {
        remarks.push(format!(
            "the published estimate in {published} of {}: it is lower than the bound and is not a bound, so that it \
             comes last",
            counted(rows.len(), "row")
        ));
    }
    remarks
}

/// The metrics that some row has, of those chosen.
fn names(rows: &[&Row], chosen: impl Fn(Metric) -> bool) -> String {
    let metrics = measured(rows).into_iter().filter(|metric| chosen(*metric));
    list(&metrics.map(Metric::name).collect::<Vec<_>>())
}

/// `a, b and c`.
fn list(words: &[&str]) -> String {
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// Says which values are exact; bounds alone need no word.
fn quantities(rows: &[&Row]) -> Option<String> {
    let all: Vec<&&Row> = rows.iter().filter(|row| row.trained_for().is_some()).collect();
    let exact = all.iter().filter(|row| row.quantity == Quantity::Exact).count();
    if exact == 0 {
        return None;
    }
    let are_exact = format!(
        "{exact} of {} {} exact",
        counted(all.len(), "row"),
        agreeing(exact, "is", "are")
    );
    Some(if are_signed(rows) {
        format!("≤ marks an upper bound; {are_exact}, without a sign")
    } else if exact < all.len() {
        are_exact
    } else {
        format!("{}: exact, not a bound", names(rows, Metric::is_of_text))
    })
}

/// Says what nats and perplexity are per.
fn units(rows: &[&Row]) -> Option<String> {
    let per_token = names(rows, Metric::is_per_token);
    let units = [Unit::Token, Unit::Position].map(|unit| [false, true].map(|scored| (unit, scored)));
    let found: Vec<(String, usize)> = units
        .as_flattened()
        .iter()
        .map(|&(unit, scored)| {
            let count = rows
                .iter()
                .filter(|row| (row.unit, row.scored) == (Some(unit), scored));
            (unit.per(scored), count.count())
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    let [(unit, some), others @ ..] = &*found else {
        return None;
    };
    if per_token.is_empty() {
        return None;
    }
    if others.is_empty() {
        return Some(format!("{per_token}: {unit}"));
    }
    let mut remark = format!("{per_token}: {unit} in {}", counted(*some, "row"));
    for (unit, count) in others {
        let _ = write!(remark, ", {unit} in {count}");
    }
    let these = if others.len() > 1 { "these" } else { "the two" };
    let _ = write!(remark, "; {these} are not comparable");
    let scored = rows.iter().filter(|row| row.unit.is_some() && row.scored).count();
    if scored > 0 {
        remark.push_str(": an autoregressive model is given the first token of each row");
        if ranks(Metric::BitsPerByte, rows) {
            remark.push_str("; compare them by bits_per_byte");
        }
    }
    Some(remark)
}

/// Says that numbers per token are not ranked where only some rows begin with context, and so leave BOS and EOS out.
fn ends(rows: &[&Row]) -> Option<String> {
    let of: Vec<&&Row> = rows.iter().filter(|row| row.unit.is_some()).collect();
    let context = of.iter().filter(|row| row.context).count();
    (context > 0 && context < of.len()).then(|| {
        format!(
            "{}: not ranked, because the BOS and EOS of rows count in {} of {} and not where rows begin with context; compare \
             them by bits_per_byte",
            names(rows, Metric::is_per_token),
            of.len() - context,
            counted(of.len(), "row"),
        )
    })
}

/// Says which metrics are not ranked because some rows were given the lengths of the records, and what to do.
fn lengths(rows: &[&Row]) -> Option<String> {
    let having = |metric: Metric| rows.iter().filter(move |row| row.metric(metric).is_some());
    let differ = |metric: Metric| {
        let given = having(metric).filter(|row| row.given_lengths).count();
        metric.is_of_text() && given > 0 && given < having(metric).count()
    };
    let metrics: Vec<Metric> = measured(rows)
        .into_iter()
        .filter(|&metric| differ(metric))
        .collect();
    let of: Vec<&&Row> = rows
        .iter()
        .filter(|row| metrics.iter().any(|metric| row.metric(*metric).is_some()))
        .collect();
    let given = of.iter().filter(|row| row.given_lengths).count();
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
    (!metrics.is_empty()).then(|| {
        format!(
            "{}: not ranked, because {given} of {} {} the lengths of the records by the padding, which is excluded, and \
             {} not; pack the rows with `\"padding\": \"counted\"` to compare them",
            list(&names),
            counted(of.len(), "row"),
            agreeing(given, "is given", "are given"),
            agreeing(of.len() - given, "the other is", "the others are"),
        )
    })
}

/// Says of which rows text was lost, and how much of their bits per byte spells it out: nats and perplexity have no part of
/// that.
fn lost(rows: &[&Row]) -> Option<String> {
    let (differ, _) = fields(rows);
    let named = differ.is_empty() || rows.iter().any(|row| row.name != rows[0].name);
    let found = rows.iter().filter(|row| row.lost_bits_per_byte > 0.0);
    let mut said: Vec<String> = found
        .map(|row| {
            let name = row.name.as_deref().filter(|_| named);
            let bits = [Metric::BitsPerByte, Metric::BitsPerByteNormalized];
            let bits = bits.into_iter().find_map(|metric| row.metric(metric));
            let share = bits.map_or(0.0, |bits| 100.0 * row.lost_bits_per_byte / bits.value);
            let called = Some(title(name, &row.point, &differ)).filter(|title| !title.is_empty());
            format!(
                "{share:.1}% of the bits per byte of {}",
                called.as_deref().unwrap_or("the result")
            )
        })
        .collect();
    let more = said.len().saturating_sub(LOST_NAMED);
    said.truncate(LOST_NAMED);
    if more > 0 {
        said.push(format!("those of {more} more"));
    }
    (!said.is_empty()).then(|| {
        format!(
            "a tokenizer lost text: {} spell it out; nats_per_token and perplexity leave it out",
            said.join(", ")
        )
    })
}
