//! Dead letters, and the journal of operators' changes to them.

mod counts;
mod journal;
mod move_out;
mod notes;
mod read_counts;
mod search;

use bytes::Bytes;
use redis::Value;
use uuid::Uuid;

use super::adapter::RedisAdapter;
use super::net::error;
use super::resp::reply;
use super::scripts;
use crate::domain::{
    BoxFuture, Cause, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error,
};
use crate::store::batch::batches;
use crate::store::{
    Counted, DeadLetters, Disposition, Fields, Found, GroupAt, IdRange, JournalRow, MAX_BATCH,
    Record, Restored, Restoring,
};
use crate::wire::dead_letter::{decode_head, encode_head, unreadable};

impl RedisAdapter {
    async fn dead_records(
        &self,
        at: &GroupAt,
        ids: &[EntryId],
    ) -> Result<Vec<(EntryId, Record)>, Error> {
        let (dead, bodies) = (self.keys.dead(at), self.keys.dead_body(at));
        let mut found = Vec::new();
        for ids in ids.chunks(MAX_BATCH) {
            let mut pipeline = redis::pipe();
            for id in ids {
                let id = id.to_string();
                pipeline.cmd("XRANGE").arg(&dead).arg(&id).arg(&id);
                pipeline.cmd("HGET").arg(&bodies).arg(&id);
            }
            let replies: Vec<Value> = self
                .net
                .run("get dead letters", &dead, async |connection| {
                    pipeline.query_async(connection).await
                })
                .await
                .map_err(|e| e.on(at.to_string()))?;
            let mut replies = replies.into_iter();
            while let (Some(entries), Some(body)) = (replies.next(), replies.next()) {
                // Taken out between the two, or before them.
                let Value::BulkString(body) = body else {
                    continue;
                };
                let entries = reply::entries(entries)
                    .map_err(|e| error::sent("get dead letters", e))
                    .map_err(|e| e.on(at.to_string()))?;
                for (id, fields) in entries {
                    let head = head(&fields);
                    let body = Bytes::from(body.clone());
                    found.push((id, Record { head, body }));
                }
            }
        }
        Ok(found)
    }

    async fn weigh_dead(&self, at: &GroupAt, ids: &[EntryId]) -> Result<Vec<u64>, Error> {
        let bodies = self.keys.dead_body(at);
        let mut weights = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_BATCH) {
            let mut pipeline = redis::pipe();
            for id in ids {
                pipeline.cmd("HSTRLEN").arg(&bodies).arg(id.to_string());
            }
            let some: Vec<u64> = self
                .net
                .run("weigh dead letters", &bodies, async |connection| {
                    pipeline.query_async(connection).await
                })
                .await
                .map_err(|e| e.on(at.to_string()))?;
            weights.extend(some);
        }
        Ok(weights)
    }

    async fn count_dead(&self, at: &GroupAt) -> Result<u64, Error> {
        let stream = self.keys.dead(at);
        self.net
            .run("count dead letters", &stream, async |connection| {
                redis::cmd("XLEN")
                    .arg(&stream)
                    .query_async(connection)
                    .await
            })
            .await
            .map_err(|e| e.on(at.to_string()))
    }

    async fn last_dead(&self, at: &GroupAt) -> Result<Option<EntryId>, Error> {
        let stream = self.keys.dead(at);
        self.net
            .run("newest dead letter", &stream, async |connection| {
                let reply: Value = redis::cmd("XREVRANGE")
                    .arg(&stream)
                    .arg("+")
                    .arg("-")
                    .arg("COUNT")
                    .arg(1)
                    .query_async(connection)
                    .await?;
                Ok(reply::entries(reply)?.first().map(|(id, _)| *id))
            })
            .await
            .map_err(|e| e.on(at.to_string()))
    }

    async fn put_dead(
        &self,
        at: &GroupAt,
        records: &[Restoring],
        again: bool,
    ) -> Result<Vec<Restored>, Error> {
        let mut results = Vec::with_capacity(records.len());
        for batch in batches(records, |one| one.record.body.len()) {
            let mut call = scripts::dead_restore()
                .key(self.keys.dead(at))
                .key(self.keys.dead_body(at))
                .key(self.keys.dead_counts(at))
                .key(self.keys.dead_causes(at))
                .key(self.keys.dead_restored(at))
                .arg(if again { "1" } else { "0" });
            for one in batch {
                call.push(&one.identity);
                call.push(one.own.map(|id| id.to_string()).unwrap_or_default());
                call.push(&encode_head(&one.record.head)[..]);
                call.push(&one.record.body[..]);
            }
            let given: Vec<String> = self
                .net
                .call("restore dead letters", &call, reply::typed)
                .await
                .map_err(|e| e.on(at.to_string()))?;
            for told in &given {
                results.push(match (reply::parse_id(told.as_bytes()), told.as_str()) {
                    (Some(id), _) => Restored::Added(id),
                    (None, "") => Restored::Present,
                    (None, "gone") => Restored::Gone,
                    _ => {
                        let cause = reply::unexpected("dead_restore.lua");
                        return Err(error::sent("restore dead letters", cause).on(at.to_string()));
                    }
                });
            }
        }
        Ok(results)
    }
}

