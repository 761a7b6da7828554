//! How a handler ends a delivery.

use std::error::Error as StdError;
use std::time::Duration;

use super::dead_letter::Reason;
use super::error::chain_texts;
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
        /// The delay before the next attempt, at most 30 days; `None`: the retry policy's.
        delay: Option<Duration>,
    },
    /// The message is delivered again later. No attempt counts.
    Snooze {
        /// The delay, at most 30 days.
        delay: Duration,
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
    /// The attempt failed: try again by the retry policy.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Retry {
            error: describe(&*error.into()),
            delay: None,
        }
    }

    /// The attempt failed: try again after `delay` instead of the retry policy's delay. The attempt
    /// counts as always.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Retry {
            error: describe(&*error.into()),
            delay: Some(delay),
        }
    }

    /// Deliver again after `delay`, at most 30 days, without counting an attempt.
    pub fn snooze(delay: Duration) -> Self {
        Self::Snooze { delay }
    }

    /// No further attempt can succeed: to the dead letters, as [`Reason::Rejected`].
    pub fn dead_letter(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::DeadLetter {
            reason: Reason::Rejected,
            error: describe(&*error.into()),
        }
    }
}

/// A value that a handler may return: `()` is an ack, an error is a retry.
pub trait IntoOutcome {
    /// Converts the value to an outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Ack
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
            Err(error) => Outcome::retry(error),
        }
    }
}

/// A value that a batch handler may return: one for the whole batch, or one outcome for each message.
pub trait IntoOutcomes {
    /// Converts the value to the outcomes of `messages` messages, in their order.
    fn into_outcomes(self, messages: usize) -> Vec<Outcome>;
}

/// Acknowledges every message.
impl IntoOutcomes for () {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        Outcome::Ack.into_outcomes(messages)
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
}

/// An error fails every message: each is tried again by the retry policy.
impl<T: IntoOutcomes, E: Into<Box<dyn StdError + Send + Sync>>> IntoOutcomes for Result<T, E> {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        match self {
            Ok(value) => value.into_outcomes(messages),
            Err(error) => Outcome::retry(error).into_outcomes(messages),
        }
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
    use crate::domain::{Error, ErrorKind};

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
    fn a_huge_error_is_cut_on_a_character_boundary() {
        let Outcome::DeadLetter { error, .. } = Outcome::dead_letter("é".repeat(5000)) else {
            panic!("not a dead letter");
        };
        assert!((4090..=4096).contains(&error.len()));
    }
}
