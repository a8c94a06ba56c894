//! Texts with holes: `The ⟨…⟩ of ⟨4⟩ is`.

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text that is given.
    Text(String),
    /// So many tokens that are drawn.
    Hole(u32),
    /// Tokens that are drawn, as many as the row has room for.
    Rest,
}

/// Begins a hole.
const OPEN: char = '⟨';
/// Ends a hole.
const CLOSE: char = '⟩';

/// The pieces of a template: `⟨4⟩` is a hole of 4 tokens, `⟨…⟩` or `⟨...⟩` one that fills the row, and `⟨⟨` the character
/// itself.
///
/// # Errors
/// What is wrong, as a fragment: a hole without an end, without a number, of no token, a second `⟨…⟩`, or no hole.
pub fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut given) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        given += &rest[..at];
        rest = &rest[at + OPEN.len_utf8()..];
        if let Some(after) = rest.strip_prefix(OPEN) {
            given.push(OPEN);
            rest = after;
            continue;
        }
        let Some(end) = rest.find(CLOSE) else {
            return Err(format!("the hole `{OPEN}{rest}` has no end"));
        };
        let inside = rest[..end].trim();
        let hole = match inside {
            "…" | "..." if pieces.contains(&Piece::Rest) => {
                return Err(format!("a second `{OPEN}…{CLOSE}`: the row has room for one"));
            }
            "…" | "..." => Piece::Rest,
            number => match number.parse() {
                Ok(tokens) if tokens > 0 => Piece::Hole(tokens),
                _ => {
                    return Err(format!(
                        "the hole `{OPEN}{inside}{CLOSE}` is not a number of tokens from 1 on, nor `…`"
                    ));
                }
            },
        };
        if !given.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut given)));
        }
        pieces.push(hole);
        rest = &rest[end + CLOSE.len_utf8()..];
    }
    given += rest;
    if !given.is_empty() {
        pieces.push(Piece::Text(given));
    }
    if !pieces.iter().any(|piece| !matches!(piece, Piece::Text(_))) {
        return Err("the template has no hole".to_owned());
    }
    Ok(pieces)
}

/// A text as a template without holes: what begins a hole is written twice.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace(OPEN, "⟨⟨")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn template_is_texts_and_holes() {
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            parse("The ⟨…⟩ of ⟨4⟩ is").unwrap(),
            [
                text("The "),
                Piece::Rest,
                text(" of "),
                Piece::Hole(4),
                text(" is")
            ]
        );
        assert_eq!(parse("⟨ ... ⟩").unwrap(), [Piece::Rest]);
        assert_eq!(parse("a ⟨⟨b⟩ ⟨1⟩").unwrap(), [text("a ⟨b⟩ "), Piece::Hole(1)]);
        for (template, fault) in [
            ("no hole", "no hole"),
            ("a ⟨⟨b⟩", "no hole"),
            ("", "no hole"),
            ("a ⟨4", "has no end"),
            ("a ⟨0⟩", "`⟨0⟩` is not a number"),
            ("a ⟨x⟩", "`⟨x⟩` is not a number"),
            ("a ⟨⟩", "`⟨⟩` is not a number"),
            ("a ⟨-1⟩", "`⟨-1⟩` is not a number"),
            ("⟨…⟩ and ⟨…⟩", "a second"),
        ] {
            let found = parse(template).unwrap_err();
            assert!(found.contains(fault), "{template}: {found}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_is_given_as_it_is(text in "[a⟨⟩4… ]{0,12}") {
            let pieces = parse(&format!("{}⟨2⟩", escape(&text))).unwrap();
            let given: String = pieces.iter().filter_map(|piece| match piece {
                Piece::Text(text) => Some(text.as_str()),
                _ => None,
            }).collect();
            prop_assert_eq!(given, text);
            prop_assert_eq!(pieces.last(), Some(&Piece::Hole(2)));
        }

        #[test]
        fn template_never_panics(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
