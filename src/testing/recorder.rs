//! Writes down what was published and settled: retention removes it from the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::domain::BoxFuture;
use crate::domain::{EntryId, Error, Group, Topic};
use crate::store::{
    Appended, DeliveryId, Fetched, Fields, GroupRemoval, Identified, Lane, Member, Opened,
    Promoted, Reader, ReclaimCursor, Reclaimed, Settlement, Store,
};
use crate::wire::redelivery::Redelivery;

type Place = (Topic, Group);

#[derive(Debug, Default)]
struct Books {
    published: HashMap<Topic, Vec<(EntryId, Fields)>>,
    /// What was handed out, by what it is settled by.
    handed: HashMap<(Place, DeliveryId), Fields>,
    settled: HashMap<Place, Vec<(EntryId, Fields)>>,
    known: HashSet<(Place, DeliveryId)>,
}

/// A backend that remembers.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    inner: Arc<dyn Store>,
    books: Arc<Mutex<Books>>,
    /// How many retries of a group wait for their time. Locked while they move, so that a look
    /// in between does not find them nowhere.
    waiting: Arc<tokio::sync::Mutex<HashMap<Place, u64>>>,
}

impl Recorder {
    pub(super) fn on(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            books: Arc::default(),
            waiting: Arc::default(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn published(&self, topic: &Topic) -> Vec<(EntryId, Fields)> {
        let found = self.books().published.get(topic).cloned();
        found.unwrap_or_default()
    }

    /// What a group has acknowledged, in its order, with the id with which each began.
    pub(super) fn settled(&self, topic: &Topic, group: &Group) -> Vec<(EntryId, Fields)> {
        let place = (topic.clone(), group.clone());
        let found = self.books().settled.get(&place).cloned();
        found.unwrap_or_default()
    }

    /// What keeps groups from being idle, in words; nothing when they are.
    pub(super) async fn busy(&self) -> Result<Vec<String>, Error> {
        let mut busy = Vec::new();
        for topic in self.inner.topics().await? {
            let waiting = self.waiting.lock().await;
            let Some(status) = self.inner.status(&topic).await? else {
                continue;
            };
            for one in status.groups {
                let place = (topic.clone(), one.group.clone());
                let later = waiting.get(&place).copied().unwrap_or(0);
                let due = one.scheduled.saturating_sub(later);
                if one.lag + one.in_flight + due > 0 {
                    busy.push(format!(
                        "{topic}/{}: {} undelivered, {} in flight, {due} due again",
                        one.group, one.lag, one.in_flight
                    ));
                }
            }
        }
        Ok(busy)
    }

    fn hand_out(&self, member: &Member, fetched: &[Fetched]) {
        let mut books = self.books();
        for one in fetched {
            let place = (member.topic.clone(), member.group.clone());
            books
                .handed
                .insert((place, one.receipt), one.fields.clone());
        }
    }

    fn acknowledged(&self, member: &Member, receipts: &[DeliveryId]) {
        let mut books = self.books();
        for receipt in receipts {
            let place = (member.topic.clone(), member.group.clone());
            let name = (place.clone(), *receipt);
            let Some(fields) = books.handed.remove(&name) else {
                continue;
            };
            if !books.known.insert(name) {
                continue;
            }
            let began = match receipt.lane {
                Lane::Log => Some((receipt.id, fields)),
                Lane::Redelivery => Redelivery::decode(&fields)
                    .ok()
                    .map(|redelivery| (redelivery.history.origin, redelivery.fields)),
            };
            books.settled.entry(place).or_default().extend(began);
        }
    }
}

fn no_longer(waiting: &mut HashMap<Place, u64>, topic: &Topic, group: &Group, done: &[bool]) {
    let count = waiting.entry((topic.clone(), group.clone())).or_default();
    let done = done.iter().filter(|done| **done).count() as u64;
    *count = count.saturating_sub(done);
}

impl Store for Recorder {
    fn append<'a>(
        &'a self,
        topic: &'a Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> BoxFuture<'a, Vec<Result<EntryId, Error>>> {
        Box::pin(async move {
            let kept = entries.clone();
            let results = self.inner.append(topic, entries).await;
            let mut books = self.books();
            let published = books.published.entry(topic.clone()).or_default();
            for ((name, value), result) in kept.into_iter().zip(&results) {
                if let Ok(id) = result {
                    published.push((*id, vec![(Bytes::from_static(name.as_bytes()), value)]));
                }
            }
            results
        })
    }

    fn append_once<'a>(
        &'a self,
        topic: &'a Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> BoxFuture<'a, Vec<Result<Appended, Error>>> {
        Box::pin(async move {
            let kept = entries.clone();
            let results = self.inner.append_once(topic, window, entries).await;
            let mut books = self.books();
            let published = books.published.entry(topic.clone()).or_default();
            for (Identified { name, value, .. }, result) in kept.into_iter().zip(&results) {
                if let Ok(Appended {
                    id,
                    duplicate: false,
                }) = result
                {
                    published.push((*id, vec![(Bytes::from_static(name.as_bytes()), value)]));
                }
            }
            results
        })
    }

    fn open<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(async move {
            let (inner, interrupt) = self.inner.open(member).await?;
            let reader: Box<dyn Reader> = Box::new(RecordingReader {
                inner,
                member: member.clone(),
                recorder: self.clone(),
            });
            Ok((reader, interrupt))
        })
    }

    fn acknowledge<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            // Written down first: who sees the group idle finds it here.
            self.acknowledged(member, receipts);
            self.inner.acknowledge(member, receipts).await
        })
    }

    fn settle<'a>(
        &'a self,
        member: &'a Member,
        settlements: &'a [Settlement],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(async move {
            let mut waiting = self.waiting.lock().await;
            let done = self.inner.settle(member, settlements).await?;
            let later = settlements.iter().zip(&done).filter(|(settlement, done)| {
                **done && matches!(settlement, Settlement::Reschedule { .. })
            });
            let place = (member.topic.clone(), member.group.clone());
            *waiting.entry(place).or_default() += later.count() as u64;
            Ok(done)
        })
    }

    fn promote<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        Box::pin(async move {
            let mut waiting = self.waiting.lock().await;
            let promoted = self.inner.promote(topic, group, max).await?;
            let count = waiting.entry((topic.clone(), group.clone())).or_default();
            *count = count.saturating_sub(promoted.moved);
            Ok(promoted)
        })
    }

    fn run_now<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(async move {
            let mut waiting = self.waiting.lock().await;
            let moved = self.inner.run_now(topic, group, receipts).await?;
            no_longer(&mut waiting, topic, group, &moved);
            Ok(moved)
        })
    }

    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(async move {
            let mut waiting = self.waiting.lock().await;
            let removed = self.inner.cancel(topic, group, receipts).await?;
            no_longer(&mut waiting, topic, group, &removed);
            Ok(removed)
        })
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        Box::pin(async move {
            let mut waiting = self.waiting.lock().await;
            let found = self.inner.remove_group(topic, group, quiet, force).await?;
            if found.as_ref().is_some_and(|found| found.removed) {
                waiting.remove(&(topic.clone(), group.clone()));
            }
            Ok(found)
        })
    }

    fn reclaim<'a>(
        &'a self,
        member: &'a Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        Box::pin(async move {
            let reclaimed = self.inner.reclaim(member, lease, cursor, max).await?;
            self.hand_out(member, &reclaimed.taken);
            Ok(reclaimed)
        })
    }

    crate::forward_store!(inner: name, clock, clock_set, ping, ensure_topic, create_group, extend,
        release, pending_of, trim, trim_redelivery, prune_consumers, scheduled, consumers, server, topics, status,
        browse, newest, dead_letters);
}

#[derive(Debug)]
struct RecordingReader {
    inner: Box<dyn Reader>,
    member: Member,
    recorder: Recorder,
}

impl Reader for RecordingReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(async move {
            let fetched = self.inner.fetch(max, wait).await?;
            self.recorder.hand_out(&self.member, &fetched);
            Ok(fetched)
        })
    }
}
