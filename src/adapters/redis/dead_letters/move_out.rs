//! Moving dead letters out: discarding them, or sending them back to their group.
//!
//! A script blocks the server's other clients, so each call removes only a few dead letters, and
//! counting has two phases. First `dead_move_out.lua` removes a batch and stores, in a field of the
//! caller's own, the sum of all that this field's dead letters counted for. Later
//! `dead_subtract.lua` subtracts several fields at once and removes them.
//!
//! The invariant: the stored counts minus the sums of all uncounted fields are the true counts. Two
//! rules keep it. A batch is removed completely or not at all, because the sum covers all of it. And
//! a caller extends its field only while the field exists: once another caller has subtracted it,
//! the earlier removals are counted, and the sum begins again with the current batch.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem::discriminant;
use std::slice;

use bytes::Bytes;
use redis::{RedisError, Value};
use uuid::Uuid;

use super::counts::Sums;
use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::resp::reply;
use crate::adapters::redis::scripts;
use crate::domain::{DeadLetterSummary, EntryId, Error, describe};
use crate::store::batch::batches_of;
use crate::store::{Disposition, GroupAt};
use crate::wire::dead_letter::{read_head, stands_in};

/// How many dead letters one script removes. Consumers on the same server wait meanwhile.
const MOVED_AT_ONCE: usize = 10;
/// For how many batches the heads are read at once.
const READ_AT_ONCE: usize = 12;
/// How many uncounted fields must exist before a caller subtracts them. Most fields add up to the
/// same few counts, so waiting saves work.
const UNCOUNTED: usize = 8;
/// How many counts one field or one subtraction may change. Changing a count costs the server as
/// much as removing a dead letter.
const CHANGED_AT_ONCE: usize = 200;

const OPERATION: &str = "move dead letters out";
const COUNTING: &str = "count dead letters";

/// A dead letter and its destination.
type Item = (EntryId, Disposition);
/// A field of the uncounted hash: its name and its encoded sum.
type Field = (Vec<u8>, Vec<u8>);

/// What `dead_move_out.lua` answers.
#[derive(Debug, Eq, PartialEq)]
enum MoveOut {
    /// The script removed the whole batch and stored the sum.
    Moved,
    /// The script removed nothing: another caller has subtracted this caller's field.
    FieldGone,
    /// The script removed nothing: some of the batch are missing. True for each one that is there.
    Missing(Vec<bool>),
}

impl MoveOut {
    /// Reads the answer to a batch of some size.
    fn read(reply: Value, size: usize) -> Result<Self, RedisError> {
        match reply {
            Value::Nil => Ok(Self::Moved),
            Value::Int(0) => Ok(Self::FieldGone),
            flags => {
                let there = reply::flags(flags)?;
                // Where none is missing, the script would have removed the batch.
                if there.len() != size || there.iter().all(|there| *there) {
                    return Err(reply::unexpected("dead_move_out.lua"));
                }
                Ok(Self::Missing(there))
            }
        }
    }
}

