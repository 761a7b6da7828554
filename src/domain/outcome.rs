//! How a handler ends a delivery.

use std::error::Error as StdError;
use std::time::Duration;

use super::dead_letter::Reason;
use super::duration::LONGEST_DELAY;
use super::effects::Effects;
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
    /// The group is done with the message once the store has written these effects. A handler may
    /// return [`Effects`] as they are.
    Commit(Effects),
    /// No further attempt can succeed: the message goes to the dead letters.
    DeadLetter {
        /// The reason on record. [`Outcome::dead_letter`] gives [`Reason::Rejected`]; a router gives
        /// [`Reason::Undecodable`] and [`Reason::Unhandled`].
        reason: Reason,
        /// The error text, at most 4,096 bytes.
        error: String,
    },
}

impl Outcome {
    /// The longest delay that a handler can name: 100 years of 365 days. A longer one becomes this.
    pub const MAX_DELAY: Duration = LONGEST_DELAY;

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
    pub(crate) fn of_error(error: &(dyn StdError + 'static)) -> Self {
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
        Self::dead_letter_as(Reason::Rejected, error)
    }

    /// To the dead letters, with a reason of Redstart's own.
    pub(crate) fn dead_letter_as(
        reason: Reason,
        error: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::DeadLetter {
            reason,
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
    fn a_huge_error_is_cut_on_a_character_boundary() {
        let Outcome::DeadLetter { error, .. } = Outcome::dead_letter("é".repeat(5000)) else {
            panic!("not a dead letter");
        };
        assert!((4090..=4096).contains(&error.len()));
    }
}
