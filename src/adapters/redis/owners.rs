//! Owned groups: members, partitions and fenced cursors.

use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};

use super::adapter::RedisAdapter;
use super::keys::lane_name;
use super::net::error;
use super::resp::{Walk, reply};
use super::scripts;
use crate::domain::{BoxFuture, ConsumerName, EntryId, Error, ErrorKind, Timestamp, whole_millis};
use crate::store::batch::READ_BYTES;
use crate::store::{
    Attempts, Attendance, Commit, Cursor, DeliveryId, End, Fields, GroupAt, KeptMessage, Lane,
    Member, Note, OwnedProgress, Owner, Owners, Roster, StartFrom, Step, Stepped, Taken,
};
use crate::wire::dead_letter::encode_head;

const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];

/// The mark of a message that effects have settled, in the place of a note.
const SETTLED: &[u8] = b"done";

fn gone(operation: &'static str, at: &GroupAt) -> Error {
    Error::new(ErrorKind::NotFound, operation, "the group is gone").on(at.to_string())
}

/// `log:1-0`, as in stored retries.
fn message(delivery: DeliveryId) -> String {
    format!("{}:{}", lane_name(delivery.lane), delivery.id)
}

fn parse_message(name: &str) -> Option<DeliveryId> {
    let (lane, id) = name.split_once(':')?;
    let lane = LANES.into_iter().find(|one| lane_name(*one) == lane)?;
    Some(DeliveryId::new(lane, id.parse().ok()?))
}

/// Reads `begun:failed:due:message`.
fn parse_note(delivery: DeliveryId, value: &Bytes, now: u64) -> Option<Note> {
    let mut parts = value.splitn(4, |byte| *byte == b':');
    let mut number = || {
        let text = std::str::from_utf8(parts.next()?).ok()?;
        Some((!text.is_empty()).then(|| text.parse::<u64>().ok()))
    };
    let (begun, failed, due) = (number()???, number()???, number()?);
    let attempts = Attempts {
        begun: u32::try_from(begun).ok()?,
        failed: u32::try_from(failed).ok()?,
    };
    let kept = match due {
        None => None,
        Some(due) => {
            let left = Duration::from_millis(due?.saturating_sub(now));
            Some((left, value.slice_ref(parts.next()?)))
        }
    };
    Some(Note {
        delivery,
        attempts,
        kept,
    })
}

fn read_taken(value: Value) -> Result<Option<Taken>, RedisError> {
    let broken = || reply::unexpected("cursor_take.lua");
    let mut parts = reply::array(value)?.into_iter();
    let Some(word) = parts.next() else {
        return Ok(None);
    };
    let mut text = || reply::text(parts.next().unwrap_or(Value::Nil));
    if reply::text(word)? == "stale" {
        let token = text()?.parse().map_err(|_| broken())?;
        return Ok(Some(Taken::Stale(token)));
    }
    let now = text()?.parse().map_err(|_| broken())?;
    let cursors = [read_cursor(&mut parts)?, read_cursor(&mut parts)?];
    let (mut notes, mut settled) = (Vec::new(), Vec::new());
    let mut flat = reply::array(parts.next().unwrap_or(Value::Nil))?.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        let delivery = parse_message(&reply::text(name)?).ok_or_else(broken)?;
        let value = reply::bytes(value)?;
        match &value[..] {
            SETTLED => settled.push(delivery),
            _ => notes.push(parse_note(delivery, &value, now).ok_or_else(broken)?),
        }
    }
    Ok(Some(Taken::Taken {
        cursors,
        notes,
        settled,
    }))
}

/// Reads the low, the high and the done ranges of a cursor; the default where nothing is stored.
fn read_cursor(parts: &mut impl Iterator<Item = Value>) -> Result<Cursor, RedisError> {
    let broken = || reply::unexpected("a cursor");
    let mut text = || reply::text(parts.next().unwrap_or(Value::Nil));
    let (low, high, done) = (text()?, text()?, text()?);
    if low.is_empty() {
        return Ok(Cursor::default());
    }
    Ok(Cursor {
        low: low.parse().map_err(|_| broken())?,
        high: high.parse().map_err(|_| broken())?,
        done: Cursor::parse_done(&done).ok_or_else(broken)?,
    })
}

