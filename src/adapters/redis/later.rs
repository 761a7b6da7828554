//! Messages for later: a sorted set by due time and a hash of bodies, beside the topic's log.

use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};

use super::adapter::RedisAdapter;
use super::net::error;
use super::resp::reply;
use super::schedule::time;
use super::scripts::{self, Call};
use crate::domain::{BoxFuture, Durability, Error, ScheduleId, Timestamp, When, whole_millis};
use crate::store::batch::READ_BYTES;
use crate::store::batch::batches;
use crate::store::{
    Fields, Later, LaterEntry, LaterPage, LaterPlace, LaterPut, MAX_BATCH, NewLater, Partition,
    Promoted,
};

const PUT: &str = "schedule";

impl RedisAdapter {
    async fn put_later(
        &self,
        at: &Partition,
        level: Durability,
        messages: &[NewLater],
    ) -> Result<Vec<LaterPut>, Error> {
        // Before anything is scheduled that the server then cannot keep.
        self.net.can_keep(PUT, level).await?;
        let mut done = Vec::with_capacity(messages.len());
        for batch in batches(messages, |message| message.value.len()) {
            let mut call = scripts::later_put()
                .key(self.keys.later(at))
                .key(self.keys.later_body(at))
                .key(self.keys.meta(at))
                .key(self.keys.later_bell(at));
            for message in batch {
                let (word, millis) = due_words(message.due);
                call.push(message.id.as_str());
                call.push(word);
                call.push(millis);
                call.push(match level {
                    Durability::Accepted => keep_word(message),
                    // A wait for replicas covers only what its own connection has written.
                    _ if message.keeps => "rewrite",
                    _ => keep_word(message),
                });
                call.push(message.name);
                call.push(&message.value[..]);
            }
            let answered = match level {
                Durability::Accepted => {
                    let read = |reply| puts(reply, batch.len());
                    self.net.call(PUT, &call, read).await
                }
                level => self.put_durably(&call, level, batch.len()).await,
            };
            done.extend(answered.map_err(|e| e.on(at.to_string()))?);
        }
        Ok(done)
    }

    async fn put_durably(
        &self,
        call: &Call,
        level: Durability,
        count: usize,
    ) -> Result<Vec<LaterPut>, Error> {
        let (said, durable) = self.net.call_durably(PUT, call, level).await?;
        let said = redis::parse_redis_value(&said).and_then(|said| puts(said, count));
        let done = said.map_err(|e| error::sent(PUT, e))?;
        let is_there =
            |put: &LaterPut| matches!(put, LaterPut::Scheduled { .. } | LaterPut::Kept { .. });
        match done.iter().any(is_there) {
            true => durable.map(|()| done),
            false => Ok(done),
        }
    }

    async fn list_later(
        &self,
        at: &Partition,
        after: Option<LaterPlace<'_>>,
        max: usize,
    ) -> Result<LaterPage, Error> {
        let (due, place) = match after {
            Some(place) => (place.due.as_millis().to_string(), place.id.as_str()),
            None => (String::new(), ""),
        };
        let call = scripts::retry_list()
            .key(self.keys.later(at))
            .key(self.keys.later_body(at))
            .arg(due)
            .arg(place)
            .arg(max.min(MAX_BATCH))
            .arg(READ_BYTES);
        let read = |reply| {
            let mut reply = reply::array(reply)?.into_iter();
            let now = reply.next().ok_or_else(|| reply::unexpected("no time"))?;
            Ok(LaterPage {
                now: time(&now)?,
                entries: reply.map(entry).collect::<Result<_, RedisError>>()?,
            })
        };
        let page = self.net.call("list messages for later", &call, read).await;
        page.map_err(|e| e.on(at.to_string()))
    }

