//! The log of a partition.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::adapter::{MemoryAdapter, turn};
use super::state::TopicState;
use crate::domain::{BoxFuture, Durability, EntryId, Error, ErrorKind, whole_millis};
use crate::store::{Appended, Fields, Log, NewEntry, Partition};

/// The fields of an entry in the log.
pub(super) fn fields(draft: &NewEntry) -> Fields {
    let name = Bytes::from_static(draft.name.as_bytes());
    vec![(name, Bytes::copy_from_slice(&draft.value))]
}

impl MemoryAdapter {
    /// Appends each draft as `append` does, and wakes the readers.
    fn append_each(
        &self,
        at: &Partition,
        drafts: &[NewEntry],
        append: impl Fn(&mut TopicState, u64, &NewEntry) -> Appended,
    ) -> Vec<Result<Appended, Error>> {
        let (appended, arrived) = self.with(|space| {
            let state = space.topics.entry(at.clone()).or_default();
            // Under the lock, so that ids grow as the clock does.
            let now = self.shared.now();
            let appended = drafts.iter().map(|draft| Ok(append(state, now, draft)));
            (appended.collect(), Arc::clone(&state.arrived))
        });
        arrived.notify_waiters();
        appended
    }
}

/// The refusal of a level that memory cannot give.
pub(super) fn refuse(level: Durability) -> Result<(), Error> {
    if level == Durability::Accepted {
        return Ok(());
    }
    let text = format!(
        "the store in memory cannot give level {level}: it loses everything with its process"
    );
    Err(Error::new(ErrorKind::Unsupported, "durability", text))
}

impl Log for MemoryAdapter {
    fn append<'a>(
        &'a self,
        at: &'a Partition,
        drafts: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        turn(move || {
            Ok(self.append_each(at, drafts, |state, now, draft| Appended {
                id: state.log.push(now, fields(draft)),
                duplicate: false,
            }))
        })
    }

    fn append_once<'a>(
        &'a self,
        at: &'a Partition,
        window: Duration,
        drafts: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        let window = whole_millis(window);
        turn(move || {
            Ok(self.append_each(at, drafts, |state, now, draft| {
                if let Some(id) = state.ids.within(draft.id, window, now) {
                    return Appended {
                        id,
                        duplicate: true,
                    };
                }
                let id = state.log.push(now, fields(draft));
                state.ids.remember(draft.id, id, window, now);
                Appended {
                    id,
                    duplicate: false,
                }
            }))
        })
    }

    fn can_keep(&self, level: Durability) -> BoxFuture<'_, Result<(), Error>> {
        turn(move || refuse(level))
    }

    fn append_durably<'a>(
        &'a self,
        at: &'a Partition,
        level: Durability,
        window: Option<Duration>,
        entries: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        Box::pin(async move {
            refuse(level)?;
            match window {
                None => self.append(at, entries).await,
                Some(window) => self.append_once(at, window, entries).await,
            }
        })
    }

    fn browse<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let Some(state) = space.topics.get(at) else {
                    return Vec::new();
                };
                state.log.after(after).take(max).cloned().collect()
            }))
        })
    }

    fn browse_back<'a>(
        &'a self,
        at: &'a Partition,
        before: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let Some(state) = space.topics.get(at) else {
                    return Vec::new();
                };
                state.log.before(before).take(max).cloned().collect()
            }))
        })
    }

    fn latest<'a>(
        &'a self,
        at: &'a Partition,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let Some(state) = space.topics.get(at) else {
                    return Vec::new();
                };
                state.log.latest(max).cloned().collect()
            }))
        })
    }

    fn newest<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        turn(move || Ok(self.with(|space| space.topics.get(at)?.log.newest())))
    }
}