fn read_time(value: Value) -> Result<Timestamp, RedisError> {
    let millis = reply::text(value)?.parse().ok();
    let time = millis.and_then(|millis| Timestamp::from_millis(millis).ok());
    time.ok_or_else(|| reply::unexpected("a time"))
}

fn read_progress(value: Value) -> Result<OwnedProgress, RedisError> {
    let broken = || reply::unexpected("cursor_read.lua");
    let mut parts = reply::array(value)?.into_iter();
    let now = read_time(parts.next().unwrap_or(Value::Nil))?;
    let mut text = || reply::text(parts.next().unwrap_or(Value::Nil));
    let (token, owner) = (text()?, text()?);
    let mut cursors = [read_cursor(&mut parts)?, read_cursor(&mut parts)?];
    // A reset leaves a cursor without an owner.
    let taken = match owner.is_empty() {
        true => {
            cursors = <_>::default();
            None
        }
        false => Some(Owner {
            consumer: ConsumerName::new(owner).map_err(|_| broken())?,
            token: token.parse().map_err(|_| broken())?,
        }),
    };
    let mut kept = Vec::new();
    let mut flat = reply::array(parts.next().unwrap_or(Value::Nil))?.into_iter();
    while let (Some(name), Some(due), Some(message)) = (flat.next(), flat.next(), flat.next()) {
        kept.push(KeptMessage {
            delivery: parse_message(&reply::text(name)?).ok_or_else(broken)?,
            due: read_time(due)?,
            message: Some(reply::bytes(message)?).filter(|message| !message.is_empty()),
        });
    }
    Ok(OwnedProgress {
        now,
        taken,
        cursors,
        kept,
    })
}

