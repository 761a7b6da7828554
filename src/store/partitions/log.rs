//! The log over partitions: messages go to the partition of their key, and reading merges by id.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::merge::{after_in, before_in};
use super::{Partitioned, numbered, route, scatter};
use crate::domain::{BoxFuture, Durability, EntryId, Error};
use crate::store::source::Partition;
use crate::store::{Appended, Fields, Log, NewEntry, Store};

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

    /// Reads pages of all partitions and merges them.
    async fn pages<'a>(
        &'a self,
        at: &Partition,
        read: impl Fn(&'a dyn Store, Partition) -> BoxFuture<'a, Result<Entries, Error>> + Send,
    ) -> Result<Entries, Error> {
        let mut all = Vec::new();
        for (number, page) in self.each(at, read).await? {
            let stamp = |(id, fields): (EntryId, Fields)| (id.in_partition(number), fields);
            all.extend(page.into_iter().map(stamp));
        }
        all.sort_by_key(|(id, _)| *id);
        Ok(all)
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
            let read = self.pages(at, |store, at| {
                Box::pin(async move {
                    let after = after_in(after, at.number());
                    store.log().browse(&at, after, max).await
                })
            });
            let mut all = read.await?;
            all.truncate(max);
            Ok(all)
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
        Box::pin(async move {
            let read = self.pages(at, |store, at| {
                Box::pin(async move {
                    let before = before_in(before, at.number());
                    store.log().browse_back(&at, before, max).await
                })
            });
            let mut all = read.await?;
            all.reverse();
            all.truncate(max);
            Ok(all)
        })
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
            let read = self.pages(at, |store, at| {
                Box::pin(async move { store.log().latest(&at, max).await })
            });
            let mut all = read.await?;
            Ok(all.split_off(all.len().saturating_sub(max)))
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
