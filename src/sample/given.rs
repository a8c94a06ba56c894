//! Rows with given tokens, from texts with holes.

use super::UNSEEN;
use crate::data::SpecialIds;
use crate::error::{Error, Result};
use crate::plural::counted;

/// A part of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenPart {
    /// Tokens that are given.
    Given(Vec<u32>),
    /// So many tokens that are drawn.
    Hole(usize),
    /// Tokens that are drawn, as many as the row has room for.
    Rest,
}

/// The row (L) that begins with BOS and has these parts, [`UNSEEN`] where a token is drawn. If `Rest` is among them and last,
/// the row ends as it is drawn; else what follows it stands at the end of the row, with EOS. Without `Rest`, EOS comes after the
/// last part; then padding where rows are padded, or, with `wrap`, what is drawn.
///
/// # Errors
/// The parts are longer than the row, or leave nothing to draw.
pub fn row(parts: &[GivenPart], special: SpecialIds, wrap: bool, length: usize) -> Result<Vec<u32>> {
    let rest = parts.iter().position(|part| *part == GivenPart::Rest);
    let (before, after) = parts.split_at(rest.unwrap_or(parts.len()));
    let after = after.get(1..).unwrap_or_default();
    // Holes may be larger than any memory: they are counted before they are made.
    let count = |parts: &[GivenPart]| -> usize {
        let count = |part: &GivenPart| match part {
            GivenPart::Given(tokens) => tokens.len(),
            GivenPart::Hole(count) => *count,
            GivenPart::Rest => 0,
        };
        parts.iter().map(count).fold(0, usize::saturating_add)
    };
    let has_end = rest.is_none() || !after.is_empty();
    let taken = [count(before), count(after), usize::from(has_end)]
        .into_iter()
        .fold(1, usize::saturating_add);
    if taken.saturating_add(usize::from(rest.is_some())) > length {
        return Err(Error::input(format!(
            "the given text has {} with the tokens that begin and end it, but a row has {length}{}",
            counted(taken as u64, "token"),
            if rest.is_some() {
                ", of which one at least is drawn"
            } else {
                ""
            }
        ))
        .hint("give fewer tokens, or use a model with longer rows"));
    }
    let tokens = |parts: &[GivenPart]| -> Vec<u32> {
        parts
            .iter()
            .flat_map(|part| match part {
                GivenPart::Given(tokens) => tokens.clone(),
                GivenPart::Hole(count) => vec![UNSEEN; *count],
                GivenPart::Rest => Vec::new(),
            })
            .collect()
    };
    let mut row = vec![special.bos];
    row.extend(tokens(before));
    let mut end = tokens(after);
    if has_end {
        end.push(special.eos);
    }
    if rest.is_some() {
        row.resize(length - end.len(), UNSEEN);
    } else {
        row.append(&mut end);
        row.resize(length, if wrap { UNSEEN } else { special.pad });
    }
    row.extend(end);
    if !row.contains(&UNSEEN) {
        return Err(Error::input("the given text leaves no token to draw")
            .hint("write a hole: `⟨4⟩` stands for 4 tokens, `⟨…⟩` for all that the row has room for"));
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialIds = SpecialIds {
        bos: 10,
        eos: 11,
        pad: 12,
        mask: 13,
    };
    const U: u32 = UNSEEN;

    #[test]
    fn given_row_has_its_parts_in_place() {
        let of = |parts: &[GivenPart], wrap| row(parts, SPECIAL, wrap, 8).unwrap();
        let given = |tokens: &[u32]| GivenPart::Given(tokens.to_vec());
        let prompt = [given(&[1, 2]), GivenPart::Rest];
        assert_eq!(of(&prompt, true), [10, 1, 2, U, U, U, U, U]);
        assert_eq!(of(&prompt, false), of(&prompt, true));
        let suffix = [GivenPart::Rest, given(&[3])];
        assert_eq!(of(&suffix, true), [10, U, U, U, U, U, 3, 11]);
        let both = [given(&[1]), GivenPart::Rest, given(&[3]), GivenPart::Hole(1)];
        assert_eq!(of(&both, false), [10, 1, U, U, U, 3, U, 11]);
        let holes = [given(&[1]), GivenPart::Hole(2), given(&[3])];
        assert_eq!(of(&holes, false), [10, 1, U, U, 3, 11, 12, 12]);
        assert_eq!(of(&holes, true), [10, 1, U, U, 3, 11, U, U]);
    }

    #[test]
    fn given_text_that_fills_the_row_is_refused() {
        let given = |count| GivenPart::Given(vec![1; count]);
        let fails = |parts: &[GivenPart]| {
            row(parts, SPECIAL, false, 8)
                .map_err(|error| error.to_string())
                .unwrap_err()
        };
        assert!(fails(&[given(7), GivenPart::Rest]).contains("8 tokens"));
        assert!(row(&[given(6), GivenPart::Rest], SPECIAL, false, 8).is_ok());
        assert!(fails(&[GivenPart::Rest, given(6)]).contains("8 tokens"));
        assert!(fails(&[given(6), GivenPart::Hole(1)]).contains("9 tokens"));
        assert!(fails(&[given(3)]).contains("leaves no token"));
        for huge in [4_000_000_000, usize::MAX] {
            let parts = [given(1), GivenPart::Hole(huge), GivenPart::Hole(huge)];
            assert!(fails(&parts).contains("but a row has 8"));
        }
    }
}
