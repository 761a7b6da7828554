//! Dead letters: looking at them, bringing them back, removing them.

use std::collections::BTreeMap;
use std::fmt;

use super::BoxFuture;
use crate::domain::{DeadLetter, EntryId, Error, Group, Topic};

/// What became of dead letters that were to be taken out, by id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Redriven {
    /// Those that were taken out by this call.
    pub done: Vec<EntryId>,
    /// Those that are not there: unknown, or taken out by another call.
    pub missing: Vec<EntryId>,
}

/// The dead letters of a namespace.
pub trait DeadLetters: Send + Sync + fmt::Debug {
    /// Lists a group's dead letters, oldest first, up to `max` of those after `after`.
    ///
    /// Ids grow, so the last one of a page is where the next page begins; records that are
    /// added or removed meanwhile shift nothing.
    fn list<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, Error>>;

    /// One dead letter, if it is there.
    fn get<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        id: EntryId,
    ) -> BoxFuture<'a, Result<Option<DeadLetter>, Error>>;

    /// How many dead letters a group has by `reason:…`, `fingerprint:…`, `type:…`, `tenant:…`.
    fn counts<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<BTreeMap<String, u64>, Error>>;

    /// Brings dead letters back to the group that failed them, and to no other. Attempts
    /// start again from the first. Each is moved atomically: two calls never move one twice.
    ///
    /// # Cancel safety
    ///
    /// Some of them may have been moved when the future is dropped, none by half.
    fn redrive<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Redriven, Error>>;

    /// Removes dead letters for good.
    ///
    /// # Cancel safety
    ///
    /// Some of them may have been removed when the future is dropped.
    fn purge<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Redriven, Error>>;
}
