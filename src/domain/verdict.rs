//! From an outcome to what is written: the one place that counts attempts. Pure.

use std::time::Duration;

use super::dead_letter::Reason;
use super::outcome::Outcome;
use super::retry::RetryPolicy;

/// How a delivery ends in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Ack,
    /// Deliver again after a delay, with this number of failed attempts on record.
    Reschedule {
        delay: Duration,
        attempts: u32,
        /// The error of a failed attempt; `None` for a snooze.
        error: Option<String>,
    },
    DeadLetter {
        reason: Reason,
        attempts: u32,
        error: String,
    },
}

impl Verdict {
    /// Decides by an outcome, given the failed attempts before this delivery.
    ///
    /// `random` is uniform in `0.0..1.0`; it jitters the delay.
    pub(crate) fn of(outcome: Outcome, failed: u32, policy: &RetryPolicy, random: f64) -> Self {
        let attempts = failed.saturating_add(1);
        match outcome {
            Outcome::Ack => Self::Ack,
            Outcome::Snooze { delay } => Self::Reschedule {
                delay: delay.min(RetryPolicy::MAX_DELAY),
                attempts: failed,
                error: None,
            },
            Outcome::DeadLetter { reason, error } => Self::DeadLetter {
                reason,
                attempts,
                error,
            },
            Outcome::Retry { error, delay } => match policy.delay_after(attempts, random) {
                Some(by_policy) => Self::Reschedule {
                    delay: delay.unwrap_or(by_policy).min(RetryPolicy::MAX_DELAY),
                    attempts,
                    error: Some(error),
                },
                None => Self::DeadLetter {
                    reason: Reason::Exhausted,
                    attempts,
                    error,
                },
            },
        }
    }

    /// Decides by a crash: a dead letter when no attempt is left, else `None`.
    ///
    /// `failed` includes the crash.
    pub(crate) fn after_crash(failed: u32, policy: &RetryPolicy, error: &str) -> Option<Self> {
        (failed >= policy.max_attempts()).then(|| Self::DeadLetter {
            reason: Reason::Crashed,
            attempts: failed,
            error: error.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> RetryPolicy {
        RetryPolicy::fixed(SECOND).with_max_attempts(3)
    }

    fn rescheduled(delay: Duration, attempts: u32, error: Option<&str>) -> Verdict {
        let error = error.map(str::to_owned);
        Verdict::Reschedule {
            delay,
            attempts,
            error,
        }
    }

    #[test]
    fn a_failure_counts_and_the_last_one_is_dead_lettered() {
        let fail = |failed| Verdict::of(Outcome::retry("no"), failed, &policy(), 0.5);
        assert_eq!(fail(0), rescheduled(SECOND, 1, Some("no")));
        assert_eq!(fail(1), rescheduled(SECOND, 2, Some("no")));
        let (reason, error) = (Reason::Exhausted, "no".to_owned());
        assert_eq!(
            fail(2),
            Verdict::DeadLetter {
                reason,
                attempts: 3,
                error
            }
        );
    }

    #[test]
    fn a_given_delay_replaces_the_policys_but_not_its_count() {
        let outcome = || Outcome::retry_after(7 * SECOND, "no");
        assert_eq!(
            Verdict::of(outcome(), 0, &policy(), 0.5),
            rescheduled(7 * SECOND, 1, Some("no"))
        );
        assert!(matches!(
            Verdict::of(outcome(), 2, &policy(), 0.5),
            Verdict::DeadLetter { .. }
        ));
    }

    #[test]
    fn a_snooze_neither_counts_nor_exhausts() {
        let verdict = Verdict::of(Outcome::snooze(SECOND), 99, &policy(), 0.5);
        assert_eq!(verdict, rescheduled(SECOND, 99, None));
        let forever = Verdict::of(Outcome::snooze(Duration::MAX), 0, &policy(), 0.5);
        assert_eq!(forever, rescheduled(RetryPolicy::MAX_DELAY, 0, None));
    }

    #[test]
    fn a_crash_is_dead_lettered_at_the_maximum_and_not_before() {
        assert_eq!(Verdict::after_crash(2, &policy(), "gone"), None);
        let Some(Verdict::DeadLetter {
            reason, attempts, ..
        }) = Verdict::after_crash(3, &policy(), "gone")
        else {
            panic!("not dead-lettered");
        };
        assert_eq!((reason, attempts), (Reason::Crashed, 3));
    }
}
