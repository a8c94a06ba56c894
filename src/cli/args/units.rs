//! Sizes and times as people write them in arguments.

use std::time::Duration;

/// A size as people write it: `800000`, `64MB`, `1.5 GB`, `2GiB`.
///
/// # Errors
/// The text is not a number with a unit, or the value is out of range; the error says which.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let factor = match unit.as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => f64::from(1 << 10),
        "mib" => f64::from(1 << 20),
        "gib" => f64::from(1 << 30),
        "tib" => f64::from(1 << 20) * f64::from(1 << 20),
        _ => {
            return Err(format!(
                "`{unit}` is not a unit: write kB, MB, GB, TB, KiB, MiB, GiB or TiB"
            ));
        }
    };
    let number: f64 = digits
        .trim()
        .parse()
        .map_err(|_| "write a number and a unit: `8GB`".to_owned())?;
    let bytes = number * factor;
    if (1.0..1e18).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err("it is not between 1 byte and 10^18".to_owned())
    }
}

/// A stretch of time as people write it: `30`, `30s`, `10m`, `1.5h`, `1d`.
///
/// # Errors
/// The text is not a number with a unit, or the value is out of range; the error says which.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        unit => return Err(format!("`{unit}` is not a unit: write s, m, h or d")),
    };
    let number: f64 = digits
        .trim()
        .parse()
        .map_err(|_| "write a number and a unit: `30s`".to_owned())?;
    let seconds = number * factor;
    if (0.1..1e9).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is not between 0.1 seconds and 10^9".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_with_units() {
        for (text, bytes) in [
            ("800", 800),
            ("64MB", 64_000_000),
            ("1.5 GB", 1_500_000_000),
            ("2gib", 2 << 30),
            ("1KiB", 1024),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1e30", "0", "nan", "3 parsecs", "1.2.3kB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
