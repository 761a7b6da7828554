//! The log of a partition: XADD on the publisher's link, and reading without a group.

mod append_once;
mod durable;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};

use super::adapter::RedisAdapter;
use super::net::{Numbers, error};
use super::resp::{Head, Walk, pack, reply};
use crate::domain::{BoxFuture, Durability, EntryId, Error};
use crate::store::{Appended, Fields, Log, NewEntry, Partition};

/// A pipeline is cut at this many entries or bytes, whichever comes first.
const PIPELINE_ENTRIES: usize = 512;
const PIPELINE_BYTES: usize = 1024 * 1024;
/// Numbers the calls of all publishers.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// How many of a batch are sent before the first one's replies are there.
const PIPELINES: usize = 2;

/// Pipelines that wait for their replies. Dropped from the last one on: what was not sent yet is not
/// sent then, and entries are appended from the first one on or not at all.
struct UnderWay<F>(VecDeque<Pin<Box<F>>>);

impl<T, F: Future<Output = Vec<T>>> UnderWay<F> {
    /// The fates of the first one's entries; it stays the first one until it has them.
    async fn first(&mut self) -> Vec<T> {
        let Some(first) = self.0.front_mut() else {
            return Vec::new();
        };
        let fates = first.await;
        self.0.pop_front();
        fates
    }
}

impl<F> Drop for UnderWay<F> {
    fn drop(&mut self) {
        while self.0.pop_back().is_some() {}
    }
}

fn xadd(out: &mut Vec<u8>, log: &str, entry: &NewEntry) {
    let parts = [
        b"XADD",
        log.as_bytes(),
        b"*",
        entry.name.as_bytes(),
        &entry.value,
    ];
    pack(out, &parts);
}

/// Packs entries with their numbers, by which a server adds each only once.
fn xadd_numbered(out: &mut Vec<u8>, log: &str, entries: &[NewEntry], numbers: &Numbers) {
    let mut entries = entries.iter();
    numbers.each(|producer, id| {
        if let Some(entry) = entries.next() {
            let parts = [
                b"XADD",
                log.as_bytes(),
                b"IDMP",
                producer.as_bytes(),
                id.as_bytes(),
                b"*",
                entry.name.as_bytes(),
                &entry.value,
            ];
            pack(out, &parts);
        }
    });
}

fn xadd_all(out: &mut Vec<u8>, log: &str, entries: &[NewEntry], numbers: Option<&Numbers>) {
    match numbers {
        Some(numbers) => xadd_numbered(out, log, entries, numbers),
        None => entries.iter().for_each(|entry| xadd(out, log, entry)),
    }
}

impl RedisAdapter {
    async fn append_entries(
        &self,
        at: &Partition,
        entries: &[NewEntry],
    ) -> Vec<Result<Appended, Error>> {
        let log = self.keys.log(at);
        // Tells the pipelines of this call from those of others.
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let mut results = Vec::with_capacity(entries.len());
        let mut under_way = UnderWay(VecDeque::new());
        let mut rest = entries;
        while !rest.is_empty() {
            let mut bytes = 0;
            let cut = rest
                .iter()
                .take(PIPELINE_ENTRIES)
                .position(|entry| {
                    bytes += entry.value.len();
                    bytes > PIPELINE_BYTES
                })
                .unwrap_or(rest.len().min(PIPELINE_ENTRIES))
                .max(1);
            let (now, later) = rest.split_at(cut);
            rest = later;
            under_way
                .0
                .push_back(Box::pin(self.append_some((&log, call), now)));
            if under_way.0.len() > PIPELINES {
                results.extend(under_way.first().await);
            }
        }
        while !under_way.0.is_empty() {
            results.extend(under_way.first().await);
        }
        results
            .into_iter()
            .map(|result| result.map_err(|e| e.on(at.to_string())))
            .collect()
    }

