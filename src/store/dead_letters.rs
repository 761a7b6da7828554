//! Dead letters, and the journal of operators' changes to them.

use bytes::Bytes;
use uuid::Uuid;

use super::source::GroupAt;
use crate::domain::{Cause, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId};
use crate::wire::Record;

/// How many dead letters one search examines.
pub const LONGEST_SEARCH: usize = 20_000;

/// How many causes, types, tenants or hours a store names at once.
pub const LONGEST_COUNTS: usize = 10_000;

/// How many operations a group's journal keeps: the newest.
pub const LONGEST_JOURNAL: usize = 100;

/// A range of dead letters, by their ids.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IdRange {
    /// Only those with a greater id.
    pub after: Option<EntryId>,
    /// Only those with an id that is not greater.
    pub until: Option<EntryId>,
    /// Whether a search begins at the newest one and goes back.
    pub newest_first: bool,
}

impl IdRange {
    /// All after an id, or all.
    #[must_use]
    pub fn after(after: Option<EntryId>) -> Self {
        Self {
            after,
            ..Self::default()
        }
    }

    /// What a search has left of the range once it has come to an id; `None` where nothing can
    /// follow.
    #[must_use]
    pub fn beyond(self, id: EntryId) -> Option<Self> {
        if self.newest_first {
            let until = Some(id.before_in_topic()?);
            return Some(Self { until, ..self });
        }
        let after = Some(id);
        Some(Self { after, ..self })
    }
}

/// A record on its way into a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Restoring {
    /// Identifies the record among all records of all systems.
    pub identity: String,
    /// Its id in this group, if it was exported from here.
    pub own: Option<EntryId>,
    /// The record.
    pub record: Record,
}

/// What [`DeadLetters::restore`] did with a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Restored {
    /// It is in the group under this id.
    Added(EntryId),
    /// The group holds it already.
    Present,
    /// An earlier call put it in, and it left the group since.
    Gone,
}

/// An operation in a group's journal. Order and result are texts of the caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JournalRow {
    /// The operation.
    pub id: Uuid,
    /// The order: what the operation was to do.
    pub order: String,
    /// How many dead letters it has moved out so far.
    pub taken: u64,
    /// The last dead letter that it has reached.
    pub cursor: Option<EntryId>,
    /// The result; `None` while it runs, or when it was interrupted.
    pub result: Option<String>,
}

/// What [`DeadLetters::search`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Matching dead letters, in the order of the search.
    pub items: Vec<(EntryId, DeadLetterSummary)>,
    /// How many the search examined.
    pub looked: u64,
    /// The last one that it examined.
    pub last: Option<EntryId>,
    /// Whether the range may hold more.
    pub more: bool,
}

impl Found {
    /// The id beyond which to continue; `None` when the range has no more.
    #[must_use]
    pub fn next(&self) -> Option<EntryId> {
        self.last.filter(|_| self.more)
    }
}

/// Counts of dead letters, from [`DeadLetters::causes`] and [`DeadLetters::counts`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Counted<T> {
    /// Those that the store names.
    pub items: Vec<T>,
    /// How many more there are. A store that counts while dead letters come and go may tell a few
    /// too many.
    pub others: u64,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self::first(Vec::new())
    }
}

impl<T> Counted<T> {
    /// Keeps the first [`LONGEST_COUNTS`] of all items.
    #[must_use]
    pub fn first(mut items: Vec<T>) -> Self {
        let others = items.len().saturating_sub(LONGEST_COUNTS) as u64;
        items.truncate(LONGEST_COUNTS);
        Self { items, others }
    }
}

impl Counted<(String, u64)> {
    /// Keeps the most frequent [`LONGEST_COUNTS`] of all counts, or the newest hours, by name.
    #[must_use]
    pub fn largest(mut counts: Vec<(String, u64)>, by: CountBy) -> Self {
        match by {
            // An hour's name sorts as its time does.
            CountBy::Hour => counts.sort_unstable_by(|one, other| other.cmp(one)),
            CountBy::Type | CountBy::Tenant => {
                counts.sort_unstable_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
            }
        }
        let mut counted = Self::first(counts);
        counted.items.sort_unstable();
        counted
    }
}

