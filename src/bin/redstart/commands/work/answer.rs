//! What the answer of an endpoint means for its message.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use redstart::Outcome;
use redstart::memory::{Clock as _, SystemClock};

/// How many characters of an answer become the error of the attempt.
const TOLD: usize = 1000;

/// Decides by the status, the header `Retry-After` and the body.
pub(super) fn outcome(status: u16, retry_after: Option<&str>, told: &str) -> Outcome {
    let told: String = told.trim().chars().take(TOLD).collect();
    let error = match &*told {
        "" => format!("status {status}"),
        told => format!("status {status}: {told}"),
    };
    // A server that says "at once" does not know when: asking again without a pause would not help it.
    let delay = retry_after.and_then(delay).filter(|delay| !delay.is_zero());
    match (status, delay) {
        (200..=299, _) => Outcome::Ack,
        // The endpoint has judged the message itself.
        (400 | 413 | 415 | 422, _) => Outcome::dead_letter(error),
        // The endpoint is busy, or this is not the endpoint: no fault of the message.
        (429 | 503, Some(delay)) => Outcome::snooze(delay),
        (300..=399 | 401 | 403 | 404 | 405 | 410 | 429 | 503, _) => Outcome::back_off(error),
        (_, Some(delay)) => Outcome::retry_after(delay, error),
        (_, None) => Outcome::retry(error),
    }
}

/// Reads `Retry-After`: seconds, or a date.
fn delay(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // Servers get the day of the week wrong.
    let parser = DateTimeParser::new().relaxed_weekday(true);
    let at = parser.parse_zoned(text).ok()?.timestamp();
    let wait = at.as_millisecond() - SystemClock.now().as_millis();
    Some(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_ends_the_attempt() {
        for status in [200, 202, 204] {
            assert_eq!(outcome(status, Some("5"), "x"), Outcome::Ack);
        }
        for status in [400, 413, 415, 422] {
            let error = format!("status {status}: no price");
            assert_eq!(
                outcome(status, None, "no price\n"),
                Outcome::dead_letter(error)
            );
        }
        for status in [301, 401, 403, 404, 405, 410, 429, 503] {
            let error = format!("status {status}");
            assert_eq!(outcome(status, None, ""), Outcome::back_off(error));
        }
        for status in [100, 402, 408, 409, 418, 425, 500, 502, 504] {
            assert_eq!(
                outcome(status, None, ""),
                Outcome::retry(format!("status {status}"))
            );
        }
    }

    #[test]
    fn retry_after_is_honoured() {
        let second = Duration::from_secs(1);
        assert_eq!(outcome(503, Some("7"), ""), Outcome::snooze(7 * second));
        let busy = outcome(429, Some(" 0 "), "");
        assert_eq!(busy, Outcome::back_off("status 429"));
        let retry = Outcome::retry_after(7 * second, "status 500");
        assert_eq!(outcome(500, Some("7"), ""), retry);
        assert_eq!(
            outcome(503, Some("soon"), ""),
            Outcome::back_off("status 503")
        );
        let past = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(delay(past), Some(Duration::ZERO));
        let far = delay("Fri, 06 Nov 2092 08:49:37 GMT").unwrap();
        assert!(far > Duration::from_secs(365 * 86_400), "{far:?}");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let Outcome::Retry { error, .. } = outcome(500, None, &"é".repeat(5000)) else {
            panic!("a retry");
        };
        assert_eq!(error.chars().count(), "status 500: ".len() + TOLD);
    }
}
