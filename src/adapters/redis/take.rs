//! Taking dead letters out, so few at once that the server's other clients hardly feel it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem::discriminant;
use std::slice;

use bytes::Bytes;
use redis::Value;
use uuid::Uuid;

use super::adapter::RedisAdapter;
use super::counts::Sums;
use super::dead_letters::place;
use super::net::error;
use super::resp::reply;
use super::scripts;
use super::settle::batches_of;
use crate::domain::{DeadLetterSummary, EntryId, Error, Group, Topic, describe};
use crate::store::Disposition;
use crate::wire::dead_letter::{read_head, stands_in};

/// How many dead letters one script takes out; consumers on the same server wait for it.
const TAKEN_AT_ONCE: usize = 10;
/// The heads of so many batches are read at once.
const READ_AT_ONCE: usize = 12;
/// What was taken out stays uncounted until it is so many fields: most add up to the same counts.
const UNCOUNTED: usize = 8;
/// So many counts in a field, and so many that change at once, before another is begun: one that changes is as
/// dear for the server as a dead letter.
const CHANGED_AT_ONCE: usize = 200;

const OPERATION: &str = "take dead letters out";
const COUNTING: &str = "count dead letters";

/// A dead letter and where it goes.
type Item = (EntryId, Disposition);
/// What a caller has taken out and still counts, under its name.
type Field = (Vec<u8>, Vec<u8>);

