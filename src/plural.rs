//! Counts with their nouns, as texts for people have them: `1 record`, `2 records`.

/// A count and its noun: `1 record`, `2 records`, `1 entry`, `0 entries`.
#[must_use]
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = number(count);
    format!("{count} {}", of(count, noun))
}

/// The noun alone, where the count is written otherwise: with separators between thousands, for example.
#[must_use]
pub fn of(count: impl TryInto<u64>, noun: &str) -> String {
    if number(count) == 1 {
        return noun.to_owned();
    }
    match noun.as_bytes() {
        [.., before, b'y'] if !b"aeiou".contains(before) => format!("{}ies", &noun[..noun.len() - 1]),
        [.., b's' | b'x' | b'z'] | [.., b'c' | b's', b'h'] => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// The word that agrees with a count: `1 file is`, `2 files are`.
#[must_use]
pub fn agreeing<'w>(count: impl TryInto<u64>, one: &'w str, many: &'w str) -> &'w str {
    if number(count) == 1 { one } else { many }
}

fn number(count: impl TryInto<u64>) -> u64 {
    // What is no `u64` is surely not one.
    count.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noun_agrees_with_its_count() {
        for (count, noun, expected) in [
            (0, "record", "0 records"),
            (1, "record", "1 record"),
            (2, "record", "2 records"),
            (1, "entry", "1 entry"),
            (3, "entry", "3 entries"),
            (2, "key", "2 keys"),
            (2, "process", "2 processes"),
            (2, "batch", "2 batches"),
            (2, "branch", "2 branches"),
            (2, "path", "2 paths"),
        ] {
            assert_eq!(counted(count, noun), expected);
        }
        assert_eq!(format!("60,000 {}", of(60_000_u64, "record")), "60,000 records");
        assert_eq!(
            (agreeing(1, "is", "are"), agreeing(0, "is", "are")),
            ("is", "are")
        );
    }
}
