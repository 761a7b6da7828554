//! Durations in the form that people write and read.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use redstart::memory::{Clock as _, SystemClock};

/// Reads `90s`, `15m`, `2h`, `7d`, `1h30m`; a day has 24 hours.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let rule = || "must be a time such as 500ms, 90s, 15m, 2h or 7d, without a sign".to_owned();
    let span: Span = text.parse().map_err(|_| rule())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    Duration::try_from(duration.map_err(|_| rule())?).map_err(|_| rule())
}

/// A duration in its two largest units.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago something happened, in milliseconds of the store's clock; zero when that clock is
/// ahead of this machine's.
pub(crate) fn since(millis: u64) -> Duration {
    let now = u64::try_from(SystemClock.now().as_millis()).unwrap_or(0);
    Duration::from_millis(now.saturating_sub(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5_400)));
        for bad in ["", "5", "-5s", "soon", "1 month"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_in_two_units() {
        let written = [0, 7, 61, 3_660, 90_000].map(|s| short(Duration::from_secs(s)));
        assert_eq!(
            written,
            ["0 ms", "7 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
    }
}
