//! The log of a partition: appending, and reading without a group.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::source::Partition;
use crate::domain::{Durability, EntryId, Error};
use crate::wire::Fields;

/// A message on its way into a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewEntry {
    /// The message's id, by which [`Log::append_once`] recognises a repeat.
    pub id: Uuid,
    /// The name of its field: the codec.
    pub name: &'static str,
    /// The encoded envelope. It may share memory with the other entries of its call: an adapter that keeps
    /// it should copy it.
    pub value: Bytes,
    /// The slot of the message's key, which decides its partition; `None` without a key.
    pub slot: Option<u16>,
}

/// Where the log has a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Its entry.
    pub id: EntryId,
    /// Whether an earlier call appended it, and this one appended nothing.
    pub duplicate: bool,
}

role! {
    /// The log of a partition: appending, and reading without a group.
    pub trait Log (log, LogOp, LogAnswer, LogCalls) {
        /// Appends messages in their order, whatever their ids, and returns the outcome of each, in
        /// the same order.
        ///
        /// An error of a message is one of: certainly not appended, or
        /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown). After an unknown one, later
        /// messages may have been appended too, and their outcomes say so. An error of the whole
        /// call is the outcome of every message.
        fn append as Append(
            at: &'a Partition, entries: &'a [NewEntry],
        ) -> Vec<Result<Appended, Error>>;

        /// Appends messages in their order, except those whose id this method has appended within
        /// `window`: for these it returns the existing entry. Each message is one atomic step, so
        /// of concurrent calls with one id exactly one appends. The window goes by the store's
        /// clock, and outlives the entry.
        ///
        /// Errors are those of [`append`](Log::append). After one, the call appends nothing more,
        /// so that a caller can repeat the rest in its order.
        fn append_once as AppendOnce(
            at: &'a Partition, window: Duration, entries: &'a [NewEntry],
        ) -> Vec<Result<Appended, Error>>;

        /// Whether the store can give a level of durability now. The error says why not, and is
        /// `Unsupported` where it never can.
        fn can_keep as CanKeep(level: Durability) -> ();

        /// Appends messages as `append` does, or with a window as
        /// `append_once`, and waits until they are as durable as the level says.
        ///
        /// An error of a message that is in the log and not as durable in time is an
        /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), and its text says so. A level that the
        /// store never can give is `Unsupported`, and nothing is appended.
        fn append_durably as AppendDurably(
            at: &'a Partition, level: Durability, window: Option<Duration>, entries: &'a [NewEntry],
        ) -> Vec<Result<Appended, Error>>;

        /// Entries after an id, oldest first, up to `max`.
        fn browse as Browse(
            at: &'a Partition, after: Option<EntryId>, max: usize,
        ) -> Vec<(EntryId, Fields)>;

        /// Entries before an id, or before the end, newest first, up to `max`.
        fn browse_back as BrowseBack(
            at: &'a Partition, before: Option<EntryId>, max: usize,
        ) -> Vec<(EntryId, Fields)>;

        /// The newest entries, up to `max`, oldest first.
        fn latest as Latest(at: &'a Partition, max: usize) -> Vec<(EntryId, Fields)>;

        /// The newest entry's id, if there is one.
        fn newest as Newest(at: &'a Partition) -> Option<EntryId>;
    }
}
