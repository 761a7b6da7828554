//! Settling: each delivery in one step, under the lock.

use std::sync::Arc;

use super::adapter::MemoryAdapter;
use super::promote::redo_entry;
use super::store::GroupState;
use crate::domain::whole_millis;
use crate::store::{DeliveryId, Member, Settlement};

impl MemoryAdapter {
    pub(super) fn ack(&self, member: &Member, receipts: &[DeliveryId]) {
        self.with(|space| {
            let Some(group) = space.group(&member.topic, &member.group) else {
                return;
            };
            for receipt in receipts {
                group.cursor(receipt.lane).pending.remove(&receipt.id);
            }
        });
    }

    pub(super) fn settle_all(&self, member: &Member, settlements: &[Settlement]) -> Vec<bool> {
        let now = self.shared.now();
        let (done, arrived) = self.with(|space| {
            let found = space.topics.get_mut(&member.topic).and_then(|topic| {
                let group = topic.groups.get_mut(&member.group)?;
                Some((Arc::clone(&topic.arrived), group))
            });
            let Some((arrived, group)) = found else {
                return (vec![false; settlements.len()], None);
            };
            let settle = |settlement| settle_one(group, member, settlement, now);
            (settlements.iter().map(settle).collect(), Some(arrived))
        });
        // Without a delay one is in the redo lane.
        let at_once = |one: &Settlement| matches!(one, Settlement::Reschedule { delay, .. } if delay.is_zero());
        if let Some(arrived) = arrived.filter(|_| settlements.iter().any(at_once)) {
            arrived.notify_waiters();
        }
        done
    }
}

fn settle_one(group: &mut GroupState, member: &Member, settlement: &Settlement, now: u64) -> bool {
    let receipt = settlement.receipt();
    let cursor = group.cursor(receipt.lane);
    if cursor.list_pending(receipt.id, &member.consumer).is_none() {
        return false;
    }
    cursor.pending.remove(&receipt.id);
    match settlement {
        Settlement::Reschedule {
            delay, redelivery, ..
        } if delay.is_zero() => {
            group.redo.push(now, redo_entry(redelivery.clone()));
        }
        Settlement::Reschedule {
            delay, redelivery, ..
        } => {
            let due = now.saturating_add(whole_millis(*delay));
            group.scheduled.insert((due, receipt), redelivery.clone());
        }
        Settlement::DeadLetter { record, .. } => {
            group.bury(record.clone(), now);
        }
    }
    true
}
