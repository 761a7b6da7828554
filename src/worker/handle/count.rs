//! Count: the failed attempts before this delivery. Pure.

use crate::domain::{FailedAttempt, Timestamp};

/// The error text of a crash, in the history and in the dead letter.
pub(super) const CRASH: &str = "the consumer stopped without settling the delivery";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Count {
    /// Failed attempts, crashes included.
    pub(super) failed: u32,
    /// Whether a consumer crashed with this entry.
    pub(super) crashed: bool,
}

/// Counts from the failures that the envelope records and the times that the store has delivered
/// this entry, this time included.
///
/// Every failure and snooze makes a new entry, and a shutdown takes its delivery back. A second
/// delivery of the same entry therefore means that a consumer crashed with it.
pub(super) fn count(recorded: u32, deliveries: u32) -> Count {
    let crashes = deliveries.saturating_sub(1);
    Count {
        failed: recorded.saturating_add(crashes),
        crashed: crashes > 0,
    }
}

impl Count {
    /// The number of this attempt, from 1.
    pub(super) fn attempt(self) -> u32 {
        self.failed.saturating_add(1)
    }

    /// The record of the last crash. The consumer that finds it signs it: the crashed one cannot.
    pub(super) fn crash(self, at: Timestamp, consumer: &str) -> FailedAttempt {
        FailedAttempt {
            number: self.failed,
            at,
            consumer: consumer.to_owned(),
            error: CRASH.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_delivery_of_an_entry_counts_as_a_crash() {
        let of = |recorded, deliveries| {
            let count = count(recorded, deliveries);
            (count.failed, count.crashed, count.attempt())
        };
        assert_eq!(of(0, 1), (0, false, 1));
        assert_eq!(of(2, 1), (2, false, 3));
        assert_eq!(of(2, 3), (4, true, 5));
        assert_eq!(of(0, 0), (0, false, 1), "an adapter that does not count");
        assert_eq!(of(u32::MAX, 2), (u32::MAX, true, u32::MAX));
    }

    #[test]
    fn a_crash_is_recorded_under_the_attempt_that_it_ended() {
        let at = Timestamp::from_millis(5).unwrap();
        let crash = count(1, 2).crash(at, "next");
        assert_eq!((crash.number, crash.at), (2, at));
        assert_eq!(crash.consumer, "next");
    }
}