impl RedisAdapter {
    pub(super) async fn take_dead(
        &self,
        topic: &Topic,
        group: &Group,
        items: &[Item],
        known: &[(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> Result<Vec<bool>, Error> {
        // Each once, however often it was passed.
        let mut seen = HashSet::new();
        let each: Vec<&Item> = items.iter().filter(|(id, _)| seen.insert(*id)).collect();
        let weight = |(_, onward): &&Item| match onward {
            Disposition::RequeueAs(redelivery) => redelivery.len(),
            Disposition::Discard | Disposition::Requeue => 0,
        };
        let batches: Vec<&[&Item]> = each
            .chunk_by(|(_, one), (_, other)| discriminant(one) == discriminant(other))
            .flat_map(|alike| batches_of(alike, TAKEN_AT_ONCE, weight))
            .collect();
        let mut taking = Taking {
            operation: operation.map(|id| id.to_string()).unwrap_or_default(),
            field: Uuid::new_v4(),
            sums: Sums::default(),
            taken: HashSet::new(),
        };
        let mut portions = batches.chunks(READ_AT_ONCE).peekable();
        let first = portions.peek().copied().unwrap_or_default();
        let mut heads = self.heads(topic, group, first, known).await?;
        while let Some(portion) = portions.next() {
            let next = portions.peek().copied().unwrap_or_default();
            // They are read while the first batch of this portion is taken.
            let following = self.heads(topic, group, next, known);
            let taking = async {
                for batch in portion {
                    let done = self.take_batch(topic, group, batch, &heads, &mut taking);
                    done.await.map_err(|e| e.on(place(topic, group)))?;
                }
                Ok::<_, Error>(())
            };
            let (done, following) = tokio::join!(taking, following);
            done?;
            heads = following?;
        }
        self.count_taken(topic, group, UNCOUNTED).await;
        // The first of two of the same id has taken it.
        let mut taken = taking.taken;
        Ok(items.iter().map(|(id, _)| taken.remove(id)).collect())
    }

    /// Takes those of a batch that are there.
    async fn take_batch(
        &self,
        topic: &Topic,
        group: &Group,
        batch: &[&Item],
        heads: &Heads<'_>,
        taking: &mut Taking,
    ) -> Result<(), Error> {
        if taking.sums.len() >= CHANGED_AT_ONCE {
            taking.field = Uuid::new_v4();
            taking.sums = Sums::default();
        }
        let mut there = batch.to_vec();
        while let Some((_, onward)) = there.first() {
            let first = taking.sums.is_empty();
            heads.count(&there, 1, &mut taking.sums);
            let mut call = scripts::dead_move_out()
                .key(self.keys.dead(topic, group))
                .key(self.keys.dead_body(topic, group))
                .key(self.keys.dead_uncounted(topic, group))
                .key(self.keys.redo(topic, group))
                .key(self.keys.journal(topic, group))
                .arg(&taking.operation)
                .arg(match onward {
                    Disposition::Discard => "discard",
                    Disposition::Requeue => "requeue",
                    Disposition::RequeueAs(_) => "requeue-as",
                })
                .arg(taking.field.to_string())
                .arg(if first { "0" } else { "1" })
                .arg(taking.sums.encode());
            for (id, onward) in &there {
                call.push(id.to_string());
                call.push(match onward {
                    Disposition::RequeueAs(redelivery) => &redelivery[..],
                    Disposition::Discard | Disposition::Requeue => b"",
                });
            }
            let reply = self.net.call(OPERATION, &call, reply::typed);
            let flags = match reply.await? {
                Value::Nil => {
                    taking.taken.extend(there.iter().map(|(id, _)| *id));
                    break;
                }
                Value::Int(0) if !first => {
                    // What was taken before is counted.
                    taking.sums = Sums::default();
                    continue;
                }
                flags => reply::flags(flags).map_err(|e| error::sent(OPERATION, e))?,
            };
            // It answers so only where one is missing; whoever took that will not bring it back.
            if flags.len() != there.len() || flags.iter().all(|there| *there) {
                return Err(error::sent(
                    OPERATION,
                    reply::unexpected("dead_move_out.lua"),
                ));
            }
            heads.count(&there, -1, &mut taking.sums);
            let mut flags = flags.into_iter();
            there.retain(|_| flags.next() == Some(true));
        }
        Ok(())
    }

    /// The heads of a portion; those that are not known are read.
    async fn heads<'a>(
        &self,
        topic: &Topic,
        group: &Group,
        portion: &[&[&Item]],
        known: &'a [(EntryId, DeadLetterSummary)],
    ) -> Result<Heads<'a>, Error> {
        let ids = portion.iter().copied().flatten().map(|(id, _)| *id);
        let unknown: BTreeSet<_> = ids.filter(|id| find(known, *id).is_none()).collect();
        let stream = self.keys.dead(topic, group);
        let read = self.read_each(&stream, unknown).await;
        Ok(Heads {
            known,
            read: read
                .map_err(|e| e.on(place(topic, group)))?
                .into_iter()
                .collect(),
        })
    }

    /// Subtracts from the counts what was taken out and still counts, whoever took it, where it is
    /// in so many fields. Where it fails that is done another time: who asks for the counts
    /// subtracts it, too.
    pub(super) async fn count_taken(&self, topic: &Topic, group: &Group, least: usize) {
        if let Err(error) = self.try_to_count(topic, group, least).await {
            tracing::debug!(%topic, %group, error = %describe(&error), "not counted yet");
        }
    }

    async fn try_to_count(&self, topic: &Topic, group: &Group, least: usize) -> Result<(), Error> {
        let key = self.keys.dead_uncounted(topic, group);
        let fields = self.net.run(COUNTING, &key, async |connection| {
            let mut command = redis::cmd("HGETALL");
            command.arg(&key);
            command.query_async(connection).await
        });
        let fields: Vec<Field> = fields.await.map_err(|e| e.on(place(topic, group)))?;
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
            // One that its caller still adds to must not keep the others back.
            if !self.subtract(topic, group, &some, &sums).await? {
                for one in &some {
                    let sums = Sums::decode(&one.1);
                    self.subtract(topic, group, slice::from_ref(one), &sums)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Subtracts what some fields add up to; not where one of them is no longer as it was.
    async fn subtract(
        &self,
        topic: &Topic,
        group: &Group,
        some: &[Field],
        sums: &Sums,
    ) -> Result<bool, Error> {
        let mut call = scripts::dead_subtract()
            .key(self.keys.dead_uncounted(topic, group))
            .key(self.keys.dead_counts(topic, group))
            .key(self.keys.dead_causes(topic, group))
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
            .map_err(|e| e.on(place(topic, group)))
    }
}

/// A call that takes dead letters out.
struct Taking {
    operation: String,
    /// Where it writes what it has taken out and still counts.
    field: Uuid,
    /// What that is.
    sums: Sums,
    taken: HashSet<EntryId>,
}

/// The heads of dead letters, by which they are counted.
struct Heads<'a> {
    known: &'a [(EntryId, DeadLetterSummary)],
    read: HashMap<EntryId, Bytes>,
}

impl Heads<'_> {
    /// Counts some dead letters, each by so much; those that are not there, or cannot be read, count
    /// nothing.
    fn count(&self, some: &[&Item], each: i64, sums: &mut Sums) {
        for (id, _) in some {
            if let Some(head) = find(self.known, *id) {
                sums.count(*id, head.view(), each);
            } else if let Some(Ok(head)) = self.read.get(id).map(|head| read_head(head)) {
                sums.count(*id, head.view(), each);
            }
        }
    }
}

/// A head among known ones, unless it may stand for one that cannot be read.
fn find(known: &[(EntryId, DeadLetterSummary)], id: EntryId) -> Option<&DeadLetterSummary> {
    let at = known.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    Some(&known[at].1).filter(|head| !stands_in(head))
}
