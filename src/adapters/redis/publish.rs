//! Publishing: XADD on the publisher's own connection.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use redis::RedisError;

use super::adapter::RedisAdapter;
use super::net::error;
use super::resp::{Head, Walk, pack, reply};
use super::scripts;
use crate::domain::{Error, ErrorKind, Retention, Topic, TopicSettings};
use crate::store::{Appended, NewEntry};

/// A pipeline is cut at this many entries or bytes, whichever comes first.
const PIPELINE_ENTRIES: usize = 512;
const PIPELINE_BYTES: usize = 1024 * 1024;
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

fn xadd(out: &mut Vec<u8>, log: &str, draft: &NewEntry) {
    let parts = [
        b"XADD",
        log.as_bytes(),
        b"*",
        draft.name.as_bytes(),
        &draft.value,
    ];
    pack(out, &parts);
}

impl RedisAdapter {
    pub(super) async fn ping_publisher(&self) -> Result<(), Error> {
        let key = self.keys.schema();
        let mut packed = Vec::new();
        pack(&mut packed, &[b"PING"]);
        for reply in self.net.publish("ping", &key, packed, 1).await? {
            reply.map_err(|e| error::sent("ping", e))?;
        }
        Ok(())
    }

    pub(super) async fn create_topic(
        &self,
        topic: &Topic,
        settings: TopicSettings,
    ) -> Result<TopicSettings, Error> {
        let operation = "create topic";
        // The registry lies in another slot, so the script cannot write it. It comes first: a name
        // without a topic does no harm, but a topic without its name would be hidden.
        let registry = self.keys.topics();
        self.net
            .run(operation, &registry, async |connection| {
                redis::cmd("SADD")
                    .arg(&registry)
                    .arg(topic.as_str())
                    .exec_async(connection)
                    .await
            })
            .await
            .map_err(|e| e.on(topic.as_str()))?;
        let call = scripts::topic_create()
            .key(self.keys.meta(topic))
            .arg(self.keys.namespace())
            .arg(topic.as_str())
            .arg(settings.retention().to_string())
            .arg(settings.backlog_limit());
        let reply: Vec<String> = self
            .net
            .call(operation, &call, reply::typed)
            .await
            .map_err(|e| e.on(topic.as_str()))?;
        match reply.as_slice() {
            [ok, retention, limit] if ok == "ok" => read_settings(retention, limit),
            [_, namespace, other] => {
                let rule = format!(
                    "its keys belong to topic {other:?} of namespace {namespace:?}; choose another name"
                );
                Err(Error::new(ErrorKind::Invalid, operation, rule))
            }
            _ => Err(error::sent(operation, reply::unexpected("topic_create.lua"))),
        }
        .map_err(|e| e.on(topic.as_str()))
    }

    pub(super) async fn append_entries(
        &self,
        topic: &Topic,
        entries: &[NewEntry],
    ) -> Vec<Result<Appended, Error>> {
        let log = self.keys.log(topic);
        let mut results = Vec::with_capacity(entries.len());
        let mut under_way = UnderWay(VecDeque::new());
        let mut rest = entries;
        while !rest.is_empty() {
            let mut bytes = 0;
            let cut = rest
                .iter()
                .take(PIPELINE_ENTRIES)
                .position(|draft| {
                    bytes += draft.value.len();
                    bytes > PIPELINE_BYTES
                })
                .unwrap_or(rest.len().min(PIPELINE_ENTRIES))
                .max(1);
            let (now, later) = rest.split_at(cut);
            rest = later;
            under_way.0.push_back(Box::pin(self.append_some(&log, now)));
            if under_way.0.len() > PIPELINES {
                results.extend(under_way.first().await);
            }
        }
        while !under_way.0.is_empty() {
            results.extend(under_way.first().await);
        }
        results
            .into_iter()
            .map(|result| result.map_err(|e| e.on(topic.as_str())))
            .collect()
    }

    /// Sends one pipeline at once; the fates of its entries can be waited for.
    fn append_some(
        &self,
        log: &str,
        entries: &[NewEntry],
    ) -> impl Future<Output = Vec<Result<Appended, Error>>> + Send + use<> {
        let (size, count) = (
            entries.iter().map(|draft| draft.value.len()).sum::<usize>(),
            entries.len(),
        );
        let mut packed = Vec::with_capacity(size + count * (log.len() + 64));
        for draft in entries {
            xadd(&mut packed, log, draft);
        }
        let sent = self.net.publish("publish", log, packed, count);
        async move {
            match sent.await {
                Ok(replies) => replies.into_iter().map(appended).collect(),
                Err(failure) => (0..count).map(|_| Err(failure.clone())).collect(),
            }
        }
    }
}

fn appended(reply: Result<Bytes, RedisError>) -> Result<Appended, Error> {
    let id = reply.and_then(|reply| match Walk::new(reply).next()? {
        Head::RawPayload(id) => reply::parse_id(&id).ok_or_else(|| reply::unexpected("XADD")),
        _ => Err(reply::unexpected("XADD")),
    });
    let appended = id.map(|id| Appended {
        id,
        duplicate: false,
    });
    appended.map_err(|e| error::sent("publish", e))
}

/// The settings as the store holds them.
pub(super) fn read_settings(retention: &str, limit: &str) -> Result<TopicSettings, Error> {
    let retention: Retention = retention.parse()?;
    let limit = limit.parse().map_err(|_| {
        Error::new(
            ErrorKind::Decode,
            "topic settings",
            "the backlog limit is no number",
        )
    })?;
    Ok(TopicSettings::default()
        .with_retention(retention)
        .with_backlog_limit(limit))
}
