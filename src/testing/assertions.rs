//! What a test bus has seen, with assertions.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::api::Message;
use crate::domain::{DeadLetter, Envelope, Group, Outcome, Reason, Topic};

/// One call of a handler with one message. A batch is one call for each of its messages.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Handling {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: Group,
    /// The message.
    pub envelope: Envelope,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How the handler ended the delivery. A panic is a retry.
    pub outcome: Outcome,
}

/// The calls of a group's handlers, in the order in which they ended.
///
/// [`TestBus::handled`](super::TestBus::handled) returns it. A failed assertion prints every call.
#[derive(Clone, Debug)]
pub struct Handled {
    /// `topic/group`.
    pub(super) name: String,
    pub(super) calls: Vec<Handling>,
}

/// The messages that were published to a topic, in order.
///
/// [`TestBus::published`](super::TestBus::published) returns it. A failed assertion prints every message.
#[derive(Clone, Debug)]
pub struct PublishedMessages {
    pub(super) name: String,
    pub(super) envelopes: Vec<Envelope>,
}

/// The dead letters of a group, oldest first.
///
/// [`TestBus::dead_letters`](super::TestBus::dead_letters) returns it. A failed assertion prints every dead
/// letter.
#[derive(Clone, Debug)]
pub struct DeadLetterList {
    /// `topic/group`.
    pub(super) name: String,
    pub(super) letters: Vec<DeadLetter>,
}

/// The assertions about the number of items, and the newest item.
macro_rules! assert_numbers {
    ($list:ident, $items:ident, $item:ty, $what:literal) => {
        impl $list {
            /// Asserts the number of them.
            ///
            /// # Panics
            ///
            /// When the number differs.
            #[track_caller]
            pub fn assert_count(self, count: usize) -> Self {
                let found = self.$items.len();
                assert!(
                    found == count,
                    "{found} {} in place of {count}: {self}",
                    $what
                );
                self
            }

            /// Asserts that there is exactly one.
            ///
            /// # Panics
            ///
            /// When there is none, or more than one.
            #[track_caller]
            pub fn assert_once(self) -> Self {
                self.assert_count(1)
            }

            /// Asserts that there is none.
            ///
            /// # Panics
            ///
            /// When there is one.
            #[track_caller]
            pub fn assert_none(self) {
                let _ = self.assert_count(0);
            }

            #[track_caller]
            fn newest(&self) -> &$item {
                match self.$items.last() {
                    Some(newest) => newest,
                    None => panic!("no {}: {self}", $what),
                }
            }
        }
    };
}

assert_numbers!(Handled, calls, Handling, "calls");
assert_numbers!(PublishedMessages, envelopes, Envelope, "published messages");
assert_numbers!(DeadLetterList, letters, DeadLetter, "dead letters");

impl fmt::Display for Handled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handled by {}:", self.name)?;
        for call in &self.calls {
            let (message_type, attempt) = (call.envelope.message_type(), call.attempt);
            write!(
                f,
                "\n  {message_type}, attempt {attempt}: {:?}",
                call.outcome
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for PublishedMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "published to {}:", self.name)?;
        for envelope in &self.envelopes {
            write!(f, "\n  {}, id {}", envelope.message_type(), envelope.id())?;
        }
        Ok(())
    }
}

impl fmt::Display for DeadLetterList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dead letters of {}:", self.name)?;
        for letter in &self.letters {
            let (message_type, attempts) = (&letter.message_type, letter.attempts);
            let (reason, error) = (letter.reason, &letter.error);
            write!(
                f,
                "\n  {message_type}, attempts {attempts}: {reason}, {error}"
            )?;
        }
        Ok(())
    }
}

impl Handled {
    /// Keeps the calls with messages of one type.
    #[must_use = "it asserts nothing by itself"]
    pub fn of<T: Message>(mut self) -> Self {
        let is_of = |call: &Handling| call.envelope.message_type() == T::TYPE;
        self.calls.retain(is_of);
        self
    }

