//! The log over partitions: messages go to the partition of their key, and reading merges by id.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::merge::{Listed, Portion, after_in, before_in, merged};
use super::{Partitioned, numbered, route, scatter};
use crate::domain::{BoxFuture, Durability, EntryId, Error};
use crate::store::source::Partition;
use crate::store::{Appended, Fields, Log, NewEntry};

/// Which partition gets the next call's messages without a key.
static TURN: AtomicU16 = AtomicU16::new(0);

type Entries = Vec<(EntryId, Fields)>;
type Outcomes<'a> = BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>>;

/// How messages are appended.
#[derive(Clone, Copy)]
enum How {
    Plainly,
    Once(Duration),
    Durably(Durability, Option<Duration>),
}

impl How {
    fn window(self) -> Option<Duration> {
        match self {
            Self::Plainly => None,
            Self::Once(window) => Some(window),
            Self::Durably(_, window) => window,
        }
    }

    fn append<'a>(
        self,
        log: &'a dyn Log,
        at: &'a Partition,
        entries: &'a [NewEntry],
    ) -> Outcomes<'a> {
        match self {
            Self::Plainly => log.append(at, entries),
            Self::Once(window) => log.append_once(at, window, entries),
            Self::Durably(level, window) => log.append_durably(at, level, window, entries),
        }
    }
}

impl Partitioned {
    fn append_spread<'a>(
        &'a self,
        at: &'a Partition,
        how: How,
        entries: &'a [NewEntry],
    ) -> Outcomes<'a> {
        if self.is_single(at) {
            return how.append(self.inner.log(), at, entries);
        }
        Box::pin(async move {
            let count = self.count(at.topic()).await?;
            // Messages without a key stay together, and go to each partition in turn. A repeat must meet
            // its id.
            let turn = TURN.fetch_add(1, Ordering::Relaxed) % count;
            let place = |entry: &NewEntry| match (at.is_whole(), entry.slot, how.window()) {
                (false, ..) => at.number(),
                (_, None, None) => turn,
                (_, slot, _) => route(count, slot, entry.id.as_bytes()),
            };
            let entries = entries.iter().map(|entry| (place(entry), entry.clone()));
            let append = |number, entries: Vec<NewEntry>| -> Outcomes<'a> {
                Box::pin(async move {
                    let at = numbered(at, number);
                    let appended = how.append(self.inner.log(), &at, &entries).await?;
                    let stamp = |one: Appended| Appended {
                        id: one.id.in_partition(number),
                        ..one
                    };
                    Ok(appended.into_iter().map(|one| one.map(stamp)).collect())
                })
            };
            scatter(entries, append, |error| Some(Err(error.clone()))).await
        })
    }

    /// Entries of all partitions before an id, the newest first.
    async fn back_from(
        &self,
        at: &Partition,
        before: Option<EntryId>,
        max: usize,
    ) -> Result<Entries, Error> {
        let next = |at: Partition, before: Option<Reverse<EntryId>>, max| -> BoxFuture<'_, _> {
            Box::pin(async move {
                let before = before_in(before.map(|Reverse(id)| id), at.number());
                let read = self.inner.log().browse_back(&at, before, max).await?;
                Ok(portion(read, max, |(id, fields)| {
                    Back(id.in_partition(at.number()), fields)
                }))
            })
        };
        let partitions = self.partitions_meant(at).await?;
        let (all, _) = merged(partitions, before.map(Reverse), max, next).await?;
        Ok(all
            .into_iter()
            .map(|Back(id, fields)| (id, fields))
            .collect())
    }
}

/// Entries that an adapter has read, of up to `max`.
fn portion<T>(read: Entries, max: usize, stamp: impl Fn((EntryId, Fields)) -> T) -> Portion<T> {
    Portion {
        ended: read.len() < max,
        items: read.into_iter().map(stamp).collect(),
        now: None,
    }
}

impl Listed for (EntryId, Fields) {
    type Place = EntryId;

    fn place(&self) -> EntryId {
        self.0
    }
}

/// An entry of a list that begins at the newest.
struct Back(EntryId, Fields);

impl Listed for Back {
    type Place = Reverse<EntryId>;

    fn place(&self) -> Reverse<EntryId> {
        Reverse(self.0)
    }
}

impl Log for Partitioned {
    fn append<'a>(&'a self, at: &'a Partition, entries: &'a [NewEntry]) -> Outcomes<'a> {
        self.append_spread(at, How::Plainly, entries)
    }

    fn append_once<'a>(
        &'a self,
        at: &'a Partition,
        window: Duration,
        entries: &'a [NewEntry],
    ) -> Outcomes<'a> {
        self.append_spread(at, How::Once(window), entries)
    }

    fn can_keep(&self, level: Durability) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.log().can_keep(level)
    }

    fn append_durably<'a>(
        &'a self,
        at: &'a Partition,
        level: Durability,
        window: Option<Duration>,
        entries: &'a [NewEntry],
    ) -> Outcomes<'a> {
        self.append_spread(at, How::Durably(level, window), entries)
    }

    fn browse<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Entries, Error>> {
        if self.is_single(at) {
            return self.inner.log().browse(at, after_in(after, 0), max);
        }
        Box::pin(async move {
            let next = |at: Partition, after: Option<EntryId>, max| -> BoxFuture<'_, _> {
                Box::pin(async move {
                    let after = after_in(after, at.number());
                    let read = self.inner.log().browse(&at, after, max).await?;
                    Ok(portion(read, max, |(id, fields)| {
                        (id.in_partition(at.number()), fields)
                    }))
                })
            };
            let partitions = self.partitions_meant(at).await?;
            Ok(merged(partitions, after, max, next).await?.0)
        })
    }

    fn browse_back<'a>(
        &'a self,
        at: &'a Partition,
        before: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Entries, Error>> {
        if self.is_single(at) {
            return self.inner.log().browse_back(at, before_in(before, 0), max);
        }
        Box::pin(self.back_from(at, before, max))
    }

    fn latest<'a>(
        &'a self,
        at: &'a Partition,
        max: usize,
    ) -> BoxFuture<'a, Result<Entries, Error>> {
        if self.is_single(at) {
            return self.inner.log().latest(at, max);
        }
        Box::pin(async move {
            let mut all = self.back_from(at, None, max).await?;
            all.reverse();
            Ok(all)
        })
    }

    fn newest<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        if self.is_single(at) {
            return self.inner.log().newest(at);
        }
        Box::pin(async move {
            let newest = self.each(at, |store, at| {
                Box::pin(async move { store.log().newest(&at).await })
            });
            let newest = newest.await?.into_iter();
            Ok(newest
                .filter_map(|(number, id)| Some(id?.in_partition(number)))
                .max())
        })
    }
}
