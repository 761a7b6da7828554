//! Messages for later over partitions. A message waits in the partition of its key; an id alone does not
//! tell which that is.

use std::time::Duration;

use super::merge::{Listed, Portion, due_after, merged};
use super::schedule::join_promoted;
use super::{Partitioned, numbered, route, scatter};
use crate::domain::{BoxFuture, Durability, Error, ScheduleId, Timestamp, When};
use crate::store::source::Partition;
use crate::store::{Later, LaterEntry, LaterPage, LaterPlace, LaterPut, NewLater, Promoted, Store};

/// A place as its own value.
type Place = (Timestamp, u16, ScheduleId);

impl Listed for LaterEntry {
    type Place = Place;

    fn place(&self) -> Place {
        (self.due, self.partition, self.id.clone())
    }

    fn weight(&self) -> usize {
        let fields = self.fields.iter();
        fields.map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl Partitioned {
    async fn list_later(
        &self,
        at: &Partition,
        after: Option<LaterPlace<'_>>,
        max: usize,
    ) -> Result<LaterPage, Error> {
        let after = after.map(|place| (place.due, place.partition, place.id.clone()));
        let next = |at: Partition, after: Option<Place>, max| -> BoxFuture<'_, _> {
            Box::pin(async move {
                let number = at.number();
                let first = ScheduleId::before_all();
                let after = match after.map(|place| due_after(place, number, first)) {
                    Some(None) => return Ok(Portion::none()),
                    after => after.flatten(),
                };
                let after = after.as_ref().map(|(due, id)| LaterPlace {
                    due: *due,
                    partition: number,
                    id,
                });
                let page = self.inner.later().list(&at, after, max).await?;
                let entries = page.entries.into_iter();
                let entries = entries.map(|one| LaterEntry {
                    partition: number,
                    ..one
                });
                Ok(Portion::page(entries.collect(), page.now))
            })
        };
        let partitions = self.partitions_meant(at).await?;
        let (entries, now) = merged(partitions, after, max, next).await?;
        let now = now.unwrap_or_else(|| self.now());
        Ok(LaterPage { now, entries })
    }
}

impl Later for Partitioned {
    fn put<'a>(
        &'a self,
        at: &'a Partition,
        level: Durability,
        messages: &'a [NewLater],
    ) -> BoxFuture<'a, Result<Vec<LaterPut>, Error>> {
        if self.is_single(at) {
            return self.inner.later().put(at, level, messages);
        }
        Box::pin(async move {
            let count = self.count(at.topic()).await?;
            let place = |message: &NewLater| match at.is_whole() {
                true => route(count, message.slot, message.id.as_str().as_bytes()),
                false => at.number(),
            };
            let messages = messages.iter();
            let messages = messages.map(|message| (place(message), message.clone()));
            let call = |number, messages: Vec<NewLater>| -> BoxFuture<'a, _> {
                Box::pin(async move {
                    let at = numbered(at, number);
                    let mut puts = self.inner.later().put(&at, level, &messages).await?;
                    for put in &mut puts {
                        if let LaterPut::Full { partition, .. } = put {
                            *partition = number;
                        }
                    }
                    Ok(puts)
                })
            };
            scatter(messages, call, |_| None).await
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<LaterPlace<'a>>,
        max: usize,
    ) -> BoxFuture<'a, Result<LaterPage, Error>> {
        if self.is_single(at) {
            return self.inner.later().list(at, after, max);
        }
        Box::pin(self.list_later(at, after, max))
    }

    fn cancel<'a>(
        &'a self,
        at: &'a Partition,
        ids: &'a [ScheduleId],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        if self.is_single(at) {
            return self.inner.later().cancel(at, ids);
        }
        Box::pin(async move {
            let cancelled = self.write_each(at, |store, at| {
                Box::pin(async move { store.later().cancel(&at, ids).await })
            });
            let mut sums = vec![0; ids.len()];
            for (_, counts) in cancelled.await? {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            Ok(sums)
        })
    }

    fn reschedule<'a>(
        &'a self,
        at: &'a Partition,
        id: &'a ScheduleId,
        due: When,
    ) -> BoxFuture<'a, Result<Vec<(Timestamp, Duration)>, Error>> {
        if self.is_single(at) {
            return self.inner.later().reschedule(at, id, due);
        }
        Box::pin(async move {
            let changed = self.write_each(at, |store, at| {
                Box::pin(async move { store.later().reschedule(&at, id, due).await })
            });
            let changed = changed.await?.into_iter();
            Ok(changed.flat_map(|(_, changed)| changed).collect())
        })
    }

    fn promote<'a>(
        &'a self,
        at: &'a Partition,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        if self.is_single(at) {
            return self.inner.later().promote(at, max);
        }
        Box::pin(async move {
            let promoted = self.each(at, |store, at| {
                Box::pin(async move { store.later().promote(&at, max).await })
            });
            let promoted = promoted.await?.into_iter().map(|(_, promoted)| promoted);
            Ok(promoted.fold(Promoted::default(), join_promoted))
        })
    }
}