fn read_roster(value: Value) -> Result<Option<Roster>, RedisError> {
    let broken = || reply::unexpected("own.lua");
    let mut parts = reply::array(value)?.into_iter();
    let (Some(members), Some(owned)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let mut roster = Roster::default();
    for name in reply::array(members)? {
        let name = ConsumerName::new(reply::text(name)?).map_err(|_| broken())?;
        roster.members.push(name);
    }
    roster.members.sort();
    let mut owned = reply::array(owned)?.into_iter();
    while let (Some(at), Some(owner), Some(token)) = (owned.next(), owned.next(), owned.next()) {
        let at = reply::text(at)?.parse().map_err(|_| broken())?;
        let owner = Owner {
            consumer: ConsumerName::new(reply::text(owner)?).map_err(|_| broken())?,
            token: reply::text(token)?.parse().map_err(|_| broken())?,
        };
        roster.owners.insert(at, owner);
    }
    Ok(Some(roster))
}

impl RedisAdapter {
    async fn own(
        &self,
        operation: &'static str,
        by: &Member,
        attendance: Option<&Attendance>,
    ) -> Result<Option<Roster>, Error> {
        let at = &by.at;
        let lease = attendance.map_or(Duration::ZERO, |one| one.lease);
        let mut call = scripts::own()
            .key(self.keys.members(at))
            .key(self.keys.owners(at))
            .key(self.keys.tokens(at))
            .key(self.keys.meta(&at.partition))
            .arg(at.group.as_str())
            .arg(by.consumer.as_str())
            .arg(match attendance {
                Some(attendance) if attendance.leaving => "depart",
                Some(_) => "attend",
                None => "leave",
            })
            .arg(whole_millis(lease));
        for partition in attendance.iter().flat_map(|one| &one.gives) {
            call.push("give");
            call.push(partition);
            call.push("");
        }
        for (partition, above) in attendance.iter().flat_map(|one| &one.claims) {
            call.push("claim");
            call.push(partition);
            call.push(above);
        }
        let roster = self.net.call(operation, &call, read_roster).await;
        roster.map_err(|e| e.on(by.to_string()))
    }

    async fn read_roster(&self, at: &GroupAt) -> Result<Roster, Error> {
        let call = scripts::roster()
            .key(self.keys.members(at))
            .key(self.keys.owners(at))
            .key(self.keys.tokens(at))
            .key(self.keys.meta(&at.partition))
            .arg(at.group.as_str());
        let roster = self.net.call("roster", &call, read_roster).await;
        let roster = roster.map_err(|e| e.on(at.to_string()))?;
        roster.ok_or_else(|| gone("roster", at))
    }

    async fn take_cursor(&self, by: &Member, token: u64) -> Result<Taken, Error> {
        let at = &by.at;
        let call = scripts::cursor_take()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(at))
            .key(self.keys.cursor(at))
            .key(self.keys.unsettled_notes(at))
            .arg(at.group.as_str())
            .arg(by.consumer.as_str())
            .arg(token);
        let taken = self.net.call("take", &call, read_taken).await;
        let taken = taken.map_err(|e| e.on(by.to_string()))?;
        taken.ok_or_else(|| gone("take", at))
    }

    async fn read_progress(&self, at: &GroupAt, max: usize) -> Result<OwnedProgress, Error> {
        let call = scripts::cursor_read()
            .key(self.keys.cursor(at))
            .key(self.keys.unsettled_notes(at))
            .arg(max)
            .arg(READ_BYTES);
        let progress = self.net.call("owned progress", &call, read_progress).await;
        progress.map_err(|e| e.on(at.to_string()))
    }

    async fn read_lane(
        &self,
        at: &GroupAt,
        lane: Lane,
        after: EntryId,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        let key = self.keys.lane(at, lane);
        let mut command = redis::cmd("XRANGE");
        command.arg(&key).arg(format!("({after}")).arg("+");
        command.arg("COUNT").arg(max);
        let command = command.get_packed_command();
        let watched = self.bells().and_then(|bells| bells.watched(&key));
        let told = watched.as_ref().map(|watched| watched.told());
        let answer = self.net.read("read", &key, &command, 1).await;
        if let (Ok((_, true)), Some(watched), Some(told)) = (&answer, watched, told) {
            watched.note(told);
        }
        let read = answer.and_then(|(answer, _)| {
            let mut walk = Walk::new(answer);
            let entries = walk
                .array()
                .and_then(|count| (0..count).map(|_| reply::walk_entry(&mut walk)).collect());
            entries.map_err(|broken| error::sent("read", broken.into()))
        });
        read.map_err(|e| e.on(at.to_string()))
    }

    async fn write_step(&self, by: &Member, step: &Step) -> Result<Stepped, Error> {
        let at = &by.at;
        let mut call = scripts::cursor_step()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(at))
            .key(self.keys.cursor(at))
            .key(self.keys.unsettled_notes(at))
            .key(self.keys.retry(at))
            .key(self.keys.retry_body(at))
            .key(self.keys.dead(at))
            .key(self.keys.dead_body(at))
            .key(self.keys.dead_counts(at))
            .key(self.keys.dead_causes(at))
            .arg(at.group.as_str())
            .arg(by.consumer.as_str())
            .arg(step.token)
            .arg(step.number);
        for lane in &step.lanes {
            let Some(lane) = lane else {
                (0..4).for_each(|_| call.push(""));
                continue;
            };
            call.push(lane.cursor.low.to_string());
            call.push(lane.cursor.high.to_string());
            call.push(lane.cursor.done_text());
            call.push(lane.passed);
        }
        step.ends.iter().for_each(|end| push_end(&mut call, end));
        for note in &step.notes {
            call.push("note");
            call.push(message(note.delivery));
            call.push(format!("{}:{}", note.attempts.begun, note.attempts.failed));
            match &note.kept {
                Some((delay, kept)) => {
                    call.push(whole_millis(*delay));
                    call.push(&kept[..]);
                }
                None => (0..2).for_each(|_| call.push("")),
            }
        }
        for delivery in &step.forgets {
            call.push("forget");
            call.push(message(*delivery));
            (0..3).for_each(|_| call.push(""));
        }
        let stepped = self
            .net
            .call("step", &call, |value| match reply::integer(&value)? {
                1 => Ok(Some(Stepped::Done)),
                0 => Ok(Some(Stepped::Stale)),
                -1 => Ok(None),
                _ => Err(reply::unexpected("cursor_step.lua")),
            });
        let stepped = stepped.await.map_err(|e| e.on(by.to_string()))?;
        stepped.ok_or_else(|| gone("step", at))
    }
}

