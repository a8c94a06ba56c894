//! Numbers and words as other languages spell them, and how JSON spells them.

/// RFC 8259: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
pub(super) fn is_json_number(literal: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = literal.strip_prefix('-').unwrap_or(literal);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (integer, fraction) = match mantissa.split_once('.') {
        Some((integer, fraction)) => (integer, Some(fraction)),
        None => (mantissa, None),
    };
    digits(integer)
        && (integer == "0" || !integer.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

/// The fault and the way out of a JSON number that 64 bits cannot hold: `1e400`, `1e-400`.
pub(super) fn beyond(text: &str) -> Option<(&'static str, &'static str)> {
    let plain = unquoted(text);
    let value: f64 = plain.parse().ok().filter(|_| is_json_number(plain))?;
    let mantissa = plain.split(['e', 'E']).next().unwrap_or_default();
    if !value.is_finite() {
        Some(("is not a finite number", "write a finite number"))
    } else if value == 0.0 && mantissa.bytes().any(|digit| matches!(digit, b'1'..=b'9')) {
        Some((
            "is too small for a 64-bit number",
            "write 0, or a magnitude of at least 2.3e-308",
        ))
    } else {
        None
    }
}

/// The way out for a text that was meant as a number and is none in JSON: `.001` is `0.001`. Nothing for a text that
/// is not meant as a number, or that is one already.
pub(super) fn number_hint(text: &str) -> Option<String> {
    let plain = unquoted(text);
    if is_json_number(plain) {
        return None;
    }
    if is_not_finite(plain) {
        return Some("write a finite number".to_owned());
    }
    if let Some(number) = meant_number(plain) {
        return Some(format!("write {number}"));
    }
    let mantissa = plain
        .trim_end_matches(['+', '-'])
        .strip_suffix(['e', 'E'])
        .filter(|rest| {
            rest.bytes()
                .next_back()
                .is_some_and(|b| b.is_ascii_digit() || b == b'.')
        })
        .and_then(json_number);
    mantissa.map(|mantissa| format!("write an exponent after the `e`, as in {mantissa}e-4"))
}

/// The number that a text means, as JSON spells it: `0x10` is 16, `1/4` is 0.25.
pub(super) fn meant_number(text: &str) -> Option<String> {
    let plain = unquoted(text);
    if is_json_number(plain) {
        return Some(plain.to_owned());
    }
    json_number(plain).or_else(|| {
        let (top, bottom) = plain.split_once('/')?;
        let parsed = |text: &str| json_number(text.trim())?.parse::<f64>().ok();
        let ratio = parsed(top)? / parsed(bottom)?;
        ratio.is_finite().then(|| ratio.to_string())
    })
}

/// `inf`, `-Infinity`, `NaN` and their like.
pub(super) fn is_not_finite(text: &str) -> bool {
    let word = text.trim_start_matches(['-', '+', '.']).to_ascii_lowercase();
    matches!(word.as_str(), "inf" | "infinity" | "infty" | "nan" | "∞")
}

/// `true` or `false`, where a text means that.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match unquoted(text).to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Whether a text is a truth value in words, as other languages spell them: `True`, `FALSE`.
pub(super) fn is_truth(text: &str) -> bool {
    matches!(unquoted(text).to_ascii_lowercase().as_str(), "true" | "false")
}

/// Whether a text means that there is no value.
pub(super) fn is_nothing(text: &str) -> bool {
    let word = unquoted(text).to_ascii_lowercase();
    matches!(
        word.as_str(),
        "none" | "null" | "nil" | "undefined" | "~" | "na" | "n/a"
    )
}

/// A text without white space and quotes around it.
pub(super) fn unquoted(text: &str) -> &str {
    let text = text.trim();
    ['\'', '"', '`']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(text)
        .trim()
}

/// A number as JSON spells it: `.5` as `0.5`, `+1` as `1`, `1.` as `1`, `007` as `7`, `0x10` as `16`, `1_000` and `1,000` as
/// `1000`, `0,5` as `0.5`, `10k` as `10000`, `5%` as `0.05`, `10^-3` as `1e-3`.
fn json_number(text: &str) -> Option<String> {
    let (sign, rest) = match text.strip_prefix(['-', '−']) {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = rest.replace(['_', '\u{a0}', '\u{202f}', '\u{2009}'], "");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = rest.to_ascii_lowercase().strip_prefix(prefix) {
            let number = u64::from_str_radix(digits, radix).ok()?;
            return (!digits.starts_with('+')).then(|| format!("{sign}{number}"));
        }
    }
    if let Some(exponent) = rest.strip_prefix("10**").or_else(|| rest.strip_prefix("10^")) {
        return finite(format!("{sign}1e{}", integer(exponent)?));
    }
    let (rest, shift) = match rest.char_indices().next_back()? {
        (end, '%') => (&rest[..end], Some(-2)),
        (end, 'k' | 'K') => (&rest[..end], Some(3)),
        (end, 'M') => (&rest[..end], Some(6)),
        (end, 'G') => (&rest[..end], Some(9)),
        // Of other languages: 1.0f, 10L.
        (end, 'f' | 'F' | 'd' | 'D' | 'l' | 'L' | 'u') => (&rest[..end], None),
        _ => (rest.as_str(), None),
    };
    let rest = without_commas(rest)?;
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, integer(exponent)?),
        None => (rest.as_str(), String::new()),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let e = if exponent.is_empty() { "" } else { "e" };
    let Some(shift) = shift else {
        return finite(format!("{sign}{whole}{point}{fraction}{e}{exponent}"));
    };
    let exponent = if exponent.is_empty() {
        0
    } else {
        exponent.parse::<i64>().ok()?
    };
    let value: f64 = format!("{sign}{whole}{point}{fraction}e{}", exponent + shift)
        .parse()
        .ok()?;
    finite(format!("{value}"))
}

/// The digits of an exponent with a sign that JSON takes.
fn integer(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix(['-', '−']) {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let is_integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_integer.then(|| format!("{sign}{digits}"))
}

/// Removes commas that separate thousands, and replaces a decimal comma by a point.
fn without_commas(text: &str) -> Option<String> {
    let mut parts = text.split(',');
    let first = parts.next()?;
    let rest: Vec<&str> = parts.collect();
    let thousands = |part: &&str| part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit());
    match rest.as_slice() {
        [] => Some(text.to_owned()),
        [one] if !text.contains('.') && (!thousands(one) || first.starts_with('0')) => {
            Some(format!("{first}.{one}"))
        }
        [.., last] if (1..=3).contains(&first.len()) => {
            let last = last.split('.').next().unwrap_or_default();
            let all = rest[..rest.len() - 1].iter().chain([&last]).all(thousands);
            all.then(|| text.replace(',', ""))
        }
        _ => None,
    }
}

/// A number, unless it is too large for 64 bits.
fn finite(number: String) -> Option<String> {
    let is_fine = is_json_number(&number) && number.parse::<f64>().is_ok_and(f64::is_finite);
    is_fine.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelt_as_json_spells_them() {
        for (text, number) in [
            (".001", "0.001"),
            ("-.5", "-0.5"),
            ("1.", "1"),
            ("1.e-3", "1e-3"),
            ("+1", "1"),
            ("+.5", "0.5"),
            ("007", "7"),
            ("00", "0"),
            ("0x10", "16"),
            ("0XfF", "255"),
            ("0b101", "5"),
            ("1_000", "1000"),
            ("1_000.5e+0_3", "1000.5e03"),
            ("1,000", "1000"),
            ("1,234,567.5", "1234567.5"),
            ("0,5", "0.5"),
            ("3,25", "3.25"),
            ("10k", "10000"),
            ("1.5M", "1500000"),
            ("5%", "0.05"),
            ("10^-3", "1e-3"),
            ("10**4", "1e4"),
            ("1.0f", "1.0"),
            ("−3", "-3"),
            ("'5.'", "5"),
            (" .5 ", "0.5"),
            ("1/4", "0.25"),
        ] {
            assert_eq!(number_hint(text), Some(format!("write {number}")), "{text}");
            assert!(is_json_number(number), "{number}");
        }
        for text in ["inf", "-inf", "+Infinity", "NaN", "nan", "-.inf"] {
            assert_eq!(
                number_hint(text).as_deref(),
                Some("write a finite number"),
                "{text}"
            );
        }
        for (text, example) in [("1e", "1e-4"), ("2.5E-", "2.5e-4"), ("1.e", "1e-4")] {
            let hint = format!("write an exponent after the `e`, as in {example}");
            assert_eq!(number_hint(text), Some(hint), "{text}");
        }
        for text in [
            "", "many", "e", ".", "-", "1.2.3", "0x", "0xg", "1,2,3", "1e999k", "1/0", "k", "--1", "1 2",
            "12:30",
        ] {
            assert_eq!(number_hint(text), None, "{text}");
        }
        assert_eq!(number_hint("0.5"), None, "it is one");
        for (text, what) in [
            ("1e400", "is not a finite number"),
            ("-1E+309", "is not a finite number"),
            ("'1e400'", "is not a finite number"),
            ("1e-400", "is too small for a 64-bit number"),
        ] {
            assert_eq!(beyond(text).map(|(what, _)| what), Some(what), "{text}");
        }
        for text in ["1e308", "0e-400", "-0.0", "inf", "many", ""] {
            assert_eq!(beyond(text), None, "{text}");
        }
    }
}
