//! Decide: from the handler's result to a verdict. Pure; the rules are the domain's.

use std::time::Duration;

use crate::domain::{Outcome, Reason, RetryPolicy, Verdict};
use crate::worker::handle::count::{CRASH, Count};

/// What a decision takes from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chance {
    /// Uniform in `0.0..1.0`.
    pub(super) random: f64,
    /// How long handlers have been backing off.
    pub(super) pressure: Duration,
}

/// What a decision goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) retry: &'a RetryPolicy,
    /// Whether a message that this version does not understand is tried again.
    pub(super) undecodable_retry: bool,
}

/// Decides about a delivery whose handler has returned. If this version does not understand the
/// message, no further attempt of it can succeed, but one of another version may.
pub(super) fn decide(outcome: Outcome, count: Count, rules: Rules<'_>, chance: Chance) -> Verdict {
    let policy = rules.retry;
    let attempts_left = count.attempt() < policy.max_attempts();
    let is_not_understood = is_not_understood(&outcome);
    let outcome = match outcome {
        Outcome::DeadLetter { error, .. }
            if is_not_understood && rules.undecodable_retry && attempts_left =>
        {
            Outcome::Retry { error, delay: None }
        }
        outcome => outcome,
    };
    let Chance { random, pressure } = chance;
    Verdict::of(outcome, count.failed, policy, random, pressure)
}

/// Whether this version does not understand the message.
pub(super) fn is_not_understood(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::DeadLetter {
            reason: Reason::Undecodable | Reason::Unhandled,
            ..
        }
    )
}

/// Whether the handler has not ended its delivery.
pub(super) fn wants_another_attempt(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { .. } | Outcome::BackOff { .. })
}

/// Decides whether no attempt is left, because of a crash or because the maximum is lower than it
/// was when `last_error` was recorded. `None`: call the handler.
pub(super) fn decide_early(
    count: Count,
    last_error: Option<&str>,
    policy: &RetryPolicy,
) -> Option<Verdict> {
    let (reason, error) = match last_error {
        _ if count.crashed => (Reason::Crashed, CRASH),
        Some(error) => (Reason::Exhausted, error),
        None => return None,
    };
    Verdict::before(count.failed, policy, reason, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::handle::count::count;

    fn policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_secs(1)).with_max_attempts(3)
    }

    fn decide(outcome: Outcome, count: Count) -> Verdict {
        let rules = Rules {
            retry: &policy(),
            undecodable_retry: false,
        };
        super::decide(outcome, count, rules, Chance::default())
    }

    #[test]
    fn an_undecodable_payload_goes_to_the_dead_letters_at_its_first_attempt() {
        let outcome = Outcome::dead_letter_as(Reason::Undecodable, "not a u32");
        let verdict = decide(outcome, count(0, 0.into()));
        let Verdict::DeadLetter {
            reason,
            attempts,
            error,
        } = verdict
        else {
            panic!("not a dead letter: {verdict:?}");
        };
        assert_eq!((reason, attempts), (Reason::Undecodable, 1));
        assert_eq!(error, "not a u32");
    }

    #[test]
    fn a_message_that_is_not_understood_is_retried_on_demand_and_keeps_its_reason() {
        let policy = policy();
        let rules = Rules {
            retry: &policy,
            undecodable_retry: true,
        };
        for reason in [Reason::Undecodable, Reason::Unhandled] {
            let after = |failed| {
                let outcome = Outcome::dead_letter_as(reason, "not a u32");
                super::decide(outcome, count(failed, 0.into()), rules, Chance::default())
            };
            assert!(matches!(after(0), Verdict::Reschedule { attempts: 1, .. }));
            assert!(matches!(after(1), Verdict::Reschedule { attempts: 2, .. }));
            let Verdict::DeadLetter {
                reason: kept,
                attempts,
                ..
            } = after(2)
            else {
                panic!("not a dead letter");
            };
            assert_eq!((kept, attempts), (reason, 3));
        }
        let rejected = super::decide(
            Outcome::dead_letter("no"),
            count(0, 0.into()),
            rules,
            Chance::default(),
        );
        assert!(matches!(rejected, Verdict::DeadLetter { attempts: 1, .. }));
    }

    #[test]
    fn earlier_crashes_use_up_attempts() {
        let failed = || Outcome::retry("no");
        let retried = decide(failed(), count(0, 1.into()));
        assert!(matches!(retried, Verdict::Reschedule { attempts: 2, .. }));
        let exhausted = decide(failed(), count(0, 2.into()));
        assert!(matches!(
            exhausted,
            Verdict::DeadLetter {
                reason: Reason::Exhausted,
                ..
            }
        ));
    }

    #[test]
    fn a_delivery_without_attempts_left_ends_before_its_handler() {
        let early = |count, last_error| match decide_early(count, last_error, &policy()) {
            Some(Verdict::DeadLetter {
                reason,
                attempts,
                error,
            }) => Some((reason, attempts, error)),
            other => {
                assert_eq!(other, None);
                None
            }
        };
        assert_eq!(early(count(0, 2.into()), None), None);
        let crashed = (Reason::Crashed, 3, CRASH.to_owned());
        assert_eq!(early(count(1, 2.into()), Some("disk full")), Some(crashed));
        assert_eq!(early(count(9, 0.into()), None), None, "a foreign count");
        // The maximum was higher when these attempts were made.
        assert_eq!(early(count(2, 0.into()), Some("disk full")), None);
        let exhausted = (Reason::Exhausted, 3, "disk full".to_owned());
        assert_eq!(
            early(count(3, 0.into()), Some("disk full")),
            Some(exhausted)
        );
    }
}