impl RedisAdapter {
    pub(super) async fn take_dead(
        &self,
        at: &GroupAt,
        items: &[Item],
        known: &[(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> Result<Vec<bool>, Error> {
        // Each id once, even when the caller passed it twice.
        let mut seen = HashSet::new();
        let each: Vec<&Item> = items.iter().filter(|(id, _)| seen.insert(*id)).collect();
        let weight = |(_, disposition): &&Item| match disposition {
            Disposition::RequeueAs(redelivery) => redelivery.len(),
            Disposition::Discard | Disposition::Requeue => 0,
        };
        // The script has one disposition for all its items.
        let batches: Vec<&[&Item]> = each
            .chunk_by(|(_, one), (_, other)| discriminant(one) == discriminant(other))
            .flat_map(|alike| batches_of(alike, MOVED_AT_ONCE, weight))
            .collect();
        let mut run = Run {
            operation: operation.map(|id| id.to_string()).unwrap_or_default(),
            field: Uuid::new_v4(),
            sums: Sums::default(),
            moved: HashSet::new(),
        };
        let mut portions = batches.chunks(READ_AT_ONCE).peekable();
        let first = portions.peek().copied().unwrap_or_default();
        let mut heads = self.heads(at, first, known).await?;
        while let Some(portion) = portions.next() {
            let next = portions.peek().copied().unwrap_or_default();
            // Read the next portion's heads while the script removes this portion.
            let following = self.heads(at, next, known);
            let moving = async {
                for batch in portion {
                    let done = self.move_batch(at, batch, &heads, &mut run);
                    done.await.map_err(|e| e.on(at.to_string()))?;
                }
                Ok::<_, Error>(())
            };
            let (done, following) = tokio::join!(moving, following);
            done?;
            heads = following?;
        }
        self.count_taken(at, UNCOUNTED).await;
        // Of an id that was passed twice, the first one moved.
        let mut moved = run.moved;
        Ok(items.iter().map(|(id, _)| moved.remove(id)).collect())
    }

    /// Moves out the dead letters of a batch that still exist.
    async fn move_batch(
        &self,
        at: &GroupAt,
        batch: &[&Item],
        heads: &Heads<'_>,
        run: &mut Run,
    ) -> Result<(), Error> {
        if run.sums.len() >= CHANGED_AT_ONCE {
            run.field = Uuid::new_v4();
            run.sums = Sums::default();
        }
        let mut there = batch.to_vec();
        while !there.is_empty() {
            match self.try_to_move(at, &there, heads, run).await? {
                MoveOut::Moved => {
                    run.moved.extend(there.iter().map(|(id, _)| *id));
                    return Ok(());
                }
                MoveOut::FieldGone => run.sums = Sums::default(),
                MoveOut::Missing(flags) => {
                    // Another caller moved the missing ones, and none of them comes back.
                    heads.count(&there, -1, &mut run.sums);
                    let mut flags = flags.into_iter();
                    there.retain(|_| flags.next() == Some(true));
                }
            }
        }
        Ok(())
    }

    /// Calls the script for a batch, and adds the batch to the sums.
    async fn try_to_move(
        &self,
        at: &GroupAt,
        batch: &[&Item],
        heads: &Heads<'_>,
        run: &mut Run,
    ) -> Result<MoveOut, Error> {
        let is_first = run.sums.is_empty();
        heads.count(batch, 1, &mut run.sums);
        let action = match batch.first() {
            Some((_, Disposition::Requeue)) => "requeue",
            Some((_, Disposition::RequeueAs(_))) => "requeue-as",
            Some((_, Disposition::Discard)) | None => "discard",
        };
        let mut call = scripts::dead_move_out()
            .key(self.keys.dead(at))
            .key(self.keys.dead_body(at))
            .key(self.keys.dead_uncounted(at))
            .key(self.keys.redelivery(at))
            .key(self.keys.journal(at))
            .arg(&run.operation)
            .arg(action)
            .arg(run.field.to_string())
            .arg(if is_first { "0" } else { "1" })
            .arg(run.sums.encode());
        for (id, disposition) in batch {
            call.push(id.to_string());
            call.push(match disposition {
                Disposition::RequeueAs(redelivery) => &redelivery[..],
                Disposition::Discard | Disposition::Requeue => b"",
            });
        }
        let read = |reply| match MoveOut::read(reply, batch.len())? {
            // The script checks the field only of a caller that has written it.
            MoveOut::FieldGone if is_first => Err(reply::unexpected("dead_move_out.lua")),
            answer => Ok(answer),
        };
        self.net.call(OPERATION, &call, read).await
    }

    /// The heads of a portion. Reads those that the caller does not know.
    async fn heads<'a>(
        &self,
        at: &GroupAt,
        portion: &[&[&Item]],
        known: &'a [(EntryId, DeadLetterSummary)],
    ) -> Result<Heads<'a>, Error> {
        let ids = portion.iter().copied().flatten().map(|(id, _)| *id);
        let unknown: BTreeSet<_> = ids.filter(|id| find(known, *id).is_none()).collect();
        let stream = self.keys.dead(at);
        let read = self.read_each(&stream, unknown).await;
        Ok(Heads {
            known,
            read: read
                .map_err(|e| e.on(at.to_string()))?
                .into_iter()
                .collect(),
        })
    }

    /// Subtracts the uncounted fields of all callers from the counts, if there are at least `least`
    /// of them. A failure does no harm: readers subtract the fields themselves, and the next caller
    /// tries again.
    pub(super) async fn count_taken(&self, at: &GroupAt, least: usize) {
        if let Err(error) = self.try_to_count(at, least).await {
            tracing::debug!(topic = %at.topic(), group = %at.group, error = %describe(&error), "not counted yet");
        }
    }

    async fn try_to_count(&self, at: &GroupAt, least: usize) -> Result<(), Error> {
        let key = self.keys.dead_uncounted(at);
        let fields = self.net.run(COUNTING, &key, async |connection| {
            let mut command = redis::cmd("HGETALL");
            command.arg(&key);
            command.query_async(connection).await
        });
        let fields: Vec<Field> = fields.await.map_err(|e| e.on(at.to_string()))?;
        if fields.len() < least {
            return Ok(());
        }
        let mut fields = fields.into_iter().peekable();
        while fields.peek().is_some() {
            let (mut some, mut sums) = (Vec::new(), Sums::default());
            while let Some((name, one)) =
                fields.next_if(|_| sums.len().max(some.len()) < CHANGED_AT_ONCE)
            {
                sums.add(&Sums::decode(&one));
                some.push((name, one));
            }
            // If a caller has extended one of the fields meanwhile, subtract the others one by one.
            if !self.subtract(at, &some, &sums).await? {
                for one in &some {
                    let sums = Sums::decode(&one.1);
                    self.subtract(at, slice::from_ref(one), &sums).await?;
                }
            }
        }
        Ok(())
    }

    /// Subtracts the sum of some fields. Returns false, and subtracts nothing, when one of the fields
    /// has changed since it was read.
    async fn subtract(&self, at: &GroupAt, some: &[Field], sums: &Sums) -> Result<bool, Error> {
        let mut call = scripts::dead_subtract()
            .key(self.keys.dead_uncounted(at))
            .key(self.keys.dead_counts(at))
            .key(self.keys.dead_causes(at))
            .arg(some.len())
            .arg(sums.counts.len());
        for (name, one) in some {
            call.push(name);
            call.push(one);
        }
        for (name, number) in sums.counts.iter().chain(&sums.causes) {
            call.push(name);
            call.push(-number);
        }
        self.net
            .call(COUNTING, &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))
    }
}