fn head(fields: &Fields) -> DeadLetterSummary {
    let head = fields.iter().find(|(name, _)| &name[..] == b"head");
    let bytes = head.map_or(&[][..], |(_, bytes)| bytes);
    decode_head(bytes).unwrap_or_else(|flaw| unreadable(&flaw))
}

impl DeadLetters for RedisAdapter {
    fn search<'a>(
        &'a self,
        at: &'a GroupAt,
        range: IdRange,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Found, Error>> {
        Box::pin(self.search_dead(at, range, filter, max))
    }

    fn find<'a>(
        &'a self,
        at: &'a GroupAt,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Record)>, Error>> {
        Box::pin(self.dead_records(at, ids))
    }

    fn weigh<'a>(
        &'a self,
        at: &'a GroupAt,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        Box::pin(self.weigh_dead(at, ids))
    }

    fn count<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.count_dead(at))
    }

    fn newest<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        Box::pin(self.last_dead(at))
    }

    fn move_out<'a>(
        &'a self,
        at: &'a GroupAt,
        items: &'a [(EntryId, Disposition)],
        known: &'a [(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.take_dead(at, items, known, operation))
    }

    fn restore<'a>(
        &'a self,
        at: &'a GroupAt,
        records: &'a [Restoring],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Restored>, Error>> {
        Box::pin(self.put_dead(at, records, again))
    }

    fn causes<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Counted<Cause>, Error>> {
        Box::pin(self.causes_of(at))
    }

    fn counts<'a>(
        &'a self,
        at: &'a GroupAt,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Counted<(String, u64)>, Error>> {
        Box::pin(self.counts_of(at, by))
    }

    fn hours<'a>(
        &'a self,
        at: &'a GroupAt,
        hours: &'a [u64],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        Box::pin(self.counts_of_hours(at, hours))
    }

    fn begin_operation<'a>(
        &'a self,
        at: &'a GroupAt,
        operation: Uuid,
        order: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.write_beginning(at, operation, order))
    }

    fn end_operation<'a>(
        &'a self,
        at: &'a GroupAt,
        operation: Uuid,
        result: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.write_end(at, operation, result))
    }

    fn notes<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Vec<(String, String)>, Error>> {
        Box::pin(self.read_notes(at))
    }

    fn set_note<'a>(
        &'a self,
        at: &'a GroupAt,
        name: &'a str,
        note: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.write_note(at, name, note))
    }

    fn journal<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Vec<JournalRow>, Error>> {
        Box::pin(self.read_journal(at))
    }
}
