//! Records published and settled messages: retention removes them from the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::domain::{BoxFuture, EntryId, Error, Group, Topic};
use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use crate::store::{
    Appended, DeliveriesAnswer, DeliveriesOp, DeliveryId, Effect, EffectFate, EffectStoreAnswer,
    EffectStoreOp, End, Fate, Fetched, Fields, GroupAt, Lane, LaterAnswer, LaterOp, LogAnswer,
    LogOp, MAX_BATCH, NewEntry, Partition, ScheduleAnswer, ScheduleOp, Store, TopicsAnswer,
    TopicsOp,
};
use crate::wire::redelivery::Redelivery;

#[derive(Debug, Default)]
struct Books {
    published: HashMap<Topic, Vec<(EntryId, Fields)>>,
    /// An entry can come twice: from its publish, and from a promotion at the same time.
    listed: HashSet<(Topic, EntryId)>,
    /// The fields of each delivery.
    handed: HashMap<(GroupAt, DeliveryId), Fields>,
    settled: HashMap<GroupAt, Vec<(EntryId, Fields)>>,
    known: HashSet<(GroupAt, DeliveryId)>,
}

/// Stands before a store and records.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    inner: Arc<dyn Store>,
    books: Arc<Mutex<Books>>,
    /// How many retries of a group are scheduled. Locked while they move, so that `busy` does not
    /// look in between and miss them.
    scheduled: Arc<tokio::sync::Mutex<HashMap<GroupAt, u64>>>,
}

