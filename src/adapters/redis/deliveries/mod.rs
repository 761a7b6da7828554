//! What consumers hold, and how each delivery ends: XACK in bulk, the rest by script.

mod courtesy;
mod entries;
mod reader;
mod shared;

use std::fmt::Write as _;
use std::time::Duration;

use redis::{Cmd, Value};

use super::adapter::RedisAdapter;
use super::keys::lane_name;
use super::resp::reply;
use super::scripts;
use crate::domain::{BoxFuture, Error, whole_millis};
use crate::store::batch::batches;
use crate::store::{
    Attempts, Begin, Commit, Commits, Deliveries, DeliveryId, End, Fate, Fetched, Holder, Kind,
    Lane, MAX_BATCH, Member, ReclaimCursor, Reclaimed, Replies, Unmarked,
};
use crate::wire::dead_letter::encode_head;

const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];
/// Room for the text of an id.
const ID: usize = 24;

fn weight(commit: &Commit) -> usize {
    match commit.end() {
        End::Reschedule { redelivery, .. } => redelivery.len(),
        End::DeadLetter(record) => record.body.len(),
        End::Ack | End::Release { .. } => 0,
    }
}

impl RedisAdapter {
    async fn ack(&self, member: &Member, receipts: &[DeliveryId]) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        let mut text = String::with_capacity(ID);
        for lane in LANES {
            let of_lane: Vec<_> = receipts.iter().filter(|one| one.lane == lane).collect();
            for receipts in of_lane.chunks(MAX_BATCH) {
                let mut ack = Cmd::with_capacity(3 + receipts.len(), 64 + receipts.len() * ID);
                ack.arg("XACK")
                    .arg(self.keys.lane(&member.at, lane))
                    .arg(member.group().as_str());
                for receipt in receipts {
                    text.clear();
                    let _ = write!(text, "{}", receipt.id);
                    ack.arg(&text);
                }
                pipeline.add_command(ack).ignore();
            }
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        self.net
            .run(
                "acknowledge",
                &self.keys.log(&member.at.partition),
                async |connection| pipeline.exec_async(connection).await,
            )
            .await
            .map_err(|e| e.on(member.to_string()))
    }

    /// Settles each run of commits that one script can carry out. A failure ends it.
    async fn commit_fenced(&self, by: &Member, commits: &[Commit]) -> Vec<Result<Fate, Error>> {
        let mut fates = Vec::with_capacity(commits.len());
        for run in commits.chunk_by(|one, next| call_of(one) == call_of(next)) {
            for batch in batches(run, weight) {
                let done = if is_release(&batch[0]) {
                    let changes: Vec<_> = batch.iter().map(release_change).collect();
                    let holders = self.change_leases("release", by, &changes).await;
                    holders.map(|holders| holders.into_iter().map(fate_of_release).collect())
                } else {
                    self.settle_batch(by, batch).await
                };
                match done {
                    Ok(done) => fates.extend(done.into_iter().map(Ok)),
                    Err(error) => {
                        fates.resize_with(commits.len(), || Err(error.clone()));
                        return fates;
                    }
                }
            }
        }
        fates
    }

