//! Durations in whole milliseconds, the unit of the stores.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::error::{Error, ErrorKind};

/// The longest delay of a message: a hundred years.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A duration in whole milliseconds, rounded up, so that nothing happens too early.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A time to live in whole milliseconds; 0 means none.
pub(crate) fn ttl_millis(operation: &'static str, ttl: Option<Duration>) -> Result<u64, Error> {
    let Some(ttl) = ttl else { return Ok(0) };
    // Stores add the current time, so the bound leaves half of the 63 bits free.
    u64::try_from(ttl.as_millis())
        .ok()
        .filter(|millis| (1..=i64::MAX as u64 / 2).contains(millis))
        .ok_or_else(|| {
            let rule =
                format!("a time to live is at least 1 ms, at most 146 million years, not {ttl:?}");
            Error::new(ErrorKind::Invalid, operation, rule)
        })
}

/// Parses `90s`, `15m`, `2h`, `7d`, `1h30m`; a day has 24 hours.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    Duration::try_from(duration.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_millisecond_counts_as_a_whole_one() {
        assert_eq!(whole_millis(Duration::from_micros(1)), 1);
        assert_eq!(whole_millis(Duration::ZERO), 0);
        assert_eq!(whole_millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_time_to_live_is_at_least_a_millisecond() {
        assert_eq!(ttl_millis("set", None).unwrap(), 0);
        assert_eq!(
            ttl_millis("set", Some(Duration::from_millis(7))).unwrap(),
            7
        );
        for bad in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
            let error = ttl_millis("set", Some(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
}