impl Recorder {
    pub(super) fn on(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            books: Arc::default(),
            scheduled: Arc::default(),
        }
    }

    /// The store that records.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        let decorator = Arc::new(self.clone());
        Arc::new(Decorated::new(decorator, Arc::clone(&self.inner)))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn published(&self, topic: &Topic) -> Vec<(EntryId, Fields)> {
        let found = self.books().published.get(topic).cloned();
        found.unwrap_or_default()
    }

    /// What a group has acknowledged, in its order, with the id with which each began.
    pub(super) fn settled(&self, topic: &Topic, group: &Group) -> Vec<(EntryId, Fields)> {
        let at = GroupAt::of(topic, group);
        let found = self.books().settled.get(&at).cloned();
        found.unwrap_or_default()
    }

    /// Why groups are not idle, in words; nothing when they are.
    pub(super) async fn busy(&self) -> Result<Vec<String>, Error> {
        let mut busy = Vec::new();
        for topic in self.inner.topics().list().await? {
            let scheduled = self.scheduled.lock().await;
            let status = self.inner.inspect().status(&Partition::of(&topic)).await?;
            for one in status.into_iter().flat_map(|status| status.groups) {
                let at = GroupAt::of(&topic, &one.group);
                let later = scheduled.get(&at).copied().unwrap_or(0);
                let due = one.scheduled.saturating_sub(later);
                if one.lag + one.in_flight + due > 0 {
                    busy.push(format!(
                        "{at}: {} undelivered, {} in flight, {due} due again",
                        one.lag, one.in_flight
                    ));
                }
            }
        }
        Ok(busy)
    }

    fn appended(&self, at: &Partition, entries: &[NewEntry], results: &[Result<Appended, Error>]) {
        for (draft, result) in entries.iter().zip(results) {
            if let Ok(appended) = result
                && !appended.duplicate
            {
                let name = Bytes::from_static(draft.name.as_bytes());
                self.list(at, appended.id, vec![(name, draft.value.clone())]);
            }
        }
    }

    fn list(&self, at: &Partition, id: EntryId, fields: Fields) {
        let mut books = self.books();
        // Of a topic as a whole, the store has put the partition into the id.
        let name = match at.is_whole() {
            true => id,
            false => id.in_partition(at.number()),
        };
        if books.listed.insert((at.topic().clone(), name)) {
            let published = books.published.entry(at.topic().clone()).or_default();
            published.push((id, fields));
        }
    }

    /// Records the messages of effects. A store that is asked again answers with the same entries.
    fn committed(&self, effects: &[Effect], fate: &EffectFate) {
        let EffectFate::Done(appended) = fate else {
            return;
        };
        let messages = effects.iter().filter_map(|effect| match effect {
            Effect::Publish { at, entry, .. } => Some((at, entry)),
            _ => None,
        });
        for ((at, entry), appended) in messages.zip(appended) {
            let (entry, appended) = (entry.clone(), *appended);
            self.appended(at, &[entry], &[Ok(appended)]);
        }
    }

    /// Records the entries after an id: those that a promotion has appended, and those of publishes
    /// at the same time.
    async fn promoted(&self, at: &Partition, mut after: Option<EntryId>) -> Result<(), Error> {
        loop {
            let page = self.inner.log().browse(at, after, MAX_BATCH).await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (id, fields) in page {
                self.list(at, id, fields);
            }
        }
    }

    fn hand_out<'a>(&self, fetched: impl Iterator<Item = (GroupAt, &'a Fetched)>) {
        let mut books = self.books();
        for (at, one) in fetched {
            books.handed.insert((at, one.receipt), one.fields.clone());
        }
    }

    fn acknowledged(&self, at: &GroupAt, receipts: &[DeliveryId]) {
        let mut books = self.books();
        for receipt in receipts {
            let name = (at.clone(), *receipt);
            let Some(fields) = books.handed.remove(&name) else {
                continue;
            };
            if !books.known.insert(name) {
                continue;
            }
            let began = match receipt.lane {
                Lane::Log => Some((receipt.id, fields)),
                Lane::Redelivery => Redelivery::decode(&fields)
                    .ok()
                    .map(|redelivery| (redelivery.history.origin, redelivery.fields)),
            };
            books.settled.entry(at.clone()).or_default().extend(began);
        }
    }

    /// Records an answer, before its caller has it.
    fn answered(&self, op: Op<'_>, answer: &Answer) {
        match (op, answer) {
            (
                Op::Log(
                    LogOp::Append { at, entries }
                    | LogOp::AppendOnce { at, entries, .. }
                    | LogOp::AppendDurably { at, entries, .. },
                ),
                Answer::Log(
                    LogAnswer::Append(results)
                    | LogAnswer::AppendOnce(results)
                    | LogAnswer::AppendDurably(results),
                ),
            ) => self.appended(at, entries, results),
            (Op::Fetch { opening, .. }, Answer::Fetch(fetched)) => {
                self.hand_out(fetched.iter().filter_map(|one| {
                    let source = opening.sources.get(usize::from(one.source))?;
                    let at = GroupAt {
                        partition: source.partition.clone(),
                        group: opening.group.clone(),
                    };
                    Some((at, one))
                }));
            }
            (
                Op::Deliveries(DeliveriesOp::ClaimExpired { by, .. }),
                Answer::Deliveries(DeliveriesAnswer::ClaimExpired(reclaimed)),
            ) => self.hand_out(reclaimed.taken.iter().map(|one| (by.at.clone(), one))),
            (
                Op::EffectStore(EffectStoreOp::Commit { by, commits, .. }),
                Answer::EffectStore(EffectStoreAnswer::Commit(fates)),
            ) => {
                for (commit, fate) in commits.iter().zip(fates) {
                    self.committed(&commit.effects, fate);
                    let is_done = matches!(fate, EffectFate::Done(_) | EffectFate::Skipped);
                    if is_done && commit.acknowledges {
                        self.acknowledged(&by.at, &[commit.delivery]);
                    }
                }
            }
            (
                Op::EffectStore(EffectStoreOp::Apply { commits, .. }),
                Answer::EffectStore(EffectStoreAnswer::Apply(fates)),
            ) => {
                for (effects, fate) in commits.iter().zip(fates) {
                    self.committed(effects, fate);
                }
            }
            _ => {}
        }
    }
}

