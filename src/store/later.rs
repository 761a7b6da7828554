//! Messages for later: a topic keeps them beside its log until they are due.

use std::time::Duration;

use bytes::Bytes;

use super::schedule::Promoted;
use super::source::Partition;
use crate::domain::{Durability, ScheduleId, Timestamp, When};
use crate::wire::Fields;

/// A message on its way to the messages for later of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewLater {
    /// Its id within the partition.
    pub id: ScheduleId,
    /// When it is due.
    pub due: When,
    /// Whether a scheduled message with the same id stays as it is.
    pub keeps: bool,
    /// The name of its field in the log: the codec.
    pub name: &'static str,
    /// The encoded envelope.
    pub value: Bytes,
    /// The slot of the message's key, which decides its partition; `None` without a key.
    pub slot: Option<u16>,
}

/// What [`Later::put`] did with a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LaterPut {
    /// It is scheduled.
    Scheduled {
        /// When it is due.
        due: Timestamp,
        /// How long until then; zero when it is due already.
        due_in: Duration,
        /// Whether it replaced a message with the same id.
        replaced: bool,
    },
    /// A message with the same id stays as it was.
    Kept {
        /// When that message is due.
        due: Timestamp,
        /// How long until then; zero when it is due already.
        due_in: Duration,
    },
    /// The partition keeps as many messages for later as it may.
    Full {
        /// The partition. An adapter says 0.
        partition: u16,
        /// How many partitions the topic has.
        partitions: u16,
        /// How many messages for later each of them keeps at most: an equal part of the topic's backlog
        /// limit, rounded up.
        most: u64,
    },
    /// The topic does not exist.
    NoTopic,
}

/// A message for later.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaterEntry {
    /// Its id within the partition.
    pub id: ScheduleId,
    /// The partition that keeps it. An adapter says 0.
    pub partition: u16,
    /// When it is due, by the store's clock.
    pub due: Timestamp,
    /// The fields that its entry in the log will have; none where something other than Redstart
    /// removed them.
    pub fields: Fields,
}

impl LaterEntry {
    /// Its place in a list.
    #[must_use]
    pub fn place(&self) -> LaterPlace<'_> {
        LaterPlace {
            due: self.due,
            partition: self.partition,
            id: &self.id,
        }
    }
}

/// The place of a message for later in the order of [`Later::list`]: by due time, then by partition, then
/// by id. There need not be a message at a place.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LaterPlace<'a> {
    /// When it is due.
    pub due: Timestamp,
    /// The partition that keeps it. An adapter need not look at it.
    pub partition: u16,
    /// Its id within the partition.
    pub id: &'a ScheduleId,
}

/// A page of messages for later, from [`Later::list`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LaterPage {
    /// The store's time at this moment.
    pub now: Timestamp,
    /// Earliest first; where due times are equal, by partition and then by id.
    pub entries: Vec<LaterEntry>,
}

role! {
    /// Messages for later: a topic keeps them beside its log until they are due.
    pub trait Later (later, LaterOp, LaterAnswer, LaterCalls) {
        /// Schedules messages, each in one atomic step. A message replaces a scheduled one with the
        /// same id, or leaves it as it is. A new id is refused where the partition keeps as many
        /// messages for later as its equal part of the topic's backlog limit. A time in the past is accepted:
        /// the message is due at once.
        ///
        /// After an error some messages may be scheduled; a repeated call replaces them.
        ///
        /// Waits until the messages, those that stay as they are among them, are as durable as the
        /// level says. Messages that are not in time are an
        /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown). A level that the store never can give
        /// is `Unsupported`, and nothing is scheduled.
        fn put as Put(
            at: &'a Partition, level: Durability, messages: &'a [NewLater],
        ) -> Vec<LaterPut>;

        /// Messages for later after a position in their order, earliest first. Up to `max` of them,
        /// fewer where they are heavy, none only at the end.
        fn list as List(
            at: &'a Partition, after: Option<LaterPlace<'a>>, max: usize,
        ) -> LaterPage;

        /// Removes the messages with these ids for good: in a whole topic, those of every partition.
        /// For each id, how many messages it named.
        fn cancel as Cancel(at: &'a Partition, ids: &'a [ScheduleId]) -> Vec<u64>;

        /// Changes when the messages with an id are due: in a whole topic, those of every partition.
        /// For each of them, the new time and how long until then.
        fn reschedule as Reschedule(
            at: &'a Partition, id: &'a ScheduleId, due: When,
        ) -> Vec<(Timestamp, Duration)>;

        /// Appends up to `max` due messages to the log and removes them here, earliest first, each
        /// exactly once among concurrent calls. The backlog limit does not apply.
        /// [`Schedule::promote`](crate::store::Schedule::promote) does the same for the group's
        /// topic.
        fn promote as Promote(at: &'a Partition, max: usize) -> Promoted;
    }
}
