//! Numbers, durations, times and text of others, as pages show them.

use std::time::Duration;

use maud::{Markup, html};

use crate::domain::Timestamp;
use crate::operate::escape;

/// A number with commas between thousands.
pub(in crate::console) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun.
pub(in crate::console) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A duration in its largest unit.
pub(in crate::console) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        172_800..63_113_904 => format!("{} days", number(seconds / 86_400)),
        _ => format!("{} years", number(seconds / 31_556_952)),
    }
}

/// Text of others, safe to show: control, invisible and bidirectional characters become codes.
pub(in crate::console) fn safe(text: &str) -> String {
    escape::text(text)
}

/// The beginning of a text of others.
pub(in crate::console) fn excerpt(text: &str, max: usize) -> String {
    escape::excerpt(text, max)
}

/// An operator's name, where somebody knows it.
pub(in crate::console) fn person(name: &str) -> Markup {
    html! { @if name.is_empty() { span.soft { "unknown" } } @else { (excerpt(name, 60)) } }
}

/// A time relative to now, with the time in UTC as its title.
pub(in crate::console) fn ago(time: Timestamp, now: Timestamp) -> Markup {
    let millis = now.as_millis().saturating_sub(time.as_millis());
    let apart = Duration::from_millis(millis.unsigned_abs());
    let text = match millis {
        ..-999 => format!("in {}", duration(apart)),
        -999..1_000 => "now".to_owned(),
        _ => format!("{} ago", duration(apart)),
    };
    html! { time datetime=(time) title=(utc(time)) { (text) } }
}

/// A time to the millisecond. The script shows it in the browser's zone.
pub(in crate::console) fn instant(time: Timestamp) -> Markup {
    html! { time.instant datetime=(time) title=(utc(time)) data-instant { (utc(time)) } }
}

fn utc(time: Timestamp) -> String {
    let text = time.to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_between_thousands() {
        let written = [0, 999, 1_000, 48_211, 1_000_000].map(number);
        assert_eq!(written, ["0", "999", "1,000", "48,211", "1,000,000"]);
        assert_eq!(counted(1, "group", "groups"), "1 group");
        assert_eq!(counted(2_000, "group", "groups"), "2,000 groups");
    }

    #[test]
    fn times_are_relative_with_the_time_in_utc_as_title() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let text = |time, now| ago(at(time), at(now)).into_string();
        assert_eq!(
            text(1_000, 61_500),
            "<time datetime=\"1970-01-01T00:00:01.000Z\" title=\"1970-01-01 00:00:01.000 UTC\">\
             1 min ago</time>"
        );
        assert!(text(61_500, 1_500).contains(">in 1 min<"));
        assert!(text(1_500, 1_000).contains(">now<"));
    }
}
