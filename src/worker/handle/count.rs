//! Count: the failed attempts before this delivery. Pure.
//!
//! An attempt is a begun handler. The envelope of a redelivery records the failed ones. The store
//! adds the attempts at the current entry that were begun and did not end the delivery: their process
//! died, or they failed and the message was held back. It keeps them as a mark of the entry, from the
//! hand-out until the entry is settled:
//!
//! | what happened last to the entry | mark in Redis | begun attempts, where a process dies then |
//! |---|---|---|
//! | a plain read handed it out | 1 | 1; where the policy allows one attempt, 0 |
//! | released before its first attempt | 0 | 0 |
//! | the n-th attempt was marked as begun | n, and 1,000,001 for the first | n |
//! | the n-th attempt failed and the message is held back | (n + 1) million and n + 1 | n + 1 |
//! | the same before the last attempt of the policy | (n + 1) million and n | n |
//! | claimed with a mark of 1 | 1,000,001; where the policy allows one attempt, 0 | 1; 0 |
//! | claimed with another mark | as before | as before |
//! | released after a claim, not begun | as before | as before |
//! | released after its n-th attempt was cancelled | the mark of n - 1 | n - 1 |
//!
//! The millions less one are the failures among the attempts, here those of a message without a crash.
//! A failure that is held back counts the next attempt too, which then needs no mark of its own; in
//! return that attempt counts when the process dies while the message waits. The last attempt that the
//! policy allows is marked when it begins, so that no message loses it to a wait.
//!
//! An attempt is marked when its entry was claimed, and in any case where the policy allows one
//! attempt. A mark of 1 stands for an unmarked hand-out alone, so that the store can tell the two
//! apart after a lost reply. The first attempt at a fetched entry is not marked, so it costs no call; in return it
//! counts when its process dies, begun or not. All processes of a group should allow one attempt
//! if one does: a first attempt that another process left unmarked counts as not begun.

use crate::domain::{DeliveryHistory, FailedAttempt, Timestamp};
use crate::store::Attempts;

/// The error text of a crash, in the history and in the dead letter.
pub(super) const CRASH: &str = "the consumer stopped without settling the delivery";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Count {
    /// Failed attempts, crashes included.
    pub(super) failed: u32,
    /// Whether a consumer crashed with this entry.
    pub(super) crashed: bool,
}

/// The error text of failures that were held back by a process that died.
pub(super) const LOST_ERROR: &str = "the attempt failed, and its consumer stopped with the error";

/// Counts from the failures that the envelope records and the attempts at this entry before. None of
/// these ended the delivery, so each has failed or ended with its process.
pub(super) fn count(recorded: u32, before: Attempts) -> Count {
    Count {
        failed: recorded.saturating_add(before.begun),
        crashed: before.unexplained() > 0,
    }
}

/// Adds the attempts at this entry before to the history: the last failure that was held back, and
/// the last crash. The consumer that finds them signs them, because theirs has stopped.
pub(super) fn record(
    history: &mut DeliveryHistory,
    recorded: u32,
    before: Attempts,
    (at, consumer): (Timestamp, &str),
) {
    let count = count(recorded, before);
    let mut add = |number, error: &str| {
        history.record(FailedAttempt {
            number,
            at,
            consumer: consumer.to_owned(),
            error: error.to_owned(),
        });
    };
    if before.failed > 0 {
        add(count.failed - before.unexplained(), LOST_ERROR);
    }
    if count.crashed {
        add(count.failed, CRASH);
    }
}

impl Count {
    /// The number of this attempt, from 1.
    pub(super) fn attempt(self) -> u32 {
        self.failed.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntryId;

    #[test]
    fn an_attempt_that_began_and_never_ended_is_a_crash() {
        let of = |recorded, begun, failed| {
            let count = count(recorded, Attempts { begun, failed });
            (count.failed, count.crashed, count.attempt())
        };
        assert_eq!(of(0, 0, 0), (0, false, 1));
        assert_eq!(of(2, 0, 0), (2, false, 3));
        assert_eq!(of(2, 2, 0), (4, true, 5));
        assert_eq!(of(2, 2, 1), (4, true, 5));
        assert_eq!(of(2, 2, 2), (4, false, 5), "each is known to have failed");
        assert_eq!(of(u32::MAX, 1, 0), (u32::MAX, true, u32::MAX));
    }

    #[test]
    fn a_crash_and_a_failure_are_recorded_under_their_attempts() {
        let at = Timestamp::from_millis(5).unwrap();
        let recorded = |recorded, begun, failed| {
            let mut history = DeliveryHistory::from(EntryId::default());
            let before = Attempts { begun, failed };
            record(&mut history, recorded, before, (at, "next"));
            let all = history.failures.into_iter();
            all.inspect(|one| assert_eq!((one.at, &one.consumer[..]), (at, "next")))
                .map(|one| (one.number, one.error))
                .collect::<Vec<_>>()
        };
        let (lost, crash) = (LOST_ERROR.to_owned(), CRASH.to_owned());
        assert_eq!(recorded(1, 0, 0), []);
        assert_eq!(recorded(1, 1, 0), [(2, crash.clone())]);
        assert_eq!(recorded(1, 3, 2), [(3, lost.clone()), (4, crash)]);
        assert_eq!(recorded(0, 2, 2), [(2, lost)]);
    }
}