/// One call of `move_out`, over all its batches.
struct Run {
    /// The operation that the journal counts for; empty for none.
    operation: String,
    /// The field of the uncounted hash that this call owns.
    field: Uuid,
    /// The sum of all removals that this field stands for.
    sums: Sums,
    moved: HashSet<EntryId>,
}

/// The heads of dead letters; they say what each one counts for.
struct Heads<'a> {
    known: &'a [(EntryId, DeadLetterSummary)],
    read: HashMap<EntryId, Bytes>,
}

impl Heads<'_> {
    /// Adds a number for each of some dead letters to the sums. Missing and undecodable heads count
    /// nothing.
    fn count(&self, some: &[&Item], number: i64, sums: &mut Sums) {
        for (id, _) in some {
            if let Some(head) = find(self.known, *id) {
                sums.count(*id, head.view(), number);
            } else if let Some(Ok(head)) = self.read.get(id).map(|head| read_head(head)) {
                sums.count(*id, head.view(), number);
            }
        }
    }
}

/// A known head. A head that stands in for an undecodable one does not count as known.
fn find(known: &[(EntryId, DeadLetterSummary)], id: EntryId) -> Option<&DeadLetterSummary> {
    let at = known.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    Some(&known[at].1).filter(|head| !stands_in(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().copied().map(Value::Int).collect())
    }

    #[test]
    fn each_answer_of_the_script_has_its_meaning() {
        assert_eq!(MoveOut::read(Value::Nil, 2).unwrap(), MoveOut::Moved);
        assert_eq!(MoveOut::read(Value::Int(0), 2).unwrap(), MoveOut::FieldGone);
        assert_eq!(
            MoveOut::read(flags(&[1, 0]), 2).unwrap(),
            MoveOut::Missing(vec![true, false])
        );
    }

    #[test]
    fn an_answer_that_fits_no_batch_is_an_error() {
        for reply in [
            flags(&[1, 1]),
            flags(&[0]),
            flags(&[]),
            Value::Int(1),
            Value::Okay,
        ] {
            assert!(MoveOut::read(reply.clone(), 2).is_err(), "{reply:?}");
        }
    }
}
