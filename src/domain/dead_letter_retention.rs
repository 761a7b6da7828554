//! How long a group keeps its dead letters.

use std::time::Duration;

use super::duration::whole_millis;
use super::entry_id::EntryId;
use super::error::{Error, ErrorKind};
use super::timestamp::Timestamp;

/// How long a group keeps its dead letters; by default forever.
///
/// Consumers remove overdue dead letters for good, oldest first, and never early. Each consumer
/// looks about every ten seconds and removes at most 2,500 a second.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use redstart::{SubscribeOptions, dead_letters::DeadLetterRetention};
///
/// let month = Duration::from_secs(30 * 86_400);
/// let retention = DeadLetterRetention::forever()
///     .with_max_age(month)
///     .with_max_count(100_000);
/// let options = SubscribeOptions::new().with_dead_letter_retention(retention);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct DeadLetterRetention {
    max_age: Option<Duration>,
    max_count: Option<u64>,
}

impl DeadLetterRetention {
    /// Keeps dead letters until an operator moves them out; the default.
    pub fn forever() -> Self {
        Self::default()
    }

    /// Removes dead letters that were made or imported longer ago than `age`, by the server's clock.
    /// At least 1 millisecond; by default no limit.
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Keeps the newest `count` dead letters, at least 1; by default all.
    pub fn with_max_count(mut self, count: u64) -> Self {
        self.max_count = Some(count);
        self
    }

    /// The age from which dead letters are removed; `None`: no limit.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// The number of dead letters that are kept; `None`: no limit.
    #[must_use]
    pub fn max_count(&self) -> Option<u64> {
        self.max_count
    }

    pub(crate) fn is_forever(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |rule| {
            Err(Error::new(
                ErrorKind::Invalid,
                "dead letter retention",
                rule,
            ))
        };
        if self.max_age.is_some_and(|age| age.as_millis() == 0) {
            return bad("the age must be at least 1 millisecond");
        }
        if self.max_count == Some(0) {
            return bad("the count must be at least 1");
        }
        Ok(())
    }

    /// How many of the `oldest` dead letters are overdue, in a group that holds `count`.
    pub(crate) fn overdue(&self, oldest: &[EntryId], count: u64, now: Timestamp) -> usize {
        let too_many = self.max_count.map_or(0, |most| count.saturating_sub(most));
        let too_many = usize::try_from(too_many).unwrap_or(usize::MAX);
        let too_old = self.max_age.map_or(0, |age| {
            let now = u64::try_from(now.as_millis()).unwrap_or(0);
            let since = now.saturating_sub(whole_millis(age));
            oldest.partition_point(|id| id.millis < since)
        });
        too_many.max(too_old).min(oldest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(times: &[u64]) -> Vec<EntryId> {
        let id = |millis: &u64| EntryId::new(*millis, 0);
        times.iter().map(id).collect()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    const AGE: Duration = Duration::from_millis(100);

    #[test]
    fn without_a_limit_nothing_is_overdue() {
        let overdue = DeadLetterRetention::forever().overdue(
            &ids(&[0, 1]),
            u64::MAX,
            at(i64::from(i32::MAX)),
        );
        assert_eq!(overdue, 0);
    }

    #[test]
    fn dead_letters_beyond_the_age_are_overdue() {
        let retention = DeadLetterRetention::forever().with_max_age(AGE);
        let oldest = ids(&[10, 20, 20, 30]);
        for (now, overdue) in [(0, 0), (110, 0), (111, 1), (120, 1), (121, 3), (999, 4)] {
            assert_eq!(retention.overdue(&oldest, 4, at(now)), overdue, "at {now}");
        }
        assert_eq!(
            retention.overdue(&oldest, 4, at(-5)),
            0,
            "a clock before 1970"
        );
        let longest = DeadLetterRetention::forever().with_max_age(Duration::MAX);
        assert_eq!(longest.overdue(&oldest, 4, at(999)), 0);
    }

    #[test]
    fn dead_letters_beyond_the_count_are_overdue() {
        let retention = DeadLetterRetention::forever().with_max_count(5);
        let oldest = ids(&[10, 20, 30]);
        for (count, overdue) in [(0, 0), (5, 0), (6, 1), (7, 2), (8, 3), (1000, 3)] {
            assert_eq!(
                retention.overdue(&oldest, count, at(0)),
                overdue,
                "of {count}"
            );
        }
        assert_eq!(retention.overdue(&[], 1000, at(0)), 0);
    }

    #[test]
    fn either_limit_is_enough() {
        let retention = DeadLetterRetention::forever()
            .with_max_age(AGE)
            .with_max_count(3);
        let oldest = ids(&[10, 20, 30, 40]);
        assert_eq!(retention.overdue(&oldest, 4, at(125)), 2);
        assert_eq!(retention.overdue(&oldest, 6, at(125)), 3);
    }

    #[test]
    fn a_limit_out_of_bounds_names_its_rule() {
        let forever = DeadLetterRetention::forever;
        forever()
            .with_max_age(AGE)
            .with_max_count(1)
            .check()
            .unwrap();
        for (bad, rule) in [
            (forever().with_max_age(Duration::ZERO), "the age"),
            (
                forever().with_max_age(Duration::from_micros(999)),
                "the age",
            ),
            (forever().with_max_count(0), "the count"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
        }
    }
}
