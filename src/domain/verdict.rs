//! From an outcome to what is written: the one place that counts attempts. Pure.

use std::time::Duration;

use super::dead_letter::Reason;
use super::outcome::Outcome;
use super::retry::RetryPolicy;

const SHORTEST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

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
    /// `random` is uniform in `0.0..1.0`; it jitters the delay. `pressure` is how long handlers have
    /// been backing off without an acknowledgement in between.
    pub(crate) fn of(
        outcome: Outcome,
        failed: u32,
        policy: &RetryPolicy,
        random: f64,
        pressure: Duration,
    ) -> Self {
        let attempts = failed.saturating_add(1);
        match outcome {
            Outcome::Ack => Self::Ack,
            // The worker commits effects before it decides, so they do not come this far.
            Outcome::Commit(_) => {
                let outcome = Outcome::retry("the effects were not committed");
                Self::of(outcome, failed, policy, random, pressure)
            }
            Outcome::Snooze { delay } => Self::Reschedule {
                delay: delay.min(Outcome::MAX_DELAY),
                attempts: failed,
                error: None,
            },
            Outcome::BackOff { .. } => Self::Reschedule {
                delay: back_off(pressure, random),
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
                    delay: delay.map_or(by_policy, |delay| delay.min(Outcome::MAX_DELAY)),
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

    /// Decides before an attempt: a dead letter when no attempt is left, else `None`.
    ///
    /// `failed` counts crashes too. `reason` and `error` are those of the last failed attempt.
    pub(crate) fn before(
        failed: u32,
        policy: &RetryPolicy,
        reason: Reason,
        error: &str,
    ) -> Option<Self> {
        (failed >= policy.max_attempts()).then(|| Self::DeadLetter {
            reason,
            attempts: failed,
            error: error.to_owned(),
        })
    }
}

/// How long a message waits that met back-pressure: as long as the pressure has lasted, within
/// bounds, spread by half in both directions.
fn back_off(pressure: Duration, random: f64) -> Duration {
    pressure
        .clamp(SHORTEST_BACK_OFF, LONGEST_BACK_OFF)
        .mul_f64(0.5 + random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: Duration = Duration::ZERO;

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
        let fail = |failed| Verdict::of(Outcome::retry("no"), failed, &policy(), 0.5, NONE);
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
            Verdict::of(outcome(), 0, &policy(), 0.5, NONE),
            rescheduled(7 * SECOND, 1, Some("no"))
        );
        assert!(matches!(
            Verdict::of(outcome(), 2, &policy(), 0.5, NONE),
            Verdict::DeadLetter { .. }
        ));
    }

    #[test]
    fn a_snooze_neither_counts_nor_exhausts() {
        let verdict = Verdict::of(Outcome::snooze(SECOND), 99, &policy(), 0.5, NONE);
        assert_eq!(verdict, rescheduled(SECOND, 99, None));
        let forever = Verdict::of(Outcome::snooze(Duration::MAX), 0, &policy(), 0.5, NONE);
        assert_eq!(forever, rescheduled(Outcome::MAX_DELAY, 0, None));
        let days = 90 * 24 * 60 * 60 * SECOND;
        let long = Verdict::of(Outcome::snooze(days), 0, &policy(), 0.5, NONE);
        assert_eq!(long, rescheduled(days, 0, None));
        let long = Verdict::of(Outcome::retry_after(days, "no"), 0, &policy(), 0.5, NONE);
        assert_eq!(long, rescheduled(days, 1, Some("no")));
    }

    #[test]
    fn back_pressure_counts_no_attempt_and_waits_longer_the_longer_it_lasts() {
        let after = |pressure| {
            let outcome = Outcome::back_off("full");
            Verdict::of(outcome, 4, &policy(), 0.5, pressure)
        };
        assert_eq!(after(NONE), rescheduled(SECOND, 4, None));
        assert_eq!(after(20 * SECOND), rescheduled(20 * SECOND, 4, None));
        assert_eq!(after(Duration::MAX), rescheduled(60 * SECOND, 4, None));
    }

    #[test]
    fn a_message_without_attempts_left_is_dead_lettered_before_its_handler() {
        assert_eq!(Verdict::before(2, &policy(), Reason::Crashed, "gone"), None);
        let Some(Verdict::DeadLetter {
            reason, attempts, ..
        }) = Verdict::before(3, &policy(), Reason::Crashed, "gone")
        else {
            panic!("not dead-lettered");
        };
        assert_eq!((reason, attempts), (Reason::Crashed, 3));
    }
}