    async fn cancel_later(&self, at: &Partition, ids: &[ScheduleId]) -> Result<Vec<u64>, Error> {
        let mut done = Vec::with_capacity(ids.len());
        for batch in ids.chunks(MAX_BATCH) {
            let mut call = scripts::later_cancel()
                .key(self.keys.later(at))
                .key(self.keys.later_body(at));
            batch.iter().for_each(|id| call.push(id.as_str()));
            let flags = self.net.call("cancel", &call, reply::flags).await;
            let flags = flags.map_err(|e| e.on(at.to_string()))?;
            done.extend(flags.into_iter().map(u64::from));
        }
        Ok(done)
    }

    async fn reschedule_later(
        &self,
        at: &Partition,
        id: &ScheduleId,
        due: When,
    ) -> Result<Vec<(Timestamp, Duration)>, Error> {
        let (word, millis) = due_words(due);
        let call = scripts::later_reschedule()
            .key(self.keys.later(at))
            .key(self.keys.later_bell(at))
            .arg(id.as_str())
            .arg(word)
            .arg(millis);
        let read = |reply| {
            let texts: Vec<String> = reply::typed(reply)?;
            match &texts[..] {
                [] => Ok(Vec::new()),
                [now, due] => {
                    let due_at = time_of(due)?;
                    Ok(vec![(due_at, until(due_at, time_of(now)?))])
                }
                _ => Err(reply::unexpected("later_reschedule.lua")),
            }
        };
        let done = self.net.call("reschedule", &call, read).await;
        done.map_err(|e| e.on(format!("{at}/{id}")))
    }

    async fn promote_later(&self, at: &Partition, max: usize) -> Result<Promoted, Error> {
        let call = scripts::later_promote()
            .key(self.keys.later(at))
            .key(self.keys.later_body(at))
            .key(self.keys.log(at))
            .arg(max.min(MAX_BATCH));
        let answer = self.net.call("promote", &call, reply::typed).await;
        let (published, next, missing): (u64, i64, u64) =
            answer.map_err(|e| e.on(at.to_string()))?;
        Ok(Promoted {
            moved: 0,
            published,
            next: u64::try_from(next).ok().map(Duration::from_millis),
            missing,
        })
    }
}

/// A due time as two arguments of the scripts.
pub(super) fn due_words(due: When) -> (&'static str, u64) {
    match due {
        When::At(_) => ("at", due.millis(0)),
        When::After(delay) => ("after", whole_millis(delay)),
    }
}

