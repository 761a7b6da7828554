//! What consumers hold, and how each delivery ends.
//!
//! Leases go by the time that really passes, whatever the store's clock says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::adapter::{MemoryAdapter, gone, turn};
use super::sequence::Pending;
use super::store::{GroupState, redelivery_entry};
use crate::domain::{BoxFuture, Error, whole_millis};
use crate::store::{
    Deliveries, DeliveryId, Lane, MAX_BATCH, Member, ReclaimCursor, Reclaimed, Settlement,
};

const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];

impl MemoryAdapter {
    /// Changes deliveries that the member holds. For each, whether it held it.
    fn change_leases(
        &self,
        by: &Member,
        receipts: &[DeliveryId],
        change: impl Fn(&mut Pending),
    ) -> Vec<bool> {
        self.with(|space| {
            let Some(group) = space.group(&by.at) else {
                return vec![false; receipts.len()];
            };
            group.set_active(&by.consumer);
            let mut one = |receipt: &DeliveryId| {
                let cursor = group.cursor(receipt.lane);
                let pending = cursor.pending_of(receipt.id, &by.consumer);
                pending.map(&change).is_some()
            };
            receipts.iter().map(&mut one).collect()
        })
    }

    fn settle_all(&self, by: &Member, settlements: &[Settlement]) -> Vec<bool> {
        let now = self.shared.now();
        let (done, arrived) = self.with(|space| {
            let found = space.topics.get_mut(by.topic()).and_then(|topic| {
                let group = topic.groups.get_mut(by.group())?;
                Some((Arc::clone(&topic.arrived), group))
            });
            let Some((arrived, group)) = found else {
                return (vec![false; settlements.len()], None);
            };
            let settle = |settlement| settle_one(group, by, settlement, now);
            (settlements.iter().map(settle).collect(), Some(arrived))
        });
        // Without a delay it is in the redelivery stream at once.
        let at_once = |one: &Settlement| matches!(one, Settlement::Reschedule { delay, .. } if delay.is_zero());
        if let Some(arrived) = arrived.filter(|_| settlements.iter().any(at_once)) {
            arrived.notify_waiters();
        }
        done
    }

    fn take_over(
        &self,
        by: &Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> Result<Reclaimed, Error> {
        let missing = || gone("reclaim").on(by.to_string());
        self.with(|space| {
            let topic = space.topics.get_mut(by.topic()).ok_or_else(missing)?;
            let group = topic.groups.get_mut(by.group()).ok_or_else(missing)?;
            group.set_active(&by.consumer);
            let mut reclaimed = Reclaimed::default();
            for (source, lane) in (0..).zip(LANES) {
                let (entries, pending) = topic.lane(by.group(), lane).ok_or_else(missing)?;
                let (from, next) = match lane {
                    Lane::Log => (cursor.log, &mut reclaimed.cursor.log),
                    Lane::Redelivery => (cursor.redelivery, &mut reclaimed.cursor.redelivery),
                };
                let max = max.min(MAX_BATCH);
                let origin = (source, lane);
                let found = pending.take_over(entries, origin, &by.consumer, lease, from, max);
                *next = found.next;
                reclaimed.taken.extend(found.taken);
                reclaimed.missing += found.missing;
            }
            Ok(reclaimed)
        })
    }
}

fn settle_one(group: &mut GroupState, by: &Member, settlement: &Settlement, now: u64) -> bool {
    let receipt = settlement.receipt();
    let cursor = group.cursor(receipt.lane);
    if cursor.pending_of(receipt.id, &by.consumer).is_none() {
        return false;
    }
    cursor.pending.remove(&receipt.id);
    match settlement {
        Settlement::Reschedule {
            delay, redelivery, ..
        } if delay.is_zero() => {
            let entry = redelivery_entry(redelivery.clone());
            group.redelivery.push(now, entry);
        }
        Settlement::Reschedule {
            delay, redelivery, ..
        } => {
            let due = now.saturating_add(whole_millis(*delay));
            group.scheduled.insert((due, receipt), redelivery.clone());
        }
        Settlement::DeadLetter { record, .. } => {
            group.dead_letter(record.clone(), now);
        }
    }
    true
}

impl Deliveries for MemoryAdapter {
    fn acknowledge<'a>(
        &'a self,
        by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.with(|space| {
                if let Some(group) = space.group(&by.at) {
                    for receipt in receipts {
                        group.cursor(receipt.lane).pending.remove(&receipt.id);
                    }
                }
            });
            Ok(())
        })
    }

    fn settle<'a>(
        &'a self,
        by: &'a Member,
        settlements: &'a [Settlement],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || Ok(self.settle_all(by, settlements)))
    }

    fn extend<'a>(
        &'a self,
        by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || {
            let since = Some(Instant::now());
            Ok(self.change_leases(by, receipts, |pending| pending.since = since))
        })
    }

    fn release<'a>(
        &'a self,
        by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<u64, Error>> {
        turn(move || {
            let held = self.change_leases(by, receipts, Pending::release);
            Ok(held.into_iter().filter(|held| *held).count() as u64)
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

    fn reclaim<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        turn(move || self.take_over(by, lease, cursor, max))
    }
}
