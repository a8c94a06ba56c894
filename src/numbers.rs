//! Numbers, sizes, times and intervals as people read them.

use crate::plural::counted;

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

/// Bytes in binary units: `1.5 KiB`.
#[must_use]
pub fn binary_bytes(bytes: usize) -> String {
    scaled(bytes as f64, 1024.0, &[" B", " KiB", " MiB", " GiB"])
}

/// Bytes, a power of two, without decimals: `512 B`, `4 KiB`.
#[must_use]
pub fn power_of_two(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(3);
    format!("{} {}", bytes >> (10 * unit), units[unit as usize])
}

/// A limit in bytes as people write it: `64 MiB`, `1000 bytes`.
#[must_use]
pub fn limit(bytes: u64) -> String {
    if bytes >> 20 > 0 && bytes.trailing_zeros() >= 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        counted(bytes, "byte")
    }
}

/// A number with a decimal and its unit: `5`, `130.5 M`.
#[must_use]
pub fn abbreviated(number: usize) -> String {
    scaled(number as f64, 1000.0, &["", " k", " M", " G"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while number >= step && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    if unit == 0 {
        format!("{number}{}", units[0])
    } else {
        format!("{number:.1}{}", units[unit])
    }
}

/// Floating-point operations: `5 FLOP`, `1.24 TFLOP`.
#[must_use]
pub fn operations(operations: f64) -> String {
    let mut number = operations;
    for unit in ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"] {
        if number < 999.5 {
            return match unit {
                "FLOP" => format!("{number:.0} FLOP"),
                unit => format!("{} {unit}", three(number)),
            };
        }
        number /= 1000.0;
    }
    format!("{} EFLOP", three(number))
}

/// A number with the half of its interval: `1.2345 ± 0.0067`; alone where the interval is not defined.
#[must_use]
pub fn plus_minus(value: f64, ends: Option<(f64, f64)>, decimals: usize) -> String {
    match ends {
        Some((low, high)) => format!("{value:.decimals$} ± {:.decimals$}", (high - low) / 2.0),
        None => format!("{value:.decimals$}"),
    }
}

/// A number with the ends of its interval, which need not be symmetric: `3.45 (3.40 to 3.50)`, `41.3% (40.1% to 42.6%)`.
#[must_use]
pub fn with_ends(value: f64, ends: Option<(f64, f64)>, decimals: usize, unit: &str) -> String {
    match ends {
        Some((low, high)) => {
            format!("{value:.decimals$}{unit} ({low:.decimals$}{unit} to {high:.decimals$}{unit})")
        }
        None => format!("{value:.decimals$}{unit}"),
    }
}

/// The same for the cell of a table: `41.3% (40.1–42.6%)`.
#[must_use]
pub fn with_ends_in_cell(value: f64, ends: Option<(f64, f64)>, decimals: usize, unit: &str) -> String {
    match ends {
        Some((low, high)) => {
            format!("{value:.decimals$}{unit} ({low:.decimals$}–{high:.decimals$}{unit})")
        }
        None => format!("{value:.decimals$}{unit}"),
    }
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

/// How long something ran; of a resumed training, with the step from which it resumed.
#[must_use]
pub fn took(seconds: f64, resumed_from: Option<u64>) -> String {
    let from = resumed_from.map_or_else(String::new, |step| format!(" from step {step} on"));
    format!("{}{from}", duration(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_separators_and_units() {
        assert_eq!(
            [0, 12, 999, 1000, 1_234_567].map(count),
            ["0", "12", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0.0, 999.0, 12_345.0, 1.24e12, 9.996e17, 5e18].map(operations),
            [
                "0 FLOP",
                "999 FLOP",
                "12.3 kFLOP",
                "1.24 TFLOP",
                "1.00 EFLOP",
                "5.00 EFLOP"
            ]
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
    fn binary_sizes_and_limits_have_units() {
        assert_eq!(
            [1, 1024, 3 << 30].map(binary_bytes),
            ["1 B", "1.0 KiB", "3.0 GiB"]
        );
        assert_eq!(
            [1, 512, 4096, 1 << 40].map(power_of_two),
            ["1 B", "512 B", "4 KiB", "1024 GiB"]
        );
        assert_eq!(
            [1000, 64 << 20, (64 << 20) + 1].map(limit),
            ["1000 bytes", "64 MiB", "67108865 bytes"]
        );
        assert_eq!([999, 169_627_962].map(abbreviated), ["999", "169.6 M"]);
    }

    #[test]
    fn intervals_are_shown_beside_their_number() {
        let ends = Some((0.9, 1.1));
        assert_eq!(plus_minus(1.0, ends, 2), "1.00 ± 0.10");
        assert_eq!(with_ends(1.0, ends, 2, ""), "1.00 (0.90 to 1.10)");
        assert_eq!(with_ends(1.0, ends, 1, "%"), "1.0% (0.9% to 1.1%)");
        assert_eq!(with_ends_in_cell(1.0, ends, 1, "%"), "1.0% (0.9–1.1%)");
        let alone = [
            plus_minus(1.0, None, 2),
            with_ends(1.0, None, 2, ""),
            with_ends_in_cell(1.0, None, 2, ""),
        ];
        assert_eq!(alone, ["1.00"; 3]);
    }
}