fn push_end(call: &mut scripts::Call, commit: &Commit) {
    let name = message(commit.delivery());
    match commit.end() {
        End::Reschedule { delay, redelivery } => {
            call.push("reschedule");
            call.push(name);
            call.push(whole_millis(*delay));
            call.push(&redelivery[..]);
            call.push("");
        }
        End::DeadLetter(record) => {
            call.push("dead-letter");
            call.push(name);
            call.push(&encode_head(&record.head)[..]);
            call.push(&record.body[..]);
            call.push("");
        }
        // The cursor says all of it.
        End::Ack | End::Release { .. } => {}
    }
}

impl Owners for RedisAdapter {
    fn create<'a>(&'a self, at: &'a GroupAt, start: StartFrom) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let needed = self.need_owned_groups("create group").await;
            needed.map_err(|e| e.on(at.to_string()))?;
            self.ensure_group(at, start, true).await
        })
    }

    fn attend<'a>(
        &'a self,
        by: &'a Member,
        attendance: &'a Attendance,
    ) -> BoxFuture<'a, Result<Roster, Error>> {
        Box::pin(async move {
            let roster = self.own("attend", by, Some(attendance)).await?;
            roster.ok_or_else(|| gone("attend", &by.at))
        })
    }

    fn leave<'a>(&'a self, by: &'a Member) -> BoxFuture<'a, Result<(), Error>> {
        // A group that is gone has no members.
        Box::pin(async move { self.own("leave", by, None).await.map(|_| ()) })
    }

    fn roster<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Roster, Error>> {
        Box::pin(self.read_roster(at))
    }

    fn take<'a>(&'a self, by: &'a Member, token: u64) -> BoxFuture<'a, Result<Taken, Error>> {
        Box::pin(self.take_cursor(by, token))
    }

    fn progress<'a>(
        &'a self,
        at: &'a GroupAt,
        max: usize,
    ) -> BoxFuture<'a, Result<OwnedProgress, Error>> {
        Box::pin(self.read_progress(at, max))
    }

    fn read<'a>(
        &'a self,
        at: &'a GroupAt,
        lane: Lane,
        after: EntryId,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.read_lane(at, lane, after, max))
    }

    fn listen<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let Some(bells) = self.bells() else {
                return Ok(false);
            };
            Ok(bells.listen(&[bells.bell_of(at)]).await)
        })
    }

    fn step<'a>(&'a self, by: &'a Member, step: &'a Step) -> BoxFuture<'a, Result<Stepped, Error>> {
        Box::pin(self.write_step(by, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_with_what_is_left_of_its_delay() {
        let delivery = parse_message("redo:7-1").unwrap();
        assert_eq!(message(delivery), "redo:7-1");
        let note = |value: &'static str| parse_note(delivery, &Bytes::from(value), 1_000);
        let plain = note("2:1::").unwrap();
        assert_eq!((plain.attempts.begun, plain.attempts.failed), (2, 1));
        assert_eq!(plain.kept, None);
        let kept = |value| note(value).unwrap().kept.unwrap();
        let message = Bytes::from_static(b"a:b:c");
        assert_eq!(
            kept("0:0:1250:a:b:c"),
            (Duration::from_millis(250), message.clone())
        );
        assert_eq!(kept("0:0:900:a:b:c"), (Duration::ZERO, message));
        for bad in [
            "",
            "1",
            "1:1",
            "x:1::",
            "1:1:x:m",
            "1:1:5",
            "9999999999:1::",
        ] {
            assert_eq!(note(bad), None, "{bad}");
        }
        assert_eq!(parse_message("log"), None);
        assert_eq!(parse_message("dog:1-0"), None);
    }
}
