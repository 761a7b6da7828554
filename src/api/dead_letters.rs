//! Dead letters: looking at them, bringing them back, removing them.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

use crate::domain::BoxFuture;
use crate::domain::{
    Cause, CountBy, DeadLetter, DeadLetterFilter, DeadLetterSummary, EntryId, Envelope, Error,
    Group, Moved, Selection, SkipReason, Sweep, Timestamp, Topic,
};

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct DeadLetterPage {
    /// Those that match, oldest first.
    pub items: Vec<(EntryId, DeadLetterSummary)>,
    /// After which id the next page begins; `None` when this is the last one.
    pub next: Option<EntryId>,
}

/// What a sweep would do.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Preview {
    /// How many it would take.
    pub matching: u64,
    /// How many of those that died in time it would leave where they are, and why.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// How many of the ids asked for are not there.
    pub missing: u64,
    /// The oldest and the newest one that it would take.
    pub span: Option<(EntryId, EntryId)>,
}

/// How far a sweep has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SweepProgress {
    /// The operation, as the journal has it.
    pub operation: Uuid,
    /// How many were taken out.
    pub taken: u64,
    /// How many of those that died in time were left where they are.
    pub skipped: u64,
    /// How many another one took first.
    pub missing: u64,
    /// How many of the redriven have died again so far; counted only for a sweep that stops by
    /// their share.
    pub died_again: u64,
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SweepEnd {
    /// Everything that it was about is done.
    Done,
    /// Too many of the redriven died again.
    Stopped,
}

/// What a sweep did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SweepReport {
    /// The operation, as the journal has it.
    pub operation: Uuid,
    /// How it ended.
    pub ended: SweepEnd,
    /// What was done.
    pub progress: SweepProgress,
}

/// An operation of the journal: who did what to which dead letters, and what came of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// Its id.
    pub id: Uuid,
    /// `redrive`, `publish`, `purge`, `edit` or `import`.
    pub action: String,
    /// Where they were published to, where that is not the group that failed them.
    pub to: Option<Topic>,
    /// Who did it, as that was given.
    pub by: String,
    /// To which dead letters.
    pub selection: Option<Selection>,
    /// When it began, by the clock of who began it.
    pub begun: Timestamp,
    /// The newest dead letter that it is about.
    pub until: Option<EntryId>,
    /// How many were taken out, counted in the same step as each.
    pub taken: u64,
    /// The last dead letter that it has come to.
    pub cursor: Option<EntryId>,
    /// How it ended, in words; `None` while it runs, or when it was cut off.
    pub result: Option<String>,
}

/// What became of a dead letter that was imported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Imported {
    /// It has this id now.
    New(EntryId),
    /// It is there already, or was imported before.
    Present,
}

/// The dead letters of a namespace.
pub trait DeadLetters: Send + Sync + fmt::Debug {
    /// The causes of a group's dead letters, the most frequent first.
    ///
    /// Counted when a message dies and when it is taken out: this costs the same for a hundred
    /// dead letters and for a million.
    fn causes<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<Cause>, Error>>;

    /// How many dead letters a group has by type, by tenant or by hour, by name.
    fn counts<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, Error>>;

    /// Lists a group's dead letters that match, oldest first, up to `max` of those after `after`.
    ///
    /// Ids grow, so records that are added or removed meanwhile shift nothing. A page may hold
    /// fewer than `max`, or none, and not be the last one: a call looks at a bounded number of
    /// records.
    fn list<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        filter: &'a DeadLetterFilter,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<DeadLetterPage, Error>>;

    /// The newest dead letter's id, if there is one. What dies later is
    /// [`list`](Self::list)ed after it.
    fn newest<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Option<EntryId>, Error>>;

    /// Whole dead letters, in the order of the ids; those that are not there are left out.
    fn get<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, Error>>;

    /// Brings dead letters back to the group that failed them, and to no other. Attempts
    /// start again from the first. Each is moved atomically: two calls never move one twice.
    ///
    /// For programs; not in the journal. See [`sweep`](Self::sweep) for operators.
    ///
    /// # Cancel safety
    ///
    /// Some of them may have been moved when the future is dropped, none by half.
    fn redrive<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Moved<EntryId>, Error>>;

    /// Removes dead letters for good.
    ///
    /// For programs; not in the journal. See [`sweep`](Self::sweep) for operators.
    ///
    /// # Cancel safety
    ///
    /// Some of them may have been removed when the future is dropped.
    fn purge<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Moved<EntryId>, Error>>;

    /// Says what a sweep would do, and does nothing.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a sweep that breaks a rule.
    fn preview<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        sweep: &'a Sweep,
    ) -> BoxFuture<'a, Result<Preview, Error>>;

    /// Redrives, publishes or purges many dead letters, and keeps a journal of it.
    ///
    /// Takes those that are there when it begins: what dies meanwhile, also what was redriven
    /// and dies again, is left to the next one. Each is taken atomically and counted in the
    /// same step, so two sweeps at once neither lose nor double, and the journal is right
    /// however one ends. `progress` is called when it has begun and after every portion.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a sweep that breaks a rule; otherwise the kinds
    /// of the connection, after which the sweep can be [`resume`](Self::resume)d.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped the operation stays in the journal without a result, with what
    /// was done, and can be resumed.
    fn sweep<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        sweep: Sweep,
        progress: &'a (dyn Fn(SweepProgress) + Send + Sync),
    ) -> BoxFuture<'a, Result<SweepReport, Error>>;

    /// Goes on with a sweep that was cut off, at what it had come to, within what it was about.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when the journal does not have it;
    /// [`Invalid`](crate::ErrorKind::Invalid) when it has a result. Whether it is still running
    /// elsewhere cannot be told; two that run at once share the work.
    fn resume<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        operation: Uuid,
        progress: &'a (dyn Fn(SweepProgress) + Send + Sync),
    ) -> BoxFuture<'a, Result<SweepReport, Error>>;

    /// Brings a dead letter back as an edited message: with the content of `envelope`, a new id,
    /// and a header `edited-from` that names the old one. Returns the new id.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::ErrorKind::Refused) unless editing is enabled
    /// ([`ContainerBuilder::with_dead_letter_editing`](crate::container::ContainerBuilder::with_dead_letter_editing));
    /// [`NotFound`](crate::ErrorKind::NotFound) when the dead letter is not there any more;
    /// [`TooLarge`](crate::ErrorKind::TooLarge), [`Encode`](crate::ErrorKind::Encode) for an
    /// envelope that could not be published. Nothing was changed then.
    fn edit<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        id: EntryId,
        envelope: Envelope,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Uuid, Error>>;

    /// Puts exported dead letters into a group, as its newest. Each is put in once, however
    /// often it is imported, unless `again` says otherwise.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such group.
    fn import<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        letters: &'a [DeadLetter],
        reimport: bool,
    ) -> BoxFuture<'a, Result<Vec<Imported>, Error>>;

    /// What operators did to a group's dead letters: the newest hundred operations, oldest first.
    fn journal<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<JournalEntry>, Error>>;
}
