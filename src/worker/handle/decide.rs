//! Decide: from the handler's result to a verdict. Pure; the rules are the domain's.

use crate::domain::{Error, Outcome, Reason, RetryPolicy, Verdict, describe};
use crate::worker::handle::count::{CRASH, Count};

/// Decides about a delivery whose handler has returned. An error means that the payload does not
/// decode, so no further attempt can succeed.
pub(super) fn decide(
    result: Result<Outcome, Error>,
    count: Count,
    policy: &RetryPolicy,
    random: f64,
) -> Verdict {
    let outcome = result.unwrap_or_else(|error| Outcome::DeadLetter {
        reason: Reason::Undecodable,
        error: describe(&error),
    });
    Verdict::of(outcome, count.failed, policy, random)
}

/// Decides whether a crash used up the last attempt. `None`: call the handler.
pub(super) fn decide_crashed(count: Count, policy: &RetryPolicy) -> Option<Verdict> {
    let verdict = Verdict::after_crash(count.failed, policy, CRASH);
    verdict.filter(|_| count.crashed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::ErrorKind;
    use crate::worker::handle::count::count;

    fn policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_secs(1)).with_max_attempts(3)
    }

    #[test]
    fn an_undecodable_payload_goes_to_the_dead_letters_at_its_first_attempt() {
        let error = Error::new(ErrorKind::Decode, "decode payload", "not a u32");
        let verdict = decide(Err(error), count(0, 1), &policy(), 0.5);
        let Verdict::DeadLetter {
            reason,
            attempts,
            error,
        } = verdict
        else {
            panic!("not a dead letter: {verdict:?}");
        };
        assert_eq!((reason, attempts), (Reason::Undecodable, 1));
        assert_eq!(error, "decode payload: not a u32");
    }

    #[test]
    fn earlier_crashes_use_up_attempts() {
        let failed = || Ok(Outcome::retry("no"));
        let retried = decide(failed(), count(0, 2), &policy(), 0.5);
        assert!(matches!(retried, Verdict::Reschedule { attempts: 2, .. }));
        let exhausted = decide(failed(), count(0, 3), &policy(), 0.5);
        assert!(matches!(
            exhausted,
            Verdict::DeadLetter {
                reason: Reason::Exhausted,
                ..
            }
        ));
    }

    #[test]
    fn only_a_crash_that_was_the_last_attempt_ends_a_delivery_early() {
        assert_eq!(decide_crashed(count(0, 3), &policy()), None);
        assert_eq!(decide_crashed(count(9, 1), &policy()), None, "no crash");
        let Some(Verdict::DeadLetter {
            reason, attempts, ..
        }) = decide_crashed(count(1, 3), &policy())
        else {
            panic!("not a dead letter");
        };
        assert_eq!((reason, attempts), (Reason::Crashed, 3));
    }
}
