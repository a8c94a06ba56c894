//! Tables of text that fit a terminal of 80 columns, and numbers as people read them.

use std::time::Duration;

use crate::plural::counted;

/// Columns of a terminal that everything fits into.
pub const WIDTH: usize = 80;
/// Columns beyond which lines are no longer easy to read.
const WIDEST: usize = 160;

/// Columns that text on standard output may take: those of its terminal, [`WIDTH`] where it is none.
#[must_use]
pub fn width() -> usize {
    let size = console::Term::stdout().size_checked();
    // Snapshots do not depend on where they are looked at.
    let size = size.filter(|_| !cfg!(test));
    size.map_or(WIDTH, |(_, columns)| {
        usize::from(columns).clamp(WIDTH / 2, WIDEST)
    })
}

/// Words broken into lines of at most `width` characters. A word that is longer has a line of its own.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let more = word.chars().count();
        match lines.last_mut() {
            Some(line) if length + 1 + more <= width => {
                line.push(' ');
                line.push_str(word);
                length += 1 + more;
            }
            _ => {
                lines.push(word.to_owned());
                length = more;
            }
        }
    }
    lines
}

/// Rows with their columns aligned, two spaces apart; the last column is wrapped. Cells may be painted by `paint`
/// (row, column, padded cell), which sees them after they were measured.
#[must_use]
pub fn columns(rows: &[Vec<String>], paint: impl Fn(usize, usize, &str) -> String) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..count.saturating_sub(1)).map(width_of).collect();
    let indent: usize = widths.iter().map(|width| width + 2).sum();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let padding = " ".repeat(width - cell.chars().count() + 2);
            line.push_str(&paint(index, column, cell));
            line.push_str(&padding);
        }
        let last = row.get(widths.len()).map_or("", String::as_str);
        let lines = wrap(last, width().saturating_sub(indent).max(20));
        for (number, part) in lines.iter().enumerate() {
            if number > 0 {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(indent);
            }
            line.push_str(&paint(index, widths.len(), part));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How long something ran; of a resumed training, with the step from which it resumed.
#[must_use]
pub fn took(seconds: f64, resumed_from: Option<u64>) -> String {
    let from = resumed_from.map_or_else(String::new, |step| format!(" from step {step} on"));
    format!("{}{from}", duration(seconds))
}

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

/// A whole number with its thousands set off: `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in decimal units: `1.24 GB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        // What would round up to 1000 belongs to the next unit.
        if size < 999.5 {
            return if unit == "bytes" {
                counted(bytes, "byte")
            } else {
                format!("{} {unit}", three(size))
            };
        }
        size /= 1000.0;
    }
    format!("{} TB", three(size))
}

/// A positive number with three significant digits and no exponent: `1.24`, `12.4`, `124`.
fn three(value: f64) -> String {
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Seconds as people say them: `0.4 s`, `12.3 s`, `4m 05s`, `3h 07m`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        return format!("{}m {:02}s", whole / 60, whole % 60);
    }
    let minutes = (whole + 30) / 60;
    format!("{}h {:02}m", minutes / 60, minutes % 60)
}

/// A rate: `12.3/s`, `1,234/s`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if per_second < 999.5 {
        format!("{}/s", three(per_second))
    } else {
        format!("{}/s", count(per_second.round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
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

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 12, 999, 1000, 1_234_567].map(count),
            ["0", "12", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 999, 1000, 12_345, 999_600, 1_240_000_000, 5_000_000_000_000].map(bytes),
            [
                "0 bytes",
                "999 bytes",
                "1.00 kB",
                "12.3 kB",
                "1.00 MB",
                "1.24 GB",
                "5.00 TB"
            ]
        );
        assert_eq!(
            [
                0.0, 0.44, 59.94, 59.96, 245.0, 3599.4, 3599.9, 11_220.0, 360_000.0
            ]
            .map(duration),
            [
                "0.0 s", "0.4 s", "59.9 s", "1m 00s", "4m 05s", "59m 59s", "1h 00m", "3h 07m", "100h 00m"
            ]
        );
        assert_eq!(
            [0.123, 9.996, 12.34, 123.4, 1234.5].map(rate),
            ["0.12/s", "10.0/s", "12.3/s", "123/s", "1,235/s"]
        );
    }

    #[test]
    fn the_last_column_wraps_under_itself() {
        let rows = vec![
            vec!["text".to_owned(), "cached".to_owned(), String::new()],
            vec!["model".to_owned(), "done".to_owned(), "word ".repeat(20)],
        ];
        let text = columns(&rows, |_, _, cell| cell.to_owned());
        insta::assert_snapshot!(text, @r"
        text   cached
        model  done    word word word word word word word word word word word word word
                       word word word word word word word
        ");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    }
}
