//! Moments as text: RFC 3339 in UTC, of fixed width, so that their order is that of their text.

use std::time::SystemTime;

use jiff::Timestamp;

/// A moment in UTC. Before 1970 and after 9999-12-30, which only a broken clock shows, it is the start of 1970.
#[must_use]
pub fn utc(moment: SystemTime) -> Timestamp {
    let moment = Timestamp::try_from(moment).unwrap_or_default();
    moment.max(Timestamp::UNIX_EPOCH)
}

/// A moment to the millisecond: `2026-01-31T09:05:07.123Z`.
#[must_use]
pub fn rfc3339(moment: SystemTime) -> String {
    format!("{:.3}", utc(moment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn time_of_known_moments() {
        let at = |seconds, nanoseconds| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanoseconds));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 5_000_000), "2000-02-29T00:00:00.005Z");
        // Cut, not rounded.
        assert_eq!(at(1_709_251_199, 999_999_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(at(1_234_567_890, 0), "2009-02-13T23:31:30.000Z");
        assert_eq!(at(4_102_444_800, 0), "2100-01-01T00:00:00.000Z");
        assert_eq!(at(253_402_300_800, 0), "1970-01-01T00:00:00.000Z");
        let early = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rfc3339(early), "1970-01-01T00:00:00.000Z");
    }
}
