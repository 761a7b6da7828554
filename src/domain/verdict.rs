//! What an outcome turns into: the one place that counts attempts.

use std::time::Duration;

use super::dead_letter::Reason;
use super::outcome::Outcome;
use super::retry::RetryPolicy;

/// What is to be written for a delivery that has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Ack,
    /// Deliver again after a delay, with this many failed attempts on record.
    Reschedule {
        delay: Duration,
        attempts: u32,
        error: Option<String>,
    },
    DeadLetter {
        reason: Reason,
        attempts: u32,
        error: String,
    },
}

/// Decides what an outcome turns into, given the failed attempts before this delivery.
pub(crate) fn decide(outcome: Outcome, failed: u32, policy: &RetryPolicy, random: f64) -> Verdict {
    match outcome {
        Outcome::Ack => Verdict::Ack,
        Outcome::Snooze { delay } => Verdict::Reschedule {
            delay: delay.min(RetryPolicy::MAX_DELAY),
            attempts: failed,
            error: None,
        },
        Outcome::DeadLetter { error } => Verdict::DeadLetter {
            reason: Reason::Rejected,
            attempts: failed.saturating_add(1),
            error,
        },
        Outcome::Retry {
            error,
            delay: asked,
        } => {
            let attempts = failed.saturating_add(1);
            match policy.delay_after(attempts, random) {
                Some(delay) => Verdict::Reschedule {
                    delay: asked.unwrap_or(delay).min(RetryPolicy::MAX_DELAY),
                    attempts,
                    error: Some(error),
                },
                None => Verdict::DeadLetter {
                    reason: Reason::Exhausted,
                    attempts,
                    error,
                },
            }
        }
    }
}

/// Decides about a delivery whose consumer crashed: buried when no attempt is left.
///
/// `failed` counts the crash already.
pub(crate) fn after_crash(failed: u32, policy: &RetryPolicy) -> Option<Verdict> {
    (failed >= policy.max_attempts()).then(|| Verdict::DeadLetter {
        reason: Reason::Crashed,
        attempts: failed,
        error: "the consumer stopped without settling the delivery".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> RetryPolicy {
        RetryPolicy::fixed(SECOND).with_max_attempts(3)
    }

    fn later(delay: Duration, attempts: u32, error: Option<&str>) -> Verdict {
        let error = error.map(str::to_owned);
        Verdict::Reschedule {
            delay,
            attempts,
            error,
        }
    }

    #[test]
    fn a_failure_counts_and_the_last_one_buries() {
        let fail = |failed| decide(Outcome::retry("no"), failed, &policy(), 0.5);
        assert_eq!(fail(0), later(SECOND, 1, Some("no")));
        assert_eq!(fail(1), later(SECOND, 2, Some("no")));
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
            decide(outcome(), 0, &policy(), 0.5),
            later(7 * SECOND, 1, Some("no"))
        );
        assert!(matches!(
            decide(outcome(), 2, &policy(), 0.5),
            Verdict::DeadLetter { .. }
        ));
    }

    #[test]
    fn a_snooze_never_counts_and_never_buries() {
        let verdict = decide(Outcome::snooze(SECOND), 99, &policy(), 0.5);
        assert_eq!(verdict, later(SECOND, 99, None));
        let forever = decide(Outcome::snooze(Duration::MAX), 0, &policy(), 0.5);
        assert_eq!(forever, later(RetryPolicy::MAX_DELAY, 0, None));
    }

    #[test]
    fn a_crash_buries_at_the_maximum_and_not_before() {
        assert_eq!(after_crash(2, &policy()), None);
        let Some(Verdict::DeadLetter {
            reason, attempts, ..
        }) = after_crash(3, &policy())
        else {
            panic!("not buried");
        };
        assert_eq!((reason, attempts), (Reason::Crashed, 3));
    }
}
