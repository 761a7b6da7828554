//! How a handler ends a delivery.

use std::error::Error as StdError;
use std::time::Duration;

use super::dead_letter::Reason;
use super::error::{Error, ErrorKind, causes, chain_texts};
use super::text::cut;

/// The longest error text that a record keeps, in bytes. The rest is cut.
const MAX_ERROR_BYTES: usize = 4096;

/// How a handler ends a delivery.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Outcome {
    /// The group is done with the message.
    Ack,
    /// The attempt failed. The message is tried again, or goes to the dead letters as
    /// [`Reason::Exhausted`] after the last attempt of the retry policy.
    Retry {
        /// The error text, at most 4,096 bytes.
        error: String,
        /// The delay before the next attempt, at most [`Outcome::MAX_DELAY`]; `None`: the retry
        /// policy's.
        delay: Option<Duration>,
    },
    /// The message is delivered again later. No attempt counts.
    Snooze {
        /// The delay, at most [`Outcome::MAX_DELAY`].
        delay: Duration,
    },
    /// Something that the handler needs is busy or away. The message is delivered again later, and
    /// no attempt counts. The longer this lasts, the longer the subscription waits: from 1 second
    /// to 1 minute.
    ///
    /// A handler that returns an [`Error`] of Redstart's own ends so, if the kind is
    /// [`BacklogFull`](ErrorKind::BacklogFull) or [`Unavailable`](ErrorKind::Unavailable). Such an
    /// error as the cause of another error counts too.
    BackOff {
        /// The error text, at most 4,096 bytes.
        error: String,
    },
    /// No further attempt can succeed: the message goes to the dead letters.
    DeadLetter {
        /// The reason on record; [`Outcome::dead_letter`] gives [`Reason::Rejected`].
        reason: Reason,
        /// The error text, at most 4,096 bytes.
        error: String,
    },
}

impl Outcome {
    /// The longest delay that a handler can name: 100 years of 365 days. A longer one becomes this.
    pub const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    /// The attempt failed: try again by the retry policy.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Retry {
            error: describe(&*error.into()),
            delay: None,
        }
    }

    /// The attempt failed: try again after `delay` instead of the retry policy's delay. The attempt
    /// counts as always. `delay` is at most [`MAX_DELAY`](Self::MAX_DELAY).
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Retry {
            error: describe(&*error.into()),
            delay: Some(delay),
        }
    }

    /// Deliver again after `delay`, without counting an attempt. `delay` is at most
    /// [`MAX_DELAY`](Self::MAX_DELAY).
    pub fn snooze(delay: Duration) -> Self {
        Self::Snooze { delay }
    }

    /// Something is busy or away: deliver again later, without counting an attempt.
    pub fn back_off(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::BackOff {
            error: describe(&*error.into()),
        }
    }

    /// The outcome of a handler that returned an error.
    fn of_error(error: &(dyn StdError + 'static)) -> Self {
        let text = describe(error);
        if is_back_pressure(error) {
            return Self::BackOff { error: text };
        }
        Self::Retry {
            error: text,
            delay: None,
        }
    }

    /// No further attempt can succeed: to the dead letters, as [`Reason::Rejected`].
    pub fn dead_letter(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::DeadLetter {
            reason: Reason::Rejected,
            error: describe(&*error.into()),
        }
    }
}

/// Whether Redstart refused an operation of the handler because the store or a backlog limit does
/// not take it for now.
fn is_back_pressure(error: &(dyn StdError + 'static)) -> bool {
    causes(error)
        .filter_map(|error| error.downcast_ref::<Error>())
        .any(|error| {
            matches!(
                error.kind(),
                ErrorKind::BacklogFull | ErrorKind::Unavailable
            )
        })
}

/// A value that a handler may return: `()` is an ack, an error is a retry.
pub trait IntoOutcome {
    /// Converts the value to an outcome.
    fn into_outcome(self) -> Outcome;

    /// Whether the value acknowledges without saying so, as `()` and `Ok(())` do. A cancelled
    /// handler does not acknowledge by such a value: its message is given back, uncounted.
    fn is_implied_ack(&self) -> bool {
        false
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Ack
    }

    fn is_implied_ack(&self) -> bool {
        true
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<T: IntoOutcome, E: Into<Box<dyn StdError + Send + Sync>>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => Outcome::of_error(&*error.into()),
        }
    }

    fn is_implied_ack(&self) -> bool {
        self.as_ref().is_ok_and(T::is_implied_ack)
    }
}

/// A value that a batch handler may return: one for the whole batch, or one outcome for each message.
pub trait IntoOutcomes {
    /// Converts the value to the outcomes of `messages` messages, in their order.
    fn into_outcomes(self, messages: usize) -> Vec<Outcome>;

    /// Whether the value acknowledges the message at `index` without saying so; see
    /// [`IntoOutcome::is_implied_ack`].
    fn is_implied_ack_at(&self, index: usize) -> bool {
        let _ = index;
        false
    }
}

/// Acknowledges every message.
impl IntoOutcomes for () {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        Outcome::Ack.into_outcomes(messages)
    }

    fn is_implied_ack_at(&self, _: usize) -> bool {
        true
    }
}