    /// Asserts that the newest call was with this message.
    ///
    /// # Panics
    ///
    /// When it was with another one, or there was none.
    #[track_caller]
    pub fn with<T: Message + DeserializeOwned + PartialEq + fmt::Debug>(self, message: &T) -> Self {
        assert_message(&self.newest().envelope, message, &self);
        self
    }

    /// Asserts that the newest call was this attempt.
    ///
    /// # Panics
    ///
    /// When it was another one, or there was none.
    #[track_caller]
    pub fn attempt(self, attempt: u32) -> Self {
        assert_eq!(self.newest().attempt, attempt, "the attempt; {self}");
        self
    }

    /// Asserts that the newest call ended so.
    ///
    /// # Panics
    ///
    /// When it ended otherwise, or there was none.
    #[track_caller]
    pub fn ended(self, outcome: Outcome) -> Self {
        assert_eq!(self.newest().outcome, outcome, "the outcome; {self}");
        self
    }

    /// The calls.
    #[must_use]
    pub fn calls(&self) -> &[Handling] {
        &self.calls
    }
}

impl PublishedMessages {
    /// Keeps the messages of one type.
    #[must_use = "it asserts nothing by itself"]
    pub fn of<T: Message>(mut self) -> Self {
        self.envelopes.retain(|one| one.message_type() == T::TYPE);
        self
    }

    /// Asserts that the newest one is this message.
    ///
    /// # Panics
    ///
    /// When it is another one, or there is none.
    #[track_caller]
    pub fn with<T: Message + DeserializeOwned + PartialEq + fmt::Debug>(self, message: &T) -> Self {
        assert_message(self.newest(), message, &self);
        self
    }

    /// Asserts that the newest one has this header.
    ///
    /// # Panics
    ///
    /// When its value differs, it is absent, or there is no message.
    #[track_caller]
    pub fn with_header(self, name: &str, value: &str) -> Self {
        let found = self.newest().headers().get(name);
        let found = found.map(String::as_str);
        assert_eq!(found, Some(value), "the header {name}; {self}");
        self
    }

    /// The messages.
    #[must_use]
    pub fn envelopes(&self) -> &[Envelope] {
        &self.envelopes
    }

    /// The payloads, whatever types the messages have.
    ///
    /// # Panics
    ///
    /// When a payload does not decode as `T`.
    #[must_use]
    #[track_caller]
    pub fn payloads<T: DeserializeOwned>(&self) -> Vec<T> {
        self.envelopes.iter().map(payload).collect()
    }
}

impl DeadLetterList {
    /// Asserts that the newest one has this reason.
    ///
    /// # Panics
    ///
    /// When its reason differs, or there is none.
    #[track_caller]
    pub fn with_reason(self, reason: Reason) -> Self {
        assert_eq!(self.newest().reason, reason, "the reason; {self}");
        self
    }

    /// Asserts that the error of the newest one contains this text.
    ///
    /// # Panics
    ///
    /// When it does not, or there is none.
    #[track_caller]
    pub fn with_error(self, part: &str) -> Self {
        let contains = self.newest().error.contains(part);
        assert!(contains, "the error does not contain {part:?}; {self}");
        self
    }

    /// Asserts the number of failed attempts of the newest one.
    ///
    /// # Panics
    ///
    /// When it differs, or there is none.
    #[track_caller]
    pub fn with_attempts(self, attempts: u32) -> Self {
        assert_eq!(self.newest().attempts, attempts, "the attempts; {self}");
        self
    }

    /// The dead letters, with their histories.
    #[must_use]
    pub fn letters(&self) -> &[DeadLetter] {
        &self.letters
    }
}

#[track_caller]
fn assert_message<T: Message + DeserializeOwned + PartialEq + fmt::Debug>(
    envelope: &Envelope,
    message: &T,
    all: &dyn fmt::Display,
) {
    assert_eq!(envelope.message_type(), T::TYPE, "the type; {all}");
    assert_eq!(&payload::<T>(envelope), message, "the message; {all}");
}

#[track_caller]
pub(super) fn payload<T: DeserializeOwned>(envelope: &Envelope) -> T {
    match envelope.payload() {
        Ok(payload) => payload,
        Err(error) => panic!(
            "the payload of message {} has another type: {error:?}",
            envelope.id()
        ),
    }
}