/// Whether a message replaces a known one, as an argument of the scripts.
pub(super) fn keep_word(message: &NewLater) -> &'static str {
    if message.keeps { "keep" } else { "replace" }
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    let millis = due.as_millis().saturating_sub(now.as_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A time in milliseconds, as a script or a score writes it.
fn time_of(text: &str) -> Result<Timestamp, RedisError> {
    let millis: f64 = text
        .parse()
        .map_err(|_| reply::unexpected("a time that is not a number"))?;
    Ok(Timestamp::from_millis(millis as i64).unwrap_or(Timestamp::MAX))
}

fn puts(reply: Value, count: usize) -> Result<Vec<LaterPut>, RedisError> {
    let unexpected = || reply::unexpected("later_put.lua");
    let texts: Vec<String> = reply::typed(reply)?;
    let [now, lines @ ..] = &texts[..] else {
        return Err(unexpected());
    };
    if lines.len() != count {
        return Err(unexpected());
    }
    let now = time_of(now)?;
    let read = |line: &String| {
        let (what, due) = line.split_once(' ').unwrap_or((line, ""));
        Ok(match what {
            "full" => {
                let (most, partitions) = due.split_once(' ').ok_or_else(unexpected)?;
                LaterPut::Full {
                    partition: 0,
                    partitions: partitions.parse().map_err(|_| unexpected())?,
                    most: most.parse().map_err(|_| unexpected())?,
                }
            }
            "no-topic" => LaterPut::NoTopic,
            "kept" => {
                let due = time_of(due)?;
                let due_in = until(due, now);
                LaterPut::Kept { due, due_in }
            }
            "new" | "replaced" => {
                let due = time_of(due)?;
                LaterPut::Scheduled {
                    due,
                    due_in: until(due, now),
                    replaced: what == "replaced",
                }
            }
            _ => return Err(unexpected()),
        })
    };
    lines.iter().map(read).collect()
}

/// The field of an entry in the log, from the body that `later_put.lua` stored.
fn fields(body: &Bytes) -> Fields {
    let space = body.iter().position(|byte| *byte == b' ');
    let pair = space.map(|at| (body.slice(..at), body.slice(at + 1..)));
    pair.into_iter().collect()
}

fn entry(row: Value) -> Result<LaterEntry, RedisError> {
    let unexpected = || reply::unexpected("retry_list.lua");
    let mut parts = reply::array(row)?.into_iter();
    let (Some(id), Some(due), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(unexpected());
    };
    Ok(LaterEntry {
        id: ScheduleId::new(reply::text(id)?).map_err(|_| unexpected())?,
        partition: 0,
        due: time_of(&reply::text(due)?)?,
        fields: fields(&reply::bytes(body)?),
    })
}

impl Later for RedisAdapter {
    fn put<'a>(
        &'a self,
        at: &'a Partition,
        level: Durability,
        messages: &'a [NewLater],
    ) -> BoxFuture<'a, Result<Vec<LaterPut>, Error>> {
        Box::pin(self.put_later(at, level, messages))
    }

    fn list<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<LaterPlace<'a>>,
        max: usize,
    ) -> BoxFuture<'a, Result<LaterPage, Error>> {
        Box::pin(self.list_later(at, after, max))
    }

    fn cancel<'a>(
        &'a self,
        at: &'a Partition,
        ids: &'a [ScheduleId],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        Box::pin(self.cancel_later(at, ids))
    }

    fn reschedule<'a>(
        &'a self,
        at: &'a Partition,
        id: &'a ScheduleId,
        due: When,
    ) -> BoxFuture<'a, Result<Vec<(Timestamp, Duration)>, Error>> {
        Box::pin(self.reschedule_later(at, id, due))
    }

    fn promote<'a>(
        &'a self,
        at: &'a Partition,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        Box::pin(self.promote_later(at, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_reply_is_an_answer() {
        let reply = |lines: &[&str]| {
            let bulk = |line: &&str| Value::BulkString(line.as_bytes().to_vec());
            Value::Array(lines.iter().map(bulk).collect())
        };
        let time = |millis| Timestamp::from_millis(millis).unwrap();
        let lines = [
            "1000",
            "new 1500",
            "replaced 900",
            "kept 1.2e3",
            "full 25 4",
            "no-topic",
        ];
        let scheduled = |due, due_in, replaced| LaterPut::Scheduled {
            due: time(due),
            due_in: Duration::from_millis(due_in),
            replaced,
        };
        assert_eq!(
            puts(reply(&lines), 5).unwrap(),
            [
                scheduled(1500, 500, false),
                scheduled(900, 0, true),
                LaterPut::Kept {
                    due: time(1200),
                    due_in: Duration::from_millis(200),
                },
                LaterPut::Full {
                    partition: 0,
                    partitions: 4,
                    most: 25,
                },
                LaterPut::NoTopic,
            ]
        );
        assert!(puts(reply(&lines), 4).is_err(), "another number of lines");
        for bad in ["perhaps", "full", "full 25", "full 25 many"] {
            assert!(puts(reply(&["1", bad]), 1).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_is_one_field() {
        let body = Bytes::from_static(b"json {\"a\": 1}");
        let field = (
            Bytes::from_static(b"json"),
            Bytes::from_static(b"{\"a\": 1}"),
        );
        assert_eq!(fields(&body), [field]);
        assert_eq!(fields(&Bytes::new()), []);
    }
}