    async fn settle_batch(&self, by: &Member, batch: &[Commit]) -> Result<Vec<Fate>, Error> {
        let at = &by.at;
        let needed = match batch.first() {
            Some(commit) if commit.is_of_only_copy() => "only-copy",
            _ => "held",
        };
        let mut call = scripts::settle()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(at))
            .key(self.keys.retry(at))
            .key(self.keys.retry_body(at))
            .key(self.keys.dead(at))
            .key(self.keys.dead_body(at))
            .key(self.keys.dead_counts(at))
            .key(self.keys.dead_causes(at))
            .arg(at.group.as_str())
            .arg(by.consumer.as_str())
            .arg(needed);
        push_ranges(&mut call, batch.iter().map(Commit::delivery));
        for commit in batch {
            let receipt = commit.delivery();
            let name = |call: &mut scripts::Call| {
                call.push(lane_name(receipt.lane));
                call.push(receipt.id.to_string());
            };
            match commit.end() {
                End::Reschedule { delay, redelivery } => {
                    name(&mut call);
                    call.push("reschedule");
                    call.push(whole_millis(*delay));
                    call.push(&redelivery[..]);
                }
                End::DeadLetter(record) => {
                    name(&mut call);
                    call.push("dead-letter");
                    call.push(&encode_head(&record.head)[..]);
                    call.push(&record.body[..]);
                }
                // Other calls carry these out.
                End::Ack | End::Release { .. } => {}
            }
        }
        let fates = self
            .net
            .call("settle", &call, |reply| codes(reply, fate_of_code))
            .await;
        let mut fates = fates.map_err(|e| e.on(by.to_string()))?;
        // Another consumer may have had them, and has ended them since.
        if fates.contains(&Fate::NotHeld) && self.ended_leases_early(&at.partition).await? {
            let not_held = fates.iter_mut().filter(|one| **one == Fate::NotHeld);
            not_held.for_each(|fate| *fate = Fate::Lost);
        }
        Ok(fates)
    }

    async fn change_leases(
        &self,
        action: &'static str,
        member: &Member,
        changes: &[Change],
    ) -> Result<Vec<Holder>, Error> {
        let mut holders = Vec::with_capacity(changes.len());
        for batch in changes.chunks(MAX_BATCH) {
            let mut call = scripts::lease()
                .key(self.keys.log(&member.at.partition))
                .key(self.keys.redelivery(&member.at))
                .arg(member.group().as_str())
                .arg(member.consumer.as_str())
                .arg(action);
            push_ranges(&mut call, batch.iter().map(|change| change.delivery));
            for Change { delivery, mark } in batch {
                call.push(lane_name(delivery.lane));
                call.push(delivery.id.to_string());
                call.push(mark.map_or_else(String::new, |mark| mark.to_string()));
            }
            let batch = self
                .net
                .call(action, &call, |reply| codes(reply, holder_of_code))
                .await
                .map_err(|e| e.on(member.to_string()))?;
            holders.extend(batch);
        }
        // Another consumer may have had them, and has ended them since.
        if holders.contains(&Holder::Nobody)
            && self.ended_leases_early(&member.at.partition).await?
        {
            let nobody = holders.iter_mut().filter(|one| **one == Holder::Nobody);
            nobody.for_each(|holder| *holder = Holder::Other);
        }
        Ok(holders)
    }

    async fn list_pending(&self, member: &Member, max: usize) -> Result<Vec<DeliveryId>, Error> {
        let mut pipeline = redis::pipe();
        for lane in LANES {
            pipeline
                .cmd("XPENDING")
                .arg(self.keys.lane(&member.at, lane))
                .arg(member.group().as_str())
                .arg("-")
                .arg("+")
                .arg(max)
                .arg(member.consumer.as_str());
        }
        self.net
            .run(
                "list pending",
                &self.keys.log(&member.at.partition),
                async |connection| {
                    let lanes: Vec<Value> = pipeline.query_async(connection).await?;
                    let mut held = Vec::new();
                    for (lane, reply) in LANES.into_iter().zip(lanes) {
                        for row in reply::array(reply)? {
                            let row = reply::array(row)?;
                            let id = row.first().ok_or_else(|| reply::unexpected("XPENDING"))?;
                            let id = reply::entry_id(id)?;
                            held.push(DeliveryId { lane, id });
                        }
                    }
                    Ok(held)
                },
            )
            .await
            .map_err(|e| e.on(member.to_string()))
    }

    async fn take_over(
        &self,
        member: &Member,
        lease: Duration,
        unmarked: Unmarked,
        cursor: ReclaimCursor,
        max: usize,
    ) -> Result<Reclaimed, Error> {
        let unmarked = mark_of(u32::from(unmarked == Unmarked::Begun).into());
        let call = scripts::claim_expired()
            .key(self.keys.log(&member.at.partition))
            .key(self.keys.redelivery(&member.at))
            .key(self.keys.meta(&member.at.partition))
            .arg(member.group().as_str())
            .arg(member.consumer.as_str())
            .arg(whole_millis(lease))
            .arg(max.min(MAX_BATCH))
            .arg(cursor.log.to_string())
            .arg(cursor.redelivery.to_string())
            .arg(unmarked);
        self.net
            .call("claim expired", &call, |reply| {
                let mut reclaimed = Reclaimed::default();
                let mut lanes = reply::array(reply)?;
                let pending = lanes.pop().unwrap_or(Value::Nil);
                reclaimed.pending = reply::count(&pending)?;
                let lease = lanes.pop().unwrap_or(Value::Nil);
                reclaimed.lease = Duration::from_millis(reply::count(&lease)?);
                for (source, (lane, reply)) in (0..).zip(LANES.into_iter().zip(lanes)) {
                    let mut parts = reply::array(reply)?.into_iter();
                    let (Some(next), Some(taken), Some(missing)) =
                        (parts.next(), parts.next(), parts.next())
                    else {
                        return Err(reply::unexpected("claim_expired.lua"));
                    };
                    let next = reply::entry_id(&next)?;
                    match lane {
                        Lane::Log => reclaimed.cursor.log = next,
                        Lane::Redelivery => reclaimed.cursor.redelivery = next,
                    }
                    reclaimed.missing += reply::array(missing)?.len() as u64;
                    for entry in reply::array(taken)? {
                        reclaimed.taken.push(taken_over(source, lane, entry)?);
                    }
                }
                Ok(reclaimed)
            })
            .await
            .map_err(|e| e.on(member.to_string()))
    }
}

