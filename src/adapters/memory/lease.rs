//! Leases: extending, giving back, finding one's own, and taking over expired ones.
//!
//! They go by the time that really passes, whatever the store's clock says.

use std::time::Duration;

use tokio::time::Instant;

use super::adapter::MemoryAdapter;
use super::read::gone;
use super::sequence::Pending;
use crate::domain::{ConsumerName, Error, Group, Topic};
use crate::store::{DeliveryId, Lane, MAX_BATCH, Member, ReclaimCursor, Reclaimed};

impl MemoryAdapter {
    pub(super) fn change_leases(
        &self,
        member: &Member,
        receipts: &[DeliveryId],
        change: impl Fn(&mut Pending),
    ) -> Vec<bool> {
        self.with(|space| {
            let Some(group) = space.group(&member.topic, &member.group) else {
                return vec![false; receipts.len()];
            };
            group.heard_of(&member.consumer);
            let mut one = |receipt: &DeliveryId| {
                let cursor = group.cursor(receipt.lane);
                let held = cursor.list_pending(receipt.id, &member.consumer);
                held.map(&change).is_some()
            };
            receipts.iter().map(&mut one).collect()
        })
    }

    pub(super) fn list_pending(
        &self,
        member: &Member,
        max: usize,
    ) -> Result<Vec<DeliveryId>, Error> {
        self.with(|space| {
            let group = space
                .group(&member.topic, &member.group)
                .ok_or_else(|| gone("holdings").on(member.to_string()))?;
            let mut held = Vec::new();
            for lane in [Lane::Log, Lane::Redelivery] {
                let pending = group.cursor(lane).pending.iter();
                let own = pending.filter(|(_, pending)| pending.consumer == member.consumer);
                held.extend(own.take(max).map(|(id, _)| DeliveryId { lane, id: *id }));
            }
            Ok(held)
        })
    }

    pub(super) fn take_over(
        &self,
        member: &Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> Result<Reclaimed, Error> {
        let Member {
            topic,
            group,
            consumer,
        } = member;
        let missing = || gone("reclaim").on(member.to_string());
        self.with(|space| {
            let topic = space.topics.get_mut(topic).ok_or_else(missing)?;
            topic
                .groups
                .get_mut(group)
                .ok_or_else(missing)?
                .heard_of(consumer);
            let mut reclaimed = Reclaimed::default();
            for lane in [Lane::Log, Lane::Redelivery] {
                let (entries, place) = topic.lane(group, lane).ok_or_else(missing)?;
                let (from, next) = match lane {
                    Lane::Log => (cursor.log, &mut reclaimed.cursor.log),
                    Lane::Redelivery => (cursor.redo, &mut reclaimed.cursor.redo),
                };
                let max = max.min(MAX_BATCH);
                let found = place.take_over(entries, lane, consumer, lease, from, max);
                *next = found.next;
                reclaimed.taken.extend(found.taken);
                reclaimed.missing += found.missing;
            }
            Ok(reclaimed)
        })
    }

    pub(super) fn drop_consumers(
        &self,
        topic: &Topic,
        group: &Group,
        idle: Duration,
        only: Option<&ConsumerName>,
    ) -> u64 {
        let now = Instant::now();
        self.with(|space| {
            let Some(group) = space.group(topic, group) else {
                return 0;
            };
            let pending = group
                .log
                .pending
                .values()
                .chain(group.redone.pending.values());
            let busy: std::collections::BTreeSet<&ConsumerName> =
                pending.map(|pending| &pending.consumer).collect();
            let before = group.consumers.len();
            group.consumers.retain(|name, heard| {
                busy.contains(name)
                    || now.saturating_duration_since(*heard) < idle
                    || only.is_some_and(|only| only != name)
            });
            (before - group.consumers.len()) as u64
        })
    }
}