/// How an answer changes the number of a group's scheduled retries: more, and fewer.
fn moved(op: Op<'_>, answer: &Answer) -> (u64, u64) {
    let count = |done: &[bool]| done.iter().filter(|done| **done).count() as u64;
    match (op, answer) {
        (
            Op::Deliveries(DeliveriesOp::Commit { commits, .. }),
            Answer::Deliveries(DeliveriesAnswer::Commit(replies)),
        ) => {
            let ends = commits.fenced().iter().zip(&replies.fenced);
            // Without a delay it is in the redelivery stream at once, and counts as undelivered there.
            let rescheduled = ends.filter(|(commit, fate)| {
                matches!(commit.end(), End::Reschedule { delay, .. } if !delay.is_zero())
                    && matches!(fate, Ok(Fate::Done))
            });
            (rescheduled.count() as u64, 0)
        }
        (_, Answer::Schedule(ScheduleAnswer::Promote(promoted))) => (0, promoted.moved),
        (_, Answer::Schedule(ScheduleAnswer::RunNow(done) | ScheduleAnswer::Cancel(done))) => {
            (0, count(done))
        }
        (_, Answer::Topics(TopicsAnswer::RemoveGroup(Some(found)))) if found.removed => {
            (0, u64::MAX)
        }
        _ => (0, 0),
    }
}

/// Whether an answer says that messages for later are in the log now.
fn published(answer: &Answer) -> bool {
    match answer {
        Answer::Schedule(ScheduleAnswer::Promote(promoted))
        | Answer::Later(LaterAnswer::Promote(promoted)) => promoted.published > 0,
        _ => false,
    }
}

impl Decorator for Recorder {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            if let Op::Deliveries(DeliveriesOp::Commit { by, commits }) = op {
                // Recorded first: once the group is idle, the record is complete.
                self.acknowledged(&by.at, commits.acks());
            }
            let moves = match op {
                Op::Deliveries(DeliveriesOp::Commit { by, commits })
                    if !commits.fenced().is_empty() =>
                {
                    &by.at
                }
                Op::Schedule(
                    ScheduleOp::Promote { at, .. }
                    | ScheduleOp::RunNow { at, .. }
                    | ScheduleOp::Cancel { at, .. },
                )
                | Op::Topics(TopicsOp::RemoveGroup { at, .. }) => at,
                Op::Later(LaterOp::Promote { at, .. }) => {
                    let _recorded = self.scheduled.lock().await;
                    let newest = self.inner.log().newest(at).await?;
                    let answer = next.run(op).await?;
                    if published(&answer) {
                        self.promoted(at, newest).await?;
                    }
                    return Ok(answer);
                }
                Op::EffectStore(_) => {
                    // Once the group is idle, the record is complete: `busy` waits for it.
                    let _recorded = self.scheduled.lock().await;
                    let answer = next.run(op).await?;
                    self.answered(op, &answer);
                    return Ok(answer);
                }
                _ => {
                    let answer = next.run(op).await?;
                    self.answered(op, &answer);
                    return Ok(answer);
                }
            };
            let mut scheduled = self.scheduled.lock().await;
            let at = &moves.partition;
            let newest = match op {
                Op::Schedule(ScheduleOp::Promote { .. }) => self.inner.log().newest(at).await?,
                _ => None,
            };
            let answer = next.run(op).await?;
            if published(&answer) {
                self.promoted(at, newest).await?;
            }
            let (more, fewer) = moved(op, &answer);
            let count = scheduled.entry(moves.clone()).or_default();
            *count = (*count + more).saturating_sub(fewer);
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::ConsumerName;
    use crate::store::{Commit, Commits, Member, Replies};

    #[test]
    fn a_retry_without_a_delay_does_not_count_as_scheduled() {
        let (topic, group) = ("orders".parse().unwrap(), "billing".parse().unwrap());
        let by = Member::of(&topic, &group, ConsumerName::new("c").unwrap());
        let mut commits = Commits::default();
        for (millis, delay) in [(1, Duration::ZERO), (2, Duration::from_secs(1))] {
            let delivery = DeliveryId::new(Lane::Log, EntryId::new(millis, 0));
            commits.push(Commit::reschedule(delivery, delay, Bytes::new()));
        }
        let answer = Answer::Deliveries(DeliveriesAnswer::Commit(Replies {
            acks: Ok(Fate::Done),
            fenced: vec![Ok(Fate::Done), Ok(Fate::Done)],
        }));
        let op = DeliveriesOp::Commit {
            by: &by,
            commits: &commits,
        };
        assert_eq!(moved(Op::Deliveries(op), &answer), (1, 0));
    }
}