fn is_release(commit: &Commit) -> bool {
    matches!(commit.end(), End::Release { .. })
}

/// Tells apart the calls that carry out commits.
fn call_of(commit: &Commit) -> (bool, bool) {
    (is_release(commit), commit.is_of_only_copy())
}

fn codes<T>(reply: Value, meaning: impl Fn(i64) -> Option<T>) -> Result<Vec<T>, redis::RedisError> {
    let code = |one: &Value| {
        let code = reply::integer(one)?;
        meaning(code).ok_or_else(|| reply::unexpected("a script"))
    };
    reply::array(reply)?.iter().map(code).collect()
}

/// The head of `lua/lease.lua` lists the codes.
fn holder_of_code(code: i64) -> Option<Holder> {
    Some(match code {
        1 => Holder::Member,
        2 => Holder::Trimmed,
        0 => Holder::Other,
        -1 => Holder::Nobody,
        _ => return None,
    })
}

/// The head of `lua/settle.lua` lists the codes.
fn fate_of_code(code: i64) -> Option<Fate> {
    Some(match code {
        1 => Fate::Done,
        0 => Fate::Lost,
        -1 => Fate::NotHeld,
        _ => return None,
    })
}

fn fate_of_release(holder: Holder) -> Fate {
    match holder {
        Holder::Member => Fate::Done,
        Holder::Nobody | Holder::Trimmed => Fate::NotHeld,
        Holder::Other => Fate::Lost,
    }
}

/// A change of one delivery's lease, and the mark to store with it.
struct Change {
    delivery: DeliveryId,
    mark: Option<u64>,
}

fn release_change(commit: &Commit) -> Change {
    let mark = match commit.end() {
        End::Release { attempts } => attempts.map(mark_of),
        _ => None,
    };
    Change {
        delivery: commit.delivery(),
        mark,
    }
}

/// Marks count begun attempts below this number, and failed ones in multiples of it.
const MILLION: u64 = 1_000_000;