    /// Sends one pipeline at once; the fates of its entries can be waited for.
    fn append_some(
        &self,
        (log, call): (&str, u64),
        entries: &[NewEntry],
    ) -> impl Future<Output = Vec<Result<Appended, Error>>> + Send + use<> {
        let (size, count) = (
            entries.iter().map(|entry| entry.value.len()).sum::<usize>(),
            entries.len(),
        );
        let mut packed = Vec::with_capacity(size + count * (log.len() + 64));
        let numbers = self.net.numbers(log, count);
        xadd_all(&mut packed, log, entries, numbers.as_ref());
        let sent = self
            .net
            .publish("publish", (log, call), packed, count, numbers);
        async move {
            match sent.await {
                Ok(replies) => replies.into_iter().map(appended).collect(),
                Err(failure) => (0..count).map(|_| Err(failure.clone())).collect(),
            }
        }
    }

    async fn browse_log(
        &self,
        at: &Partition,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        self.range("browse", self.keys.log(at), after, max)
            .await
            .map_err(|e| e.on(at.to_string()))
    }

    /// Entries of a stream after an id.
    async fn range(
        &self,
        operation: &'static str,
        stream: String,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        self.net
            .run(operation, &stream, async |connection| {
                let reply: Value = redis::cmd("XRANGE")
                    .arg(&stream)
                    .arg(from)
                    .arg("+")
                    .arg("COUNT")
                    .arg(max)
                    .query_async(connection)
                    .await?;
                reply::entries(reply)
            })
            .await
    }

    async fn entries_before(
        &self,
        at: &Partition,
        before: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        let log = self.keys.log(at);
        let from = before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        self.net
            .run("latest entries", &log, async |connection| {
                let reply: Value = redis::cmd("XREVRANGE")
                    .arg(&log)
                    .arg(from)
                    .arg("-")
                    .arg("COUNT")
                    .arg(max)
                    .query_async(connection)
                    .await?;
                reply::entries(reply)
            })
            .await
            .map_err(|e| e.on(at.to_string()))
    }

    async fn latest_entries(
        &self,
        at: &Partition,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        let mut entries = self.entries_before(at, None, max).await?;
        entries.reverse();
        Ok(entries)
    }

    async fn newest_entry(&self, at: &Partition) -> Result<Option<EntryId>, Error> {
        let latest = self.latest_entries(at, 1).await?;
        Ok(latest.last().map(|(id, _)| *id))
    }
}

fn appended(reply: Result<Bytes, RedisError>) -> Result<Appended, Error> {
    let id = reply.and_then(|reply| match Walk::new(reply).next()? {
        Head::Bulk(id) => reply::parse_id(&id).ok_or_else(|| reply::unexpected("XADD")),
        _ => Err(reply::unexpected("XADD")),
    });
    let appended = id.map(|id| Appended {
        id,
        duplicate: false,
    });
    appended.map_err(|e| error::sent("publish", e))
}

impl Log for RedisAdapter {
    fn append<'a>(
        &'a self,
        at: &'a Partition,
        entries: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        Box::pin(async move { Ok(self.append_entries(at, entries).await) })
    }

    fn append_once<'a>(
        &'a self,
        at: &'a Partition,
        window: Duration,
        entries: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        Box::pin(async move { Ok(self.append_identified(at, window, entries).await) })
    }

    fn can_keep(&self, level: Durability) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.net.can_keep("durability", level))
    }

    fn append_durably<'a>(
        &'a self,
        at: &'a Partition,
        level: Durability,
        window: Option<Duration>,
        entries: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        Box::pin(self.append_at_level(at, level, window, entries))
    }

    fn browse<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.browse_log(at, after, max))
    }

    fn browse_back<'a>(
        &'a self,
        at: &'a Partition,
        before: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.entries_before(at, before, max))
    }

    fn latest<'a>(
        &'a self,
        at: &'a Partition,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.latest_entries(at, max))
    }

    fn newest<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        Box::pin(self.newest_entry(at))
    }
}
