//! Settling: each delivery in one step, under the lock.

use super::backend::MemoryBackend;
use super::store::GroupState;
use crate::backend::{Member, Receipt, Settlement};
use crate::domain::whole_millis;

impl MemoryBackend {
    pub(super) fn ack(&self, member: &Member, receipts: &[Receipt]) {
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
        self.with(|space| {
            let Some(group) = space.group(&member.topic, &member.group) else {
                return vec![false; settlements.len()];
            };
            let settle = |settlement| settle_one(group, member, settlement, now);
            settlements.iter().map(settle).collect()
        })
    }
}

fn settle_one(group: &mut GroupState, member: &Member, settlement: &Settlement, now: u64) -> bool {
    let receipt = settlement.receipt();
    let cursor = group.cursor(receipt.lane);
    if cursor.held_by(receipt.id, &member.consumer).is_none() {
        return false;
    }
    cursor.pending.remove(&receipt.id);
    match settlement {
        Settlement::Later { delay, parcel, .. } => {
            let due = now.saturating_add(whole_millis(*delay));
            group.scheduled.insert((due, receipt), parcel.clone());
        }
        Settlement::Bury { record, .. } => {
            group.bury(record.clone(), now);
        }
    }
    true
}