/// The delivery count of Redis that stands for attempts; the head of `lua/lease.lua` lists the
/// values. A plain read stores 1, so 1 cannot be a mark.
fn mark_of(attempts: Attempts) -> u64 {
    let begun = u64::from(attempts.begun).min(MILLION - 1);
    match (attempts.failed, begun) {
        (0, 1) => MILLION + 1,
        (0, begun) => begun,
        (failed, begun) => (u64::from(failed) + 1) * MILLION + begun,
    }
}

/// The attempts that a delivery count stands for.
fn attempts_of(mark: u64) -> Attempts {
    let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Attempts {
        begun: number(mark % MILLION),
        failed: number((mark / MILLION).saturating_sub(1)),
    }
}

/// Passes the smallest and the greatest id of each lane's deliveries; empty words where there are
/// none.
pub(super) fn push_ranges(
    call: &mut scripts::Call,
    deliveries: impl Iterator<Item = DeliveryId> + Clone,
) {
    for lane in LANES {
        let of_lane = deliveries.clone().filter(|one| one.lane == lane);
        let ids = || of_lane.clone().map(|one| one.id);
        for id in [ids().min(), ids().max()] {
            call.push(id.map_or_else(String::new, |id| id.to_string()));
        }
    }
}

fn taken_over(source: u16, lane: Lane, entry: Value) -> Result<Fetched, redis::RedisError> {
    let mut parts = reply::array(entry)?.into_iter();
    let (Some(id), Some(fields), Some(mark)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(reply::unexpected("claim_expired.lua"));
    };
    Ok(Fetched {
        source,
        receipt: DeliveryId {
            lane,
            id: reply::entry_id(&id)?,
        },
        fields: reply::fields(fields)?,
        attempts: attempts_of(reply::count(&mark)?),
        kind: Kind::Fresh,
    })
}

impl Deliveries for RedisAdapter {
    fn commit<'a>(
        &'a self,
        by: &'a Member,
        commits: &'a Commits,
    ) -> BoxFuture<'a, Result<Replies, Error>> {
        Box::pin(async move {
            let acks = self.ack(by, commits.acks()).await;
            Ok(Replies {
                acks: acks.map(|()| Fate::Done),
                fenced: self.commit_fenced(by, commits.fenced()).await,
            })
        })
    }

    fn extend<'a>(
        &'a self,
        by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        Box::pin(async move {
            let change = |receipt: &DeliveryId| Change {
                delivery: *receipt,
                mark: None,
            };
            let changes: Vec<_> = receipts.iter().map(change).collect();
            self.change_leases("extend", by, &changes).await
        })
    }

    fn begin<'a>(
        &'a self,
        by: &'a Member,
        begins: &'a [Begin],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        Box::pin(async move {
            let change = |begin: &Begin| Change {
                delivery: begin.delivery,
                mark: Some(mark_of(begin.attempts)),
            };
            let changes: Vec<_> = begins.iter().map(change).collect();
            self.change_leases("begin", by, &changes).await
        })
    }

    fn pending_of<'a>(
        &'a self,
        by: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>> {
        Box::pin(self.list_pending(by, max))
    }

    fn claim_expired<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
        unmarked: Unmarked,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        Box::pin(self.take_over(by, lease, unmarked, cursor, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_begun_and_failed_attempts() {
        let attempts = |begun, failed| Attempts { begun, failed };
        for (known, mark) in [
            (attempts(0, 0), 0),
            (attempts(1, 0), 1_000_001),
            (attempts(3, 0), 3),
            (attempts(1, 1), 2_000_001),
            (attempts(3, 2), 3_000_003),
            (attempts(999_999, 998_000), 998_001_999_999),
        ] {
            assert_eq!((mark_of(known), attempts_of(mark)), (mark, known));
        }
        assert_eq!(attempts_of(1), attempts(1, 0), "a plain read");
        assert_eq!(mark_of(attempts(u32::MAX, 0)), 999_999);
        assert_eq!(attempts_of(u64::MAX).failed, u32::MAX, "written by others");
    }
}
