//! Dead letters, and the journal of operators' changes to them.

mod counts;
mod journal;
mod move_out;
mod notes;
mod search;

use std::collections::HashMap;

use bytes::Bytes;
use redis::Value;
use uuid::Uuid;

use super::adapter::RedisAdapter;
use super::net::error;
use super::resp::reply;
use super::scripts;
use crate::domain::{
    BoxFuture, Cause, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error, hour_name,
};
use crate::store::batch::batches;
use crate::store::{
    DeadLetters, Disposition, Fields, Found, GroupAt, IdRange, JournalRow, MAX_BATCH, Record,
    Restored, Restoring,
};
use crate::wire::dead_letter::{decode_head, encode_head, unreadable};
use counts::Sums;

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

    /// A hash of counts, and what is to be subtracted from it. The two commands reach the server in one
    /// write, and what it has read at once it does at once.
    async fn hash_of_counts(
        &self,
        key: String,
        at: &GroupAt,
    ) -> Result<(Vec<(String, String)>, Sums), Error> {
        let (fields, uncounted): (_, Uncounted) = self
            .net
            .run("count dead letters", &key, async |connection| {
                redis::pipe()
                    .hgetall(&key)
                    .hgetall(self.keys.dead_uncounted(at))
                    .query_async(connection)
                    .await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        Ok((fields, sum(uncounted)))
    }

    /// Some hours only: the hash of counts has a field for each tenant, too.
    async fn counts_of_hours(&self, at: &GroupAt, hours: &[u64]) -> Result<Vec<u64>, Error> {
        let key = self.keys.dead_counts(at);
        let names: Vec<String> = hours.iter().map(|hour| format!("hour:{hour}")).collect();
        let mut replies: Vec<Value> = self
            .net
            .run("count dead letters", &key, async |connection| {
                let mut pipeline = redis::pipe();
                for name in &names {
                    pipeline.hget(&key, name);
                }
                pipeline.hgetall(self.keys.dead_uncounted(at));
                pipeline.query_async(connection).await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        let read = |e| error::sent("count dead letters", e).on(at.to_string());
        let uncounted = replies.pop().unwrap_or(Value::Nil);
        let gone = sum(reply::typed(uncounted).map_err(read)?);
        let counts = names.iter().zip(replies).map(|(name, reply)| {
            let count: Option<String> = reply::typed(reply).map_err(read)?;
            let count = count.and_then(|count| left(&count, gone.counts.get(name)));
            Ok(count.unwrap_or(0))
        });
        counts.collect()
    }
}

type Uncounted = Vec<(Vec<u8>, Vec<u8>)>;

fn sum(uncounted: Uncounted) -> Sums {
    let mut sums = Sums::default();
    for (_, some) in uncounted {
        sums.add(&Sums::decode(&some));
    }
    sums
}

fn head(fields: &Fields) -> DeadLetterSummary {
    let head = fields.iter().find(|(name, _)| &name[..] == b"head");
    let bytes = head.map_or(&[][..], |(_, bytes)| bytes);
    decode_head(bytes).unwrap_or_else(|flaw| unreadable(&flaw))
}

/// The causes of `n …`, `f …` and `l …`, see lua/lib/dead_counts.lua.
fn read_causes((fields, gone): (Vec<(String, String)>, Sums)) -> Vec<Cause> {
    let found: HashMap<&str, &str> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let read = |name: &str| {
        let cause = name.strip_prefix("n ")?;
        let (reason, fingerprint) = cause.split_once(' ')?;
        let id = |which: &str| reply::parse_id(found.get(&*format!("{which} {cause}"))?.as_bytes());
        Some(Cause {
            reason: reason.parse().ok()?,
            fingerprint: fingerprint.to_owned(),
            count: left(found.get(name)?, gone.causes.get(cause))?,
            first: id("f").unwrap_or_default(),
            last: id("l").unwrap_or_default(),
        })
    };
    let mut causes: Vec<Cause> = found.keys().filter_map(|name| read(name)).collect();
    causes.sort_by(|a, b| {
        let names = |cause: &Cause| (cause.reason.as_str(), cause.fingerprint.clone());
        b.count.cmp(&a.count).then_with(|| names(a).cmp(&names(b)))
    });
    causes
}

/// What is left of a count; nothing where that is none.
fn left(count: &str, gone: Option<&i64>) -> Option<u64> {
    let left = count.parse::<i64>().ok()? - gone.unwrap_or(&0);
    u64::try_from(left).ok().filter(|left| *left > 0)
}

fn read_counts((fields, gone): (Vec<(String, String)>, Sums), by: CountBy) -> Vec<(String, u64)> {
    let prefix = match by {
        CountBy::Type => "type:",
        CountBy::Tenant => "tenant:",
        CountBy::Hour => "hour:",
    };
    let mut counts: Vec<(String, u64)> = fields
        .into_iter()
        .filter_map(|(name, count)| {
            let count = left(&count, gone.counts.get(&name))?;
            let name = name.strip_prefix(prefix)?;
            let name = match by {
                CountBy::Hour => hour_name(name.parse().ok()?),
                CountBy::Type | CountBy::Tenant => name.to_owned(),
            };
            Some((name, count))
        })
        .collect();
    counts.sort();
    counts
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

    fn causes<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Vec<Cause>, Error>> {
        Box::pin(async move {
            let key = self.keys.dead_causes(at);
            Ok(read_causes(self.hash_of_counts(key, at).await?))
        })
    }

    fn counts<'a>(
        &'a self,
        at: &'a GroupAt,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, Error>> {
        Box::pin(async move {
            let key = self.keys.dead_counts(at);
            Ok(read_counts(self.hash_of_counts(key, at).await?, by))
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    }

    #[test]
    fn causes_are_read_and_what_is_none_is_left_out() {
        let fields = pairs(&[
            ("n exhausted no user #", "5"),
            ("f exhausted no user #", "1-0"),
            ("l exhausted no user #", "9-2"),
            ("n rejected ", "7"),
            ("n crashed gone", "1"),
            ("n foreign x", "1"),
            ("n", "1"),
        ]);
        let mut gone = Sums::default();
        for (cause, number) in [("exhausted no user #", 2), ("crashed gone", 1)] {
            gone.causes.insert(cause.to_owned(), number);
        }
        let causes = read_causes((fields, gone));
        let seen: Vec<_> = causes
            .iter()
            .map(|one| (one.reason, one.fingerprint.as_str(), one.count))
            .collect();
        assert_eq!(
            seen,
            [
                (Reason::Rejected, "", 7),
                (Reason::Exhausted, "no user #", 3)
            ]
        );
        assert_eq!(causes[1].last.to_string(), "9-2");
    }

    #[test]
    fn counts_are_told_apart_by_what_they_count() {
        let fields = pairs(&[
            ("type:a", "1"),
            ("type:b", "4"),
            ("tenant:", "2"),
            ("hour:0", "3"),
        ]);
        let mut gone = Sums::default();
        gone.counts.insert("type:b".to_owned(), 4);
        let read = |by| read_counts((fields.clone(), gone.clone()), by);
        assert_eq!(read(CountBy::Type), [("a".to_owned(), 1)]);
        assert_eq!(read(CountBy::Tenant), [(String::new(), 2)]);
        assert_eq!(read(CountBy::Hour), [("1970-01-01T00Z".to_owned(), 3)]);
    }
}