/// Where a dead letter goes when it is moved out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Disposition {
    /// Removed for good.
    Discard,
    /// Into its group's redelivery stream as it is: fields `dead`, its body, and `by`, the operation
    /// or nothing.
    Requeue,
    /// Into its group's redelivery stream as another redelivery.
    RequeueAs(Bytes),
}

role! {
    /// Dead letters, each in the group that failed it, and the journal of operators' changes.
    pub trait DeadLetters (dead_letters, DeadLettersOp, DeadLettersAnswer, DeadLettersCalls) {
        /// The heads of dead letters that match, up to `max` of a range, in its order. Examines at
        /// most [`LONGEST_SEARCH`](crate::store::LONGEST_SEARCH) and returns how far it has come.
        fn search as Search(
            at: &'a GroupAt, range: IdRange, filter: &'a DeadLetterFilter, max: usize,
        ) -> Found;

        /// The dead letters with these ids; absent ones are left out.
        fn find as Find(at: &'a GroupAt, ids: &'a [EntryId]) -> Vec<(EntryId, Record)>;

        /// How many bytes the records of the dead letters with these ids have, in the order of the
        /// ids; 0 for an absent one.
        fn weigh as Weigh(at: &'a GroupAt, ids: &'a [EntryId]) -> Vec<u64>;

        /// The newest dead letter's id, if there is one.
        fn newest as Newest(at: &'a GroupAt) -> Option<EntryId>;

        /// Moves dead letters out, each atomically. For each, whether this call moved it. The
        /// journal of `operation` counts them in the same step.
        ///
        /// A store may need their heads. It need not read those in `known` again, which a search
        /// has found and which are in its order: a head never changes.
        fn move_out as MoveOut(
            at: &'a GroupAt, items: &'a [(EntryId, Disposition)],
            known: &'a [(EntryId, DeadLetterSummary)], operation: Option<Uuid>,
        ) -> Vec<bool>;

        /// Puts records in, each atomically, as the newest. Leaves out a record that the group holds
        /// already, and without `again` one of the same identity as a record that was put in before
        /// and left the group.
        fn restore as Restore(
            at: &'a GroupAt, records: &'a [Restoring], again: bool,
        ) -> Vec<Restored>;

        /// How many dead letters there are.
        fn count as Count(at: &'a GroupAt) -> u64;

        /// How many dead letters there are of each cause, the most frequent first. Exact at any
        /// number of dead letters: the store counts as they come and go. Names at most
        /// [`LONGEST_COUNTS`](crate::store::LONGEST_COUNTS), and says how many others there are.
        fn causes as Causes(at: &'a GroupAt) -> Counted<Cause>;

        /// How many dead letters there are by type, by tenant or by the hour of their failure, by
        /// name. Exact, as for `causes`. Names as many, the most frequent types and tenants, and the
        /// newest hours.
        fn counts as Counts(at: &'a GroupAt, by: CountBy) -> Counted<(String, u64)>;

        /// How many dead letters there are of each of some hours since 1970, in the order of the
        /// hours. Exact, as for `causes`.
        fn hours as Hours(at: &'a GroupAt, hours: &'a [u64]) -> Vec<u64>;

        /// Writes the order of an operation into the group's journal, which keeps the newest
        /// [`LONGEST_JOURNAL`]. A group that does not exist gets no journal.
        fn begin_operation as BeginOperation(
            at: &'a GroupAt, operation: Uuid, order: &'a str,
        ) -> ();

        /// Writes the result of an operation into the group's journal, if the journal has the operation.
        fn end_operation as EndOperation(
            at: &'a GroupAt, operation: Uuid, result: &'a str,
        ) -> ();

        /// The notes of the group by name, sorted. A name and a note are texts of the caller.
        fn notes as Notes(at: &'a GroupAt) -> Vec<(String, String)>;

        /// Writes a note over an earlier one of the same name, or removes it. A group that does not
        /// exist gets no notes.
        fn set_note as SetNote(
            at: &'a GroupAt, name: &'a str, note: Option<&'a str>,
        ) -> ();

        /// The operations in the group's journal, oldest first.
        fn journal as Journal(at: &'a GroupAt) -> Vec<JournalRow>;
    }
}
