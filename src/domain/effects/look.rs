//! Looks into effects: what a handler has returned, for its tests.

use serde::de::DeserializeOwned;

use super::{Effects, Operation, Write};
use crate::domain::envelope::Envelope;
use crate::domain::error::Error;
use crate::domain::later::{ScheduleId, When};
use crate::domain::names::Topic;

/// What the effects hold.
impl Effects {
    /// Whether the list of operations is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The messages and their topics, in the order in which they are published.
    pub fn published(&self) -> impl Iterator<Item = (&Topic, &Envelope)> {
        self.operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Publish {
                    topic, envelope, ..
                } => Some((topic, &**envelope)),
                _ => None,
            })
    }

    /// The messages for later, with their topics and due times.
    pub fn scheduled(&self) -> impl Iterator<Item = (&Topic, &Envelope, When)> {
        self.operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::PublishLater {
                    topic,
                    envelope,
                    due,
                    ..
                } => Some((topic, &**envelope, *due)),
                _ => None,
            })
    }

    /// Whether [`cancel`](Self::cancel) removes a message for later.
    #[must_use]
    pub fn cancels(&self, topic: &Topic, id: &ScheduleId) -> bool {
        self.operations.iter().any(|operation| {
            matches!(operation, Operation::Cancel { topic: of, id: one } if of == topic && one == id)
        })
    }

    /// The value that [`set`](Self::set), [`insert`](Self::insert) or [`replace`](Self::replace)
    /// stores under a key; `None` if none of them does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the value is not a `T`.
    pub fn value_of<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        match self.write_of(key) {
            Some(
                Write::Set { value, .. }
                | Write::Insert { value, .. }
                | Write::Replace { value, .. },
            ) => Ok(Some(value.decode().map_err(|e| e.on(key))?)),
            _ => Ok(None),
        }
    }

    /// The number that [`incr`](Self::incr) or [`incr_within`](Self::incr_within) adds to a key;
    /// `None` if neither does.
    #[must_use]
    pub fn increment_of(&self, key: &str) -> Option<i64> {
        match self.write_of(key) {
            Some(Write::Increment { by, .. }) => Some(*by),
            _ => None,
        }
    }

    /// Whether [`delete`](Self::delete) removes a key.
    #[must_use]
    pub fn deletes(&self, key: &str) -> bool {
        matches!(self.write_of(key), Some(Write::Delete))
    }

    fn write_of(&self, of: &str) -> Option<&Write> {
        self.operations
            .iter()
            .find_map(|operation| match operation {
                Operation::Write { key, write } if key == of => Some(write),
                _ => None,
            })
    }
}
