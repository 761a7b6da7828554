//! How long a topic keeps entries.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::error::{Error, ErrorKind};

/// About thirty thousand years in milliseconds; every clock involved can subtract it.
const MAX_AGE: u128 = 1_000_000_000_000_000;

/// How long a topic keeps entries.
///
/// No setting removes an entry that a group has not settled. With [`Retention::Settled`] a topic
/// without groups keeps its entries for the first one.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Retention {
    /// Keeps entries until every group has settled them; the default.
    #[default]
    Settled,
    /// Keeps at least this number of the newest entries.
    Count(u64),
    /// Keeps entries younger than this, by the server's clock.
    Age(Duration),
}

/// The form in the topic's stored settings: `settled`, `length:<entries>`, `age:<milliseconds>`.
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled => f.write_str("settled"),
            Self::Count(entries) => write!(f, "length:{entries}"),
            Self::Age(age) => write!(f, "age:{}", age.as_millis()),
        }
    }
}

/// As its text.
impl Serialize for Retention {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Retention {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = match text.split_once(':') {
            None if text == "settled" => Some(Self::Settled),
            Some(("length", entries)) => entries.parse().ok().map(Self::Count),
            Some(("age", millis)) => millis
                .parse()
                .ok()
                .map(|ms| Self::Age(Duration::from_millis(ms))),
            _ => None,
        };
        parsed.ok_or_else(|| {
            let rule = "must be settled, length:<entries> or age:<milliseconds>";
            Error::new(ErrorKind::Invalid, "retention", rule)
                .on(text.chars().take(64).collect::<String>())
        })
    }
}

/// The most partitions that a topic can have.
const MOST_PARTITIONS: u16 = 256;

/// The settings of a topic. They are fixed when it is created.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicSettings {
    pub(crate) retention: Retention,
    /// `null` as JSON where the limit is off.
    #[serde(serialize_with = "null_for_no_limit")]
    pub(crate) backlog_limit: u64,
    pub(crate) partitions: u16,
}

fn null_for_no_limit<S: Serializer>(limit: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let limit = (*limit < u64::MAX).then_some(*limit);
    limit.serialize(serializer)
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            retention: Retention::Settled,
            backlog_limit: 1_000_000,
            partitions: 1,
        }
    }
}

impl TopicSettings {
    /// Sets how long entries are kept; by default until every group has settled them.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = match retention {
            // The stored settings hold whole milliseconds, at least one.
            Retention::Age(age) => {
                let millis = age.as_millis().clamp(1, MAX_AGE);
                Retention::Age(Duration::from_millis(millis as u64))
            }
            other => other,
        };
        self
    }

    /// Sets how many unsettled entries the topic holds before publishing fails with
    /// [`BacklogFull`](ErrorKind::BacklogFull); by default 1,000,000. `u64::MAX` disables the limit.
    ///
    /// The backlog is what the topic keeps for its groups: the log's entries from the first that a
    /// group has not settled on, and each group's scheduled retries and unsettled redeliveries. One
    /// message that a handler holds for ever therefore fills it in the end.
    #[must_use]
    pub fn with_backlog_limit(mut self, entries: u64) -> Self {
        self.backlog_limit = entries;
        self
    }

    /// Sets into how many partitions the topic is split, from 1 to 256; by default 1. Larger and
    /// smaller numbers are refused when the topic is created.
    ///
    /// Each partition is a log of its own, on a server of its own in a cluster. Messages with the same
    /// key go to the same partition. The number never changes.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Checks the number of partitions.
    pub(crate) fn check(&self, operation: &'static str) -> Result<(), Error> {
        if (1..=MOST_PARTITIONS).contains(&self.partitions) {
            return Ok(());
        }
        let rule = format!("a topic has from 1 to {MOST_PARTITIONS} partitions");
        Err(Error::new(ErrorKind::Invalid, operation, rule))
    }

    /// The part of a number of entries that each partition has, rounded up.
    pub(crate) fn share(&self, entries: u64) -> u64 {
        match entries {
            u64::MAX => u64::MAX,
            entries => entries.div_ceil(self.partitions.max(1).into()),
        }
    }

    /// How long entries are kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// The number of unsettled entries from which publishing fails.
    #[must_use]
    pub fn backlog_limit(&self) -> u64 {
        self.backlog_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_ages_are_clamped() {
        let aged = |age| {
            TopicSettings::default()
                .with_retention(Retention::Age(age))
                .retention()
        };
        for age in [Duration::MAX, Duration::from_nanos(1), Duration::ZERO] {
            let kept = aged(age);
            assert_eq!(kept.to_string().parse::<Retention>().unwrap(), kept);
        }
        assert_eq!(
            aged(Duration::ZERO),
            Retention::Age(Duration::from_millis(1))
        );
    }

    #[test]
    fn round_trips_as_text() {
        for retention in [
            Retention::Settled,
            Retention::Count(7),
            Retention::Age(Duration::from_millis(1500)),
        ] {
            assert_eq!(
                retention.to_string().parse::<Retention>().unwrap(),
                retention
            );
        }
        for bad in ["", "length", "length:", "age:-1", "forever"] {
            assert!(bad.parse::<Retention>().is_err(), "{bad:?}");
        }
    }
}
