//! Points in time, to the millisecond, UTC.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use jiff::fmt::temporal::Pieces;

use super::as_text::as_text;
use super::error::{Error, ErrorKind};

/// A point in time, UTC, with millisecond resolution.
///
/// Its text is RFC 3339 with three fractional digits, like the `ts` of an envelope:
/// `2025-11-12T14:20:00.123Z`. Parsing cuts finer digits. The last time is `9999-12-30T22:00:00.000Z`;
/// parsing reads a later time of the year 9999 as this one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(jiff::Timestamp);

/// The length of the longest text, `-009999-01-02T01:59:59.000Z`.
pub(crate) const LONGEST: usize = 27;

impl Timestamp {
    /// The last representable time, in the year 9999.
    pub(crate) const MAX: Self = Self(jiff::Timestamp::constant(253_402_207_200, 0));

    /// The time `millis` milliseconds after 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] outside the years -9999 to 9999.
    pub fn from_millis(millis: i64) -> Result<Self, Error> {
        jiff::Timestamp::from_millisecond(millis)
            .map(Self)
            .map_err(|e| Error::new(ErrorKind::Invalid, "timestamp", "out of range").because(e))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The text, in memory of the caller.
    pub(crate) fn write(self, text: &mut [u8; LONGEST]) -> &str {
        let mut rest = &mut text[..];
        // The longest text has room.
        let _ = write!(rest, "{self}");
        let length = LONGEST - rest.len();
        std::str::from_utf8(&text[..length]).unwrap_or_default()
    }

    /// The current time of this machine's clock.
    pub(crate) fn now() -> Self {
        let now = jiff::Timestamp::now();
        Self(jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now))
    }
}

/// The name of an hour since 1970: `2026-03-01T14Z`.
pub(crate) fn hour_name(hour: u64) -> String {
    let millis = hour
        .checked_mul(3_600_000)
        .and_then(|ms| i64::try_from(ms).ok());
    match millis.map(Timestamp::from_millis) {
        Some(Ok(time)) => format!("{}Z", &time.to_string()[..13]),
        _ => format!("hour {hour}"),
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.parse::<jiff::Timestamp>() {
            Ok(parsed) => Self::from_millis(parsed.as_millisecond().min(Self::MAX.as_millis())),
            Err(_) if is_after_the_last(text) => Ok(Self::MAX),
            Err(e) => Err(Error::new(
                ErrorKind::Invalid,
                "timestamp",
                "must be RFC 3339 with a zone, such as 2031-05-01T08:00:00Z",
            )
            .because(e)),
        }
    }
}

/// Whether a text is a time of the year 9999 after the last one, such as the `DateTime.MaxValue` of
/// .NET.
fn is_after_the_last(text: &str) -> bool {
    Pieces::parse(text).is_ok_and(|pieces| {
        let is_whole = pieces.time().is_some() && pieces.offset().is_some();
        is_whole && pieces.date() >= jiff::civil::date(9999, 12, 30)
    })
}

impl TryFrom<&str> for Timestamp {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

as_text!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_with_three_digits_even_when_they_are_zero() {
        let text = |millis| Timestamp::from_millis(millis).unwrap().to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_762_957_200_123), "2025-11-12T14:20:00.123Z");
    }

    #[test]
    fn the_longest_text_has_room() {
        let first = jiff::Timestamp::MIN.as_millisecond();
        for millis in [first, -1, 0, Timestamp::MAX.as_millis()] {
            let time = Timestamp::from_millis(millis).unwrap();
            assert_eq!(time.write(&mut [0; LONGEST]), time.to_string());
        }
        let first = Timestamp::from_millis(first).unwrap();
        assert_eq!(first.to_string().len(), LONGEST);
    }

    #[test]
    fn offsets_are_brought_to_utc_and_finer_digits_cut() {
        let time: Timestamp = "2025-11-12T15:20:00.1239999+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2025-11-12T14:20:00.123Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn hours_have_names() {
        assert_eq!(hour_name(0), "1970-01-01T00Z");
        assert_eq!(hour_name(489_710), "2025-11-12T14Z");
        assert_eq!(hour_name(u64::MAX), "hour 18446744073709551615");
    }

    #[test]
    fn the_last_time_reads_back_and_later_ones_are_read_as_it() {
        let read = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(read(&Timestamp::MAX.to_string()), Timestamp::MAX);
        for later in [
            "9999-12-30T22:00:00.999Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.9999999+00:00",
        ] {
            assert_eq!(read(later), Timestamp::MAX, "{later}");
        }
        for not in ["9999-12-31", "9999-12-31T23:59:59", "9999-13-31T23:59:59Z"] {
            assert!(not.parse::<Timestamp>().is_err(), "{not}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(millis in -62_135_596_800_000_i64..=253_402_207_200_000) {
            let time = Timestamp::from_millis(millis).unwrap();
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}
