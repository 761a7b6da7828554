//! What consumers hold, and how each delivery ends.
//!
//! Leases go by the time that really passes, whatever the store's clock says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::adapter::{MemoryAdapter, gone, turn};
use super::state::{GroupState, redelivery_entry};
use crate::domain::{BoxFuture, Error, whole_millis};
use crate::store::{
    Begin, Commit, Commits, Deliveries, DeliveryId, End, Fate, Holder, Lane, MAX_BATCH, Member,
    ReclaimCursor, Reclaimed, Replies, Unmarked,
};

const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];

impl MemoryAdapter {
    fn commit_all(&self, by: &Member, commits: &Commits) -> Vec<Fate> {
        let now = self.shared.now();
        let (fates, arrived) = self.with(|space| {
            let found = space.topics.get_mut(&by.at.partition).and_then(|topic| {
                let group = topic.groups.get_mut(by.group())?;
                Some((Arc::clone(&topic.arrived), group))
            });
            let Some((arrived, group)) = found else {
                return (vec![Fate::Lost; commits.fenced().len()], None);
            };
            for receipt in commits.acks() {
                group.cursor(receipt.lane).pending.remove(&receipt.id);
            }
            let commit = |one| commit_one(group, by, one, now);
            (commits.fenced().iter().map(commit).collect(), Some(arrived))
        });
        // Without a delay it is in the redelivery stream at once.
        let at_once =
            |one: &Commit| matches!(one.end(), End::Reschedule { delay, .. } if delay.is_zero());
        if let Some(arrived) = arrived.filter(|_| commits.fenced().iter().any(at_once)) {
            arrived.notify_waiters();
        }
        fates
    }

    fn take_over(
        &self,
        by: &Member,
        (lease, unmarked): (Duration, Unmarked),
        cursor: ReclaimCursor,
        max: usize,
    ) -> Result<Reclaimed, Error> {
        let unmarked = u32::from(unmarked == Unmarked::Begun);
        let missing = || gone("claim expired").on(by.to_string());
        self.with(|space| {
            let topic = space.topics.get_mut(&by.at.partition).ok_or_else(missing)?;
            let group = topic.groups.get_mut(by.group()).ok_or_else(missing)?;
            group.set_active(&by.consumer);
            let mut reclaimed = Reclaimed {
                lease: group.lease,
                ..Reclaimed::default()
            };
            let lease = lease.max(group.lease);
            for (source, lane) in (0..).zip(LANES) {
                let (entries, pending) = topic.lane(by.group(), lane).ok_or_else(missing)?;
                let (from, next) = match lane {
                    Lane::Log => (cursor.log, &mut reclaimed.cursor.log),
                    Lane::Redelivery => (cursor.redelivery, &mut reclaimed.cursor.redelivery),
                };
                let max = max.min(MAX_BATCH);
                reclaimed.pending += pending.pending.len() as u64;
                let origin = (source, lane);
                let found =
                    pending.take_over(entries, origin, &by.consumer, (lease, unmarked), from, max);
                *next = found.next;
                reclaimed.taken.extend(found.taken);
                reclaimed.missing += found.missing;
            }
            Ok(reclaimed)
        })
    }
}

fn commit_one(group: &mut GroupState, by: &Member, commit: &Commit, now: u64) -> Fate {
    let receipt = commit.delivery();
    let cursor = group.cursor(receipt.lane);
    match (cursor.holder(receipt.id, &by.consumer), commit.end()) {
        (Holder::Member, End::Release { attempts }) => {
            if let Some(pending) = cursor.pending_of(receipt.id, &by.consumer) {
                pending.release(*attempts);
            }
            group.set_active(&by.consumer);
            return Fate::Done;
        }
        (Holder::Member, _) => {}
        (Holder::Nobody, _) if commit.is_of_only_copy() => {}
        (Holder::Nobody, _) => return Fate::NotHeld,
        _ => return Fate::Lost,
    }
    cursor.pending.remove(&receipt.id);
    match commit.end() {
        End::Reschedule { delay, redelivery } if delay.is_zero() => {
            let entry = redelivery_entry(redelivery.clone());
            group.redelivery.push(now, entry);
        }
        End::Reschedule { delay, redelivery } => {
            let due = now.saturating_add(whole_millis(*delay));
            group.scheduled.insert((due, receipt), redelivery.clone());
        }
        End::DeadLetter(record) => {
            group.dead_letter((**record).clone(), now);
        }
        End::Ack | End::Release { .. } => {}
    }
    Fate::Done
}

impl Deliveries for MemoryAdapter {
    fn commit<'a>(
        &'a self,
        by: &'a Member,
        commits: &'a Commits,
    ) -> BoxFuture<'a, Result<Replies, Error>> {
        turn(move || {
            let fates = self.commit_all(by, commits);
            Ok(Replies {
                acks: Ok(Fate::Done),
                fenced: fates.into_iter().map(Ok).collect(),
            })
        })
    }

    fn begin<'a>(
        &'a self,
        by: &'a Member,
        begins: &'a [Begin],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        turn(move || {
            let since = Some(Instant::now());
            Ok(self.with(|space| {
                let Some(group) = space.group(&by.at) else {
                    return vec![Holder::Other; begins.len()];
                };
                group.set_active(&by.consumer);
                let mut begin = |begin: &Begin| {
                    let cursor = group.cursor(begin.delivery.lane);
                    if let Some(pending) = cursor.pending_of(begin.delivery.id, &by.consumer) {
                        pending.since = since;
                        pending.attempts = Some(begin.attempts);
                    }
                    cursor.holder(begin.delivery.id, &by.consumer)
                };
                begins.iter().map(&mut begin).collect()
            }))
        })
    }

    fn extend<'a>(
        &'a self,
        by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        turn(move || {
            let since = Some(Instant::now());
            Ok(self.with(|space| {
                let Some(group) = space.group(&by.at) else {
                    return vec![Holder::Other; receipts.len()];
                };
                group.set_active(&by.consumer);
                let mut extend = |receipt: &DeliveryId| {
                    let cursor = group.cursor(receipt.lane);
                    if let Some(pending) = cursor.pending_of(receipt.id, &by.consumer) {
                        pending.since = since;
                    }
                    cursor.holder(receipt.id, &by.consumer)
                };
                receipts.iter().map(&mut extend).collect()
            }))
        })
    }

    fn pending_of<'a>(
        &'a self,
        by: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>> {
        turn(move || {
            self.with(|space| {
                let group = space.group(&by.at);
                let group = group.ok_or_else(|| gone("pending").on(by.to_string()))?;
                let mut receipts = Vec::new();
                for lane in LANES {
                    let pending = group.cursor(lane).pending.iter();
                    let own = pending.filter(|(_, pending)| pending.consumer == by.consumer);
                    receipts.extend(own.take(max).map(|(id, _)| DeliveryId { lane, id: *id }));
                }
                Ok(receipts)
            })
        })
    }

    fn claim_expired<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
        unmarked: Unmarked,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        turn(move || self.take_over(by, (lease, unmarked), cursor, max))
    }
}
