//! Count: the failed attempts before this delivery. Pure.
//!
//! An attempt is a begun handler. The envelope of a redelivery records the failed ones. The store
//! adds the attempts at the current entry that were begun and never ended, because their process
//! died. It keeps them as a mark of the entry, from the hand-out until the entry is settled:
//!
//! | what happened last to the entry | mark in Redis | begun attempts, where a process dies then |
//! |---|---|---|
//! | a plain read handed it out | 1 | 1; where the policy allows one attempt, 0 |
//! | released before its first attempt | 0 | 0 |
//! | the n-th attempt was marked as begun | n, and 1,000,001 for the first | n |
//! | claimed with a mark of 1 | 1,000,001; where the policy allows one attempt, 0 | 1; 0 |
//! | claimed with another mark | as before | as before |
//! | released after a claim, not begun | as before | as before |
//! | released after its n-th attempt was cancelled | the mark of n - 1 | n - 1 |
//!
//! An attempt is marked when its entry was claimed, and in any case where the policy allows one
//! attempt. A mark of 1 stands for an unmarked hand-out alone, so that the store can tell the two
//! apart after a lost reply. The first attempt at a fetched entry is not marked, so it costs no call; in return it
//! counts when its process dies, begun or not. All processes of a group should allow one attempt
//! if one does: a first attempt that another process left unmarked counts as not begun.

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

/// Counts from the failures that the envelope records and the attempts at this entry that were begun
/// before. Each of these ended with its process: every failure and snooze makes a new entry.
pub(super) fn count(recorded: u32, begun: u32) -> Count {
    Count {
        failed: recorded.saturating_add(begun),
        crashed: begun > 0,
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
    fn an_attempt_that_began_and_never_ended_is_a_crash() {
        let of = |recorded, begun| {
            let count = count(recorded, begun);
            (count.failed, count.crashed, count.attempt())
        };
        assert_eq!(of(0, 0), (0, false, 1));
        assert_eq!(of(2, 0), (2, false, 3));
        assert_eq!(of(2, 2), (4, true, 5));
        assert_eq!(of(u32::MAX, 1), (u32::MAX, true, u32::MAX));
    }

    #[test]
    fn a_crash_is_recorded_under_the_attempt_that_it_ended() {
        let at = Timestamp::from_millis(5).unwrap();
        let crash = count(1, 1).crash(at, "next");
        assert_eq!((crash.number, crash.at), (2, at));
        assert_eq!(crash.consumer, "next");
    }
}
