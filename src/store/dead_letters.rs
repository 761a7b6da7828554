//! The port of dead letters: what a store must offer the tools that look after them.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::BoxFuture;
use crate::domain::{
    Cause, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error, Group, Topic,
};
use crate::wire::Record;

/// How many dead letters one search looks at.
pub const LONGEST_SEARCH: usize = 20_000;

/// How many operations a group's journal keeps; older ones make room.
pub const LONGEST_JOURNAL: usize = 100;

/// Which dead letters are meant, by their ids.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IdRange {
    /// Only those with a greater id.
    pub after: Option<EntryId>,
    /// Only those with an id that is not greater.
    pub until: Option<EntryId>,
}

impl IdRange {
    /// Those after an id, where one is given.
    #[must_use]
    pub fn after(after: Option<EntryId>) -> Self {
        Self { after, until: None }
    }
}

/// A record on its way into a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Restoring {
    /// What tells it from every other one, wherever it was exported.
    pub identity: String,
    /// The id that it has in this group, if it came from here.
    pub own: Option<EntryId>,
    /// The record.
    pub record: Record,
}

/// An operation as a group's journal has it. Order and result are the caller's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JournalRow {
    /// The operation.
    pub id: Uuid,
    /// What was to be done.
    pub order: String,
    /// How many dead letters it has taken out so far.
    pub taken: u64,
    /// The last dead letter that it has come to.
    pub cursor: Option<EntryId>,
    /// What came of it; `None` while it runs, or when it was cut off.
    pub result: Option<String>,
}

/// What a search has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Those that match, oldest first.
    pub items: Vec<(EntryId, DeadLetterSummary)>,
    /// How many it has looked at.
    pub looked: u64,
    /// The last one that it has looked at.
    pub last: Option<EntryId>,
    /// Whether the span may hold more than that.
    pub more: bool,
}

impl Found {
    /// After which id to go on; `None` when the span has no more.
    #[must_use]
    pub fn next(&self) -> Option<EntryId> {
        self.last.filter(|_| self.more)
    }
}

/// Where a dead letter goes that is taken out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Disposition {
    /// Away, for good.
    Discard,
    /// Into its group's redo lane as it is: fields `dead`, its body, and `by`, the operation or
    /// nothing.
    Requeue,
    /// Into its group's redo lane as another parcel.
    RequeueAs(Bytes),
}

/// A store's dead letters, each in the group that failed it.
pub trait DeadLetterStore: Send + Sync + fmt::Debug {
    /// The heads of dead letters that match, oldest first, up to `max` of those within a span.
    /// Looks at no more than some twenty thousand, and says how far it has come.
    fn search<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        span: IdRange,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Found, Error>>;

    /// The dead letters with these ids; those that do not exist are left out.
    fn find<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Record)>, Error>>;

    /// The newest dead letter's id, if there is one.
    fn newest<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Option<EntryId>, Error>>;

    /// Takes dead letters out and brings them where they are to go, each atomically. For each,
    /// whether it was there to be taken. The journal of `operation` counts them in the same step.
    ///
    /// A store may need their heads. Those in `known`, as a search has found them and in its order, it need
    /// not read again: a head never changes.
    fn move_out<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        items: &'a [(EntryId, Disposition)],
        known: &'a [(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>>;

    /// Puts records in, each atomically, as the newest. For each its id; `None` when it is there
    /// already, or when one of the same identity was put in before and `again` is not set.
    fn restore<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        records: &'a [Restoring],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Option<EntryId>>, Error>>;

    /// How many dead letters there are of each cause, kept as they come and go, whatever their
    /// number; the most frequent first.
    fn causes<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<Cause>, Error>>;

    /// How many dead letters there are by type, by tenant or by the hour of their death, kept as
    /// they come and go; by name.
    fn counts<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, Error>>;

    /// Writes the order of an operation into the group's journal, which keeps the newest hundred.
    fn begin_operation<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        operation: Uuid,
        order: String,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Writes down what came of an operation.
    fn end_operation<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        operation: Uuid,
        result: String,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// The operations in the group's journal, oldest first.
    fn journal<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<JournalRow>, Error>>;
}