/// Ends every message with this outcome.
impl IntoOutcomes for Outcome {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        vec![self; messages]
    }
}

/// Ends each message with its own outcome, in their order. A `Vec` of any other length fails every
/// message, because no outcome can be matched to its message.
impl<T: IntoOutcome> IntoOutcomes for Vec<T> {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        if self.len() != messages {
            let error = format!("{} outcomes for {messages} messages", self.len());
            return Outcome::retry(error).into_outcomes(messages);
        }
        self.into_iter().map(T::into_outcome).collect()
    }

    fn is_implied_ack_at(&self, index: usize) -> bool {
        self.get(index).is_some_and(T::is_implied_ack)
    }
}

/// An error fails every message: each is tried again by the retry policy.
impl<T: IntoOutcomes, E: Into<Box<dyn StdError + Send + Sync>>> IntoOutcomes for Result<T, E> {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        match self {
            Ok(value) => value.into_outcomes(messages),
            Err(error) => Outcome::of_error(&*error.into()).into_outcomes(messages),
        }
    }

    fn is_implied_ack_at(&self, index: usize) -> bool {
        self.as_ref()
            .is_ok_and(|value| value.is_implied_ack_at(index))
    }
}

/// An error and its causes in one line, cut to the length that a stored record may hold.
pub(crate) fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for part in chain_texts(error) {
        if text.len() >= MAX_ERROR_BYTES {
            break;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    cut(&mut text, MAX_ERROR_BYTES);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_error_means_retry_and_keeps_its_causes() {
        let error = Error::new(
            ErrorKind::Decode,
            "decode payload",
            "the payload is not a valid u32",
        )
        .because("expected a number");
        let Outcome::Retry { error, delay } = Err::<(), _>(error).into_outcome() else {
            panic!("not a retry");
        };
        assert_eq!(
            error,
            "decode payload: the payload is not a valid u32: expected a number"
        );
        assert_eq!(delay, None);
    }

    #[test]
    fn units_and_nested_results_convert() {
        assert_eq!(().into_outcome(), Outcome::Ack);
        let snoozed: Result<Outcome, std::io::Error> = Ok(Outcome::snooze(Duration::ZERO));
        assert_eq!(
            snoozed.into_outcome(),
            Outcome::Snooze {
                delay: Duration::ZERO
            }
        );
    }

    #[test]
    fn a_batch_ends_as_one_or_each_by_itself_and_fails_on_a_wrong_number() {
        assert_eq!(().into_outcomes(2), [Outcome::Ack, Outcome::Ack]);
        let failed = Err::<(), _>("disk full").into_outcomes(2);
        assert_eq!(
            failed,
            [Outcome::retry("disk full"), Outcome::retry("disk full")]
        );
        let each = vec![Ok(()), Err("odd")].into_outcomes(2);
        assert_eq!(each, [Outcome::Ack, Outcome::retry("odd")]);
        let short = vec![Outcome::Ack].into_outcomes(2);
        let wrong = Outcome::retry("1 outcomes for 2 messages");
        assert_eq!(short, [wrong.clone(), wrong]);
    }

    #[test]
    fn redstart_being_busy_is_not_the_messages_failure() {
        #[derive(Debug)]
        struct Wrapped(Error);
        impl std::fmt::Display for Wrapped {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("forwarding")
            }
        }
        impl StdError for Wrapped {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let error = |kind| Error::new(kind, "publish", "no");
        for (kind, busy) in [
            (ErrorKind::BacklogFull, true),
            (ErrorKind::Unavailable, true),
            (ErrorKind::OutcomeUnknown, false),
            (ErrorKind::TooLarge, false),
        ] {
            let is_back_off = |outcome| matches!(outcome, Outcome::BackOff { .. });
            let plain = Err::<(), _>(error(kind)).into_outcome();
            assert_eq!(is_back_off(plain), busy, "{kind}");
            let wrapped = Err::<(), _>(Wrapped(error(kind))).into_outcome();
            assert_eq!(is_back_off(wrapped), busy, "{kind} as a cause");
            let batch = Err::<(), _>(error(kind)).into_outcomes(2);
            assert_eq!(batch.len(), 2);
            assert!(
                batch.into_iter().all(|one| is_back_off(one) == busy),
                "{kind}"
            );
        }
    }

    #[test]
    fn only_a_value_without_a_word_acknowledges_by_implication() {
        assert!(().is_implied_ack() && Ok::<_, Error>(()).is_implied_ack());
        assert!(!Outcome::Ack.is_implied_ack());
        assert!(!Ok::<_, Error>(Outcome::Ack).is_implied_ack());
        assert!(!Err::<(), _>("no").is_implied_ack());
        let batch = [Ok(()), Err("no")].to_vec();
        assert!(batch.is_implied_ack_at(0));
        assert!(!batch.is_implied_ack_at(1));
        assert!(!vec![Outcome::Ack].is_implied_ack_at(0));
    }

    #[test]
    fn a_huge_error_is_cut_on_a_character_boundary() {
        let Outcome::DeadLetter { error, .. } = Outcome::dead_letter("é".repeat(5000)) else {
            panic!("not a dead letter");
        };
        assert!((4090..=4096).contains(&error.len()));
    }
}
