//! Messages for later over partitions. A message waits in the partition of its key; an id alone does not
//! tell which that is.

use std::time::Duration;

use super::schedule::{join_promoted, merged};
use super::{Partitioned, numbered, route, scatter};
use crate::domain::{BoxFuture, Durability, Error, ScheduleId, Timestamp, When};
use crate::store::source::Partition;
use crate::store::{Later, LaterEntry, LaterPage, LaterPut, NewLater, Promoted, Store};

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
                    self.inner.later().put(&at, level, &messages).await
                })
            };
            scatter(messages, call, |_| None).await
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<(Timestamp, &'a ScheduleId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<LaterPage, Error>> {
        if self.is_single(at) {
            return self.inner.later().list(at, after, max);
        }
        Box::pin(async move {
            // In rounds: a round ends where the first page of a partition does.
            let mut after = after.map(|(due, id)| (due, id.clone()));
            let (mut now, mut entries) = (None, Vec::new());
            loop {
                let listed = self.each(at, |store, at| {
                    let after = after.clone();
                    Box::pin(async move {
                        let after = after.as_ref().map(|(due, id)| (*due, id));
                        store.later().list(&at, after, max).await
                    })
                });
                let mut pages = Vec::new();
                for (_, page) in listed.await? {
                    now = now.max(Some(page.now));
                    pages.push(page.entries.into());
                }
                let key = |one: &LaterEntry| (one.due, one.id.clone());
                let round = merged(pages, max - entries.len(), key);
                let Some(last) = round.last() else { break };
                after = Some((last.due, last.id.clone()));
                entries.extend(round);
                if entries.len() >= max {
                    break;
                }
            }
            let now = now.unwrap_or_else(|| self.now());
            Ok(LaterPage { now, entries })
        })
    }

    fn cancel<'a>(
        &'a self,
        at: &'a Partition,
        ids: &'a [ScheduleId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        if self.is_single(at) {
            return self.inner.later().cancel(at, ids);
        }
        Box::pin(async move {
            let cancelled = self.write_each(at, |store, at| {
                Box::pin(async move { store.later().cancel(&at, ids).await })
            });
            let mut any = vec![false; ids.len()];
            for (_, flags) in cancelled.await? {
                any.iter_mut()
                    .zip(flags)
                    .for_each(|(any, flag)| *any |= flag);
            }
            Ok(any)
        })
    }

    fn reschedule<'a>(
        &'a self,
        at: &'a Partition,
        id: &'a ScheduleId,
        due: When,
    ) -> BoxFuture<'a, Result<Option<(Timestamp, Duration)>, Error>> {
        if self.is_single(at) {
            return self.inner.later().reschedule(at, id, due);
        }
        Box::pin(async move {
            let changed = self.write_each(at, |store, at| {
                Box::pin(async move { store.later().reschedule(&at, id, due).await })
            });
            Ok(changed.await?.into_iter().find_map(|(_, changed)| changed))
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
