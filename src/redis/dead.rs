//! Dead letters: reading, redriving, purging.

use bytes::Bytes;
use redis::{RedisError, Value};

use super::backend::RedisBackend;
use super::settle::batches;
use super::{reply, scripts};
use crate::backend::{Fields, MAX_BATCH, Record};
use crate::domain::{EntryId, Error, Group, Topic};

impl RedisBackend {
    pub(super) async fn list_dead(
        &self,
        topic: &Topic,
        group: &Group,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<(EntryId, Record)>, Error> {
        let entries = self
            .range(
                "list dead letters",
                self.keys.dead(topic, group),
                after,
                max,
            )
            .await
            .map_err(|e| e.on(format!("{topic}/{group}")))?;
        entries
            .into_iter()
            .map(|(id, fields)| Ok((id, record(fields)?)))
            .collect::<Result<_, RedisError>>()
            .map_err(|e| super::error::sent("list dead letters", e).on(format!("{topic}/{group}")))
    }

    pub(super) async fn find_dead(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Vec<(EntryId, Record)>, Error> {
        let dead = self.keys.dead(topic, group);
        let mut found = Vec::new();
        for ids in ids.chunks(MAX_BATCH) {
            let mut pipeline = redis::pipe();
            for id in ids {
                let id = id.to_string();
                pipeline.cmd("XRANGE").arg(&dead).arg(&id).arg(&id);
            }
            let records = self
                .pool
                .run("get dead letters", async |connection| {
                    let replies: Vec<Value> = pipeline.query_async(connection).await?;
                    let mut records = Vec::new();
                    for reply in replies {
                        for (id, fields) in reply::entries(reply)? {
                            records.push((id, record(fields)?));
                        }
                    }
                    Ok(records)
                })
                .await
                .map_err(|e| e.on(format!("{topic}/{group}")))?;
            found.extend(records);
        }
        Ok(found)
    }

    pub(super) async fn take_dead(
        &self,
        action: &'static str,
        topic: &Topic,
        group: &Group,
        taken: Vec<(EntryId, Bytes)>,
    ) -> Result<Vec<bool>, Error> {
        let mut done = Vec::with_capacity(taken.len());
        for batch in batches(&taken, |(_, parcel)| parcel.len()) {
            let mut call = scripts::dead_take()
                .key(self.keys.dead(topic, group))
                .key(self.keys.dead_counts(topic, group))
                .key(self.keys.redo(topic, group))
                .arg(action);
            for (id, parcel) in batch {
                call.push(id.to_string());
                call.push(&parcel[..]);
            }
            let flags = self
                .pool
                .run(action, async |connection| {
                    let reply: Value = call.run(connection).await?;
                    reply::flags(reply)
                })
                .await
                .map_err(|e| e.on(format!("{topic}/{group}")))?;
            done.extend(flags);
        }
        Ok(done)
    }

    pub(super) async fn count_dead(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<Vec<(String, u64)>, Error> {
        let mut counts: Vec<(String, u64)> = self
            .pool
            .run("count dead letters", async |connection| {
                redis::cmd("HGETALL")
                    .arg(self.keys.dead_counts(topic, group))
                    .query_async(connection)
                    .await
            })
            .await
            .map_err(|e| e.on(format!("{topic}/{group}")))?;
        counts.sort();
        Ok(counts)
    }
}

fn record(fields: Fields) -> Result<Record, RedisError> {
    let find = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| &field[..] == name.as_bytes())
            .map(|(_, value)| value.clone())
    };
    let text = |name| find(name).and_then(|value| String::from_utf8(value.to_vec()).ok());
    let read = || {
        Some(Record {
            reason: text("reason")?.parse().ok()?,
            fingerprint: text("fingerprint")?,
            kind: text("type")?,
            tenant: text("tenant")?,
            body: find("record")?,
        })
    };
    read().ok_or_else(|| reply::unexpected("a dead letter's fields"))
}
