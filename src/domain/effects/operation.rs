//! One operation of a handler's effects.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::envelope::Envelope;
use crate::domain::later::{ScheduleId, ScheduleOptions, When};
use crate::domain::names::Topic;
use crate::domain::payload::Portable;
use crate::domain::publish_options::PublishOptions;

/// One operation, in the order in which the handler asked for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    Publish {
        topic: Topic,
        envelope: Box<Envelope>,
        options: PublishOptions,
    },
    /// Schedules a message for later.
    PublishLater {
        topic: Topic,
        envelope: Box<Envelope>,
        due: When,
        options: ScheduleOptions,
    },
    /// Cancels a message for later.
    Cancel { topic: Topic, id: ScheduleId },
    /// Writes a key; an [`Effects`](super::Effects) writes each key once.
    Write { key: String, write: Write },
    /// Demands that a key still has the bytes that were read.
    Unchanged { key: String, seen: Option<Bytes> },
    /// Leaves all effects out if the key exists, and creates it otherwise.
    Once { key: String, ttl: Duration },
}

/// How an operation writes a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    Set {
        value: Portable,
        ttl: Option<Duration>,
    },
    /// The key must be absent.
    Insert {
        value: Portable,
        ttl: Option<Duration>,
    },
    Delete,
    Increment {
        by: i64,
        /// The sum must lie between these bounds.
        within: Option<(i64, i64)>,
    },
    /// The key must still have the bytes that were read.
    Replace {
        seen: Option<Bytes>,
        value: Portable,
        ttl: Option<Duration>,
    },
}

impl Operation {
    /// The key that the operation writes.
    pub(crate) fn written_key(&self) -> Option<&str> {
        match self {
            Self::Write { key, .. } | Self::Once { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The message for later that the operation schedules or cancels.
    pub(super) fn scheduled_id(&self) -> Option<(&Topic, ScheduleId)> {
        match self {
            Self::PublishLater {
                topic,
                envelope,
                options,
                ..
            } => Some((topic, options.id_of(envelope))),
            Self::Cancel { topic, id } => Some((topic, id.clone())),
            _ => None,
        }
    }

    /// What an error about the operation names: its topic or key.
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Publish { topic, .. }
            | Self::PublishLater { topic, .. }
            | Self::Cancel { topic, .. } => topic.as_str(),
            Self::Write { key, .. } | Self::Once { key, .. } | Self::Unchanged { key, .. } => key,
        }
    }

    /// About how many bytes the operation sends.
    pub(super) fn size(&self) -> usize {
        let seen_size = |seen: &Option<Bytes>| seen.as_ref().map_or(0, Bytes::len);
        match self {
            Self::Publish { envelope, .. } | Self::PublishLater { envelope, .. } => {
                envelope.payload.as_bytes().len()
            }
            Self::Cancel { id, .. } => id.as_str().len(),
            Self::Once { key, .. } => key.len(),
            Self::Unchanged { key, seen } => key.len() + seen_size(seen),
            Self::Write { key, write } => {
                key.len()
                    + match write {
                        Write::Set { value, .. } | Write::Insert { value, .. } => value.size(),
                        Write::Replace { seen, value, .. } => seen_size(seen) + value.size(),
                        Write::Delete | Write::Increment { .. } => 0,
                    }
            }
        }
    }
}
