//! Prometheus's text format, version 0.0.4.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::operate::gauges::{GroupGauges, TopicGauges};

/// The format's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Value<T> = fn(&T) -> Option<f64>;

/// The gauges of topics: name, help, value.
const OF_TOPICS: [(&str, &str, Value<TopicGauges>); 3] = [
    ("redstart_entries", "Entries in the topic's log.", |topic| {
        Some(count(topic.entries))
    }),
    (
        "redstart_backlog",
        "Unsettled messages that the topic keeps for its groups: exact from four fifths of the limit on, below at least this many.",
        |topic| Some(count(topic.backlog)),
    ),
    (
        "redstart_backlog_limit",
        "The backlog at which publishing fails; absent where the limit is off.",
        |topic| topic.backlog_limit.map(count),
    ),
];

/// The gauges of groups: name, help, value.
const OF_GROUPS: [(&str, &str, Value<GroupGauges>); 10] = [
    (
        "redstart_lag",
        "Entries not yet delivered to the group.",
        |group| Some(count(group.lag)),
    ),
    (
        "redstart_group_in_flight",
        "Deliveries that the group's consumers have and have not settled.",
        |group| Some(count(group.in_flight)),
    ),
    (
        "redstart_scheduled_retries",
        "Retries and snoozed messages: scheduled, or due and not yet read again.",
        |group| Some(count(group.scheduled)),
    ),
    (
        "redstart_dead_letters_stored",
        "Dead letters of the group.",
        |group| Some(count(group.dead)),
    ),
    (
        "redstart_consumers",
        "Consumers that called the server within the last 120 seconds.",
        |group| Some(count(group.consumers)),
    ),
    (
        "redstart_oldest_undelivered_seconds",
        "Age of the oldest entry not yet delivered; absent without one.",
        |group| group.oldest_undelivered.map(|age| age.as_secs_f64()),
    ),
    (
        "redstart_group_oldest_in_flight_seconds",
        "Time since the oldest delivery in flight has its entry and its consumer; absent without one.",
        |group| group.oldest_in_flight.map(|age| age.as_secs_f64()),
    ),
    (
        "redstart_next_retry_seconds",
        "Time until the next scheduled retry is due, negative once it is overdue; absent without one.",
        |group| group.next_retry.map(|millis| millis as f64 / 1000.0),
    ),
    (
        "redstart_group_held_back_keys",
        "Failed messages that hold back the later ones of their keys; absent for a shared group.",
        |group| group.held_back.map(count),
    ),
    (
        "redstart_group_ownerless_partitions",
        "Partitions that no member owns; absent for a shared group.",
        |group| group.ownerless.map(count),
    ),
];

/// Counts stay exact up to 2^53.
fn count(count: u64) -> f64 {
    count as f64
}

/// The exposition of a measurement.
pub fn of(gauges: &[TopicGauges]) -> String {
    let mut text = String::new();
    for (name, help, value) in OF_TOPICS {
        head(&mut text, name, help);
        for topic in gauges {
            if let Some(value) = value(topic) {
                sample(&mut text, name, &[("topic", topic.topic.as_str())], value);
            }
        }
    }
    for (name, help, value) in OF_GROUPS {
        head(&mut text, name, help);
        for topic in gauges {
            for group in &topic.groups {
                if let Some(value) = value(group) {
                    let labels = [
                        ("topic", topic.topic.as_str()),
                        ("group", group.group.as_str()),
                    ];
                    sample(&mut text, name, &labels, value);
                }
            }
        }
    }
    text
}

/// The exposition of a measurement for a scrape; `None` for one that failed.
pub fn of_poll(gauges: Option<&[TopicGauges]>, took: Duration) -> String {
    let mut text = String::new();
    let up = "redstart_up";
    head(
        &mut text,
        up,
        "Whether the last measurement reached the server.",
    );
    sample(&mut text, up, &[], u8::from(gauges.is_some()));
    let time = "redstart_poll_duration_seconds";
    head(&mut text, time, "Duration of the last measurement.");
    sample(&mut text, time, &[], took.as_secs_f64());
    text + &gauges.map(of).unwrap_or_default()
}

fn head(text: &mut String, name: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    let labels = match labels.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", labels.join(",")),
    };
    let _ = writeln!(text, "{name}{labels} {value}");
}

/// A label's value, as the format escapes it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        sample(
            &mut text,
            "m",
            &[("topic", "a\"b\\c\nd"), ("group", "g")],
            1,
        );
        assert_eq!(text, "m{topic=\"a\\\"b\\\\c\\nd\",group=\"g\"} 1\n");
    }

    #[test]
    fn a_failed_measurement_has_no_other_gauges() {
        let text = of_poll(None, Duration::from_millis(1500));
        assert!(text.contains("\nredstart_up 0\n"), "{text}");
        assert!(
            text.ends_with("\nredstart_poll_duration_seconds 1.5\n"),
            "{text}"
        );
        assert!(!text.contains("redstart_lag"), "{text}");
        let text = of_poll(Some(&[]), Duration::ZERO);
        assert!(text.contains("\nredstart_up 1\n"), "{text}");
        assert!(text.contains("# TYPE redstart_lag gauge\n"), "{text}");
    }
}
