//! Messages for later: when they are due, and what a caller may set about them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::as_text::as_text;
use super::durability::Durability;
use super::duration::LONGEST_DELAY;
use super::duration::whole_millis;
use super::envelope::Envelope;
use super::error::{Error, ErrorKind};
use super::timestamp::Timestamp;

/// The id of a message for later, within its topic or [partition](crate::docs::partitions). Cheap to clone.
///
/// 1 to 256 bytes of text without control characters, such as `order-7/reminder`. By default it is
/// the [envelope's id](Envelope::id). The id is free again once the message is due.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ScheduleId(Arc<str>);

impl ScheduleId {
    /// The most bytes of an id.
    pub const MAX_BYTES: usize = 256;

    /// Validates an id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for an empty text, for more than [`MAX_BYTES`](Self::MAX_BYTES) bytes,
    /// and for control characters.
    pub fn new(id: impl AsRef<str>) -> Result<Self, Error> {
        let id = id.as_ref();
        let is_valid =
            (1..=Self::MAX_BYTES).contains(&id.len()) && !id.chars().any(char::is_control);
        if is_valid {
            return Ok(Self(Arc::from(id)));
        }
        let rule = "must have 1 to 256 bytes and no control characters";
        let shown: String = id.chars().take(64).collect();
        Err(Error::new(ErrorKind::Invalid, "schedule id", rule).on(shown))
    }

    /// The id of a message for which the caller names none.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        Self(Arc::from(envelope.id().hyphenated().to_string()))
    }

    /// A text before every id.
    pub(crate) fn before_all() -> Self {
        Self(Arc::from(""))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ScheduleId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl TryFrom<&str> for ScheduleId {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

as_text!(ScheduleId);

/// When a message for later is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum When {
    /// At a time. A message with a time in the past is due at once.
    At(Timestamp),
    /// After a time from now on, by the store's clock.
    After(Duration),
}

impl When {
    /// The longest delay: 100 years of 365 days.
    pub const MAX_DELAY: Duration = LONGEST_DELAY;

    /// Checks the bounds.
    pub(crate) fn check(self, operation: &'static str) -> Result<(), Error> {
        let rule = match self {
            Self::After(delay) if delay > Self::MAX_DELAY => "a delay is at most 100 years",
            Self::At(time) if time.as_millis() < 0 => "a message is due in 1970 or later",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Invalid, operation, rule))
    }

    /// The time in milliseconds since 1970, where `now` is the store's time.
    pub(crate) fn millis(self, now: u64) -> u64 {
        match self {
            Self::At(time) => u64::try_from(time.as_millis()).unwrap_or(0),
            Self::After(delay) => now.saturating_add(whole_millis(delay)),
        }
    }
}

/// The settings of a message for later.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct ScheduleOptions {
    id: Option<ScheduleId>,
    keeps: bool,
    /// `None`: the default of the bus.
    durability: Option<Durability>,
}

impl ScheduleOptions {
    /// The envelope's id; a scheduled message with the same id is replaced.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the id, by which the message can be replaced, rescheduled and cancelled.
    pub fn with_id(mut self, id: ScheduleId) -> Self {
        self.id = Some(id);
        self
    }

    /// Leaves a scheduled message with the same id as it is, instead of replacing it.
    pub fn keep_existing(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Sets what the message must survive before it counts as scheduled; by default the setting of the
    /// [container](crate::container::ContainerBuilder::with_durability). It counts for a message that
    /// stays as it is, too.
    ///
    /// A message that is scheduled and did not reach the level in time fails with
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), and the error says so; a repeated call is
    /// safe. A level that the server never can give fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported), and nothing is scheduled. The level covers the
    /// schedule: the server itself moves a due message to the log.
    pub fn with_durability(mut self, level: Durability) -> Self {
        self.durability = Some(level);
        self
    }

    /// The level of durability, given the default of the bus.
    pub(crate) fn durability(&self, default: Durability) -> Result<Durability, Error> {
        self.durability.unwrap_or(default).check()
    }

    /// The id of the message.
    pub(crate) fn id_of(&self, envelope: &Envelope) -> ScheduleId {
        self.id.clone().unwrap_or_else(|| ScheduleId::of(envelope))
    }

    pub(crate) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }
}

/// The result of scheduling a message.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Scheduled {
    /// The id of the message for later.
    pub id: ScheduleId,
    /// When the message of this id is due, by the store's clock.
    pub due: Timestamp,
    /// Whether a message with this id was scheduled before and is now replaced.
    pub replaced: bool,
    /// Whether a message with this id was scheduled before and stays, by
    /// [`keep_existing`](ScheduleOptions::keep_existing): this call changed nothing.
    pub kept: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_bounded_length_and_no_control_characters() {
        assert_eq!(ScheduleId::new("order-7/Ä").unwrap().as_str(), "order-7/Ä");
        assert!(ScheduleId::new("x".repeat(256)).is_ok());
        for bad in [String::new(), "x".repeat(257), "a\nb".to_owned()] {
            assert_eq!(ScheduleId::new(bad).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn the_envelope_names_a_message_without_an_id() {
        let envelope = Envelope::new("n", &7).unwrap();
        let options = ScheduleOptions::new();
        let id = options.id_of(&envelope);
        assert_eq!(id.as_str(), envelope.id().to_string());
        let named = options.with_id(ScheduleId::new("7").unwrap());
        assert_eq!(named.id_of(&envelope).as_str(), "7");
    }

    #[test]
    fn a_due_time_has_bounds() {
        let at = |millis| When::At(Timestamp::from_millis(millis).unwrap());
        assert!(at(0).check("publish").is_ok());
        assert!(at(-1).check("publish").is_err());
        assert!(When::After(When::MAX_DELAY).check("publish").is_ok());
        let longer = When::MAX_DELAY + Duration::from_nanos(1);
        assert!(When::After(longer).check("publish").is_err());
        assert_eq!(at(5).millis(7), 5);
        assert_eq!(When::After(Duration::from_micros(1500)).millis(7), 9);
    }
}
