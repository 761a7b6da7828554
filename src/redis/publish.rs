//! Publishing: XADD on the publisher's own connection.

use bytes::Bytes;
use redis::{Cmd, RedisError, Value};

use super::backend::RedisBackend;
use super::server::is_sound;
use super::{error, reply, scripts};
use crate::domain::{EntryId, Error, ErrorKind, Retention, Topic, TopicSettings};

/// A pipeline is cut at this many entries or bytes, whichever comes first.
const PIPELINE_ENTRIES: usize = 512;
const PIPELINE_BYTES: usize = 1024 * 1024;

fn xadd(log: &str, (field, value): &(&'static str, Bytes)) -> Cmd {
    let mut command = Cmd::with_capacity(5, log.len() + value.len() + 16);
    command
        .arg("XADD")
        .arg(log)
        .arg("*")
        .arg(*field)
        .arg(&value[..]);
    command
}

impl RedisBackend {
    pub(super) async fn ping_publisher(&self) -> Result<(), Error> {
        let mut link = self.publisher.get("ping").await?;
        redis::cmd("PING")
            .exec_async(&mut link.connection)
            .await
            .map_err(|e| {
                self.publisher.discard(&link);
                error::sent("ping", e)
            })
    }

    pub(super) async fn create_topic(
        &self,
        topic: &Topic,
        settings: TopicSettings,
    ) -> Result<TopicSettings, Error> {
        let operation = "create topic";
        let reply: Vec<String> = self
            .pool
            .run(operation, async |connection| {
                // The registry lies in another slot, so it cannot be part of the script. A name
                // without a topic behind it does no harm, the other way round it would be hidden.
                redis::cmd("SADD")
                    .arg(self.keys.topics())
                    .arg(topic.as_str())
                    .exec_async(connection)
                    .await?;
                scripts::topic_create()
                    .key(self.keys.meta(topic))
                    .arg(self.keys.namespace())
                    .arg(topic.as_str())
                    .arg(settings.retention().to_string())
                    .arg(settings.backlog_limit())
                    .run(connection)
                    .await
            })
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
        entries: Vec<(&'static str, Bytes)>,
    ) -> Vec<Result<EntryId, Error>> {
        let log = self.keys.log(topic);
        let mut results = Vec::with_capacity(entries.len());
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let cut = rest
                .iter()
                .take(PIPELINE_ENTRIES)
                .position(|(_, value)| {
                    bytes += value.len();
                    bytes > PIPELINE_BYTES
                })
                .unwrap_or(rest.len().min(PIPELINE_ENTRIES))
                .max(1);
            let (now, later) = rest.split_at(cut);
            rest = later;
            results.extend(self.append_some(&log, now).await);
        }
        results
            .into_iter()
            .map(|result| result.map_err(|e| e.on(topic.as_str())))
            .collect()
    }

    async fn append_some(
        &self,
        log: &str,
        entries: &[(&'static str, Bytes)],
    ) -> Vec<Result<EntryId, Error>> {
        let mut link = match self.publisher.get("publish").await {
            Ok(link) => link,
            Err(unreachable) => {
                let kind = unreachable.kind();
                let again = move || Error::new(kind, "publish", "no connection to the server");
                let mut results = vec![Err(unreachable)];
                results.resize_with(entries.len(), || Err(again()));
                return results;
            }
        };
        let reply: Result<Vec<Value>, RedisError> = match entries {
            [entry] => xadd(log, entry)
                .query_async(&mut link.connection)
                .await
                .map(|value| vec![value]),
            _ => {
                let mut pipeline = redis::Pipeline::with_capacity(entries.len());
                for entry in entries {
                    pipeline.add_command(xadd(log, entry));
                }
                link.connection
                    .send_packed_commands(&pipeline, 0, entries.len())
                    .await
            }
        };
        let result_of = |value: Value| match value {
            Value::ServerError(refusal) => Err(error::sent("publish", refusal.into())),
            value => reply::entry_id(&value).map_err(|e| error::sent("publish", e)),
        };
        match reply {
            Ok(values) => values.into_iter().map(result_of).collect(),
            Err(cause) => {
                if !is_sound(&cause) {
                    self.publisher.discard(&link);
                }
                entries
                    .iter()
                    .map(|_| Err(error::sent("publish", cause.clone())))
                    .collect()
            }
        }
    }
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
