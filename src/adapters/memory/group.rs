//! The consumers of a group, and removing a group.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::adapter::MemoryAdapter;
use super::status::group_status;
use super::store::GroupState;
use crate::domain::{ConsumerName, Group, Topic};
use crate::store::{ConsumerStatus, GroupRemoval};

impl MemoryAdapter {
    pub(super) fn list_consumers(&self, topic: &Topic, group: &Group) -> Vec<ConsumerStatus> {
        self.with(|space| {
            let group = space.group(topic, group);
            group.map_or_else(Vec::new, |group| consumers(group))
        })
    }

    pub(super) fn take_away_group(
        &self,
        topic: &Topic,
        group: &Group,
        quiet: Duration,
        force: bool,
    ) -> Option<GroupRemoval> {
        let (removal, arrived) = self.with(|space| {
            let topic = space.topics.get_mut(topic)?;
            let state = topic.groups.get(group)?;
            let status = group_status(topic, group, state);
            let consumers = consumers(state);
            let living = consumers.iter().filter(|one| one.idle_for < quiet).count() as u64;
            let waits = status.lag + status.in_flight + status.scheduled + status.dead;
            let removed = force || waits + living == 0;
            if removed {
                topic.groups.remove(group);
            }
            let removal = GroupRemoval {
                removed,
                status,
                live_consumers: living,
            };
            Some((removal, topic.arrived.clone()))
        })?;
        // Whoever waits for entries is to find that its group is gone.
        arrived.notify_waiters();
        Some(removal)
    }
}

fn consumers(group: &GroupState) -> Vec<ConsumerStatus> {
    let now = Instant::now();
    let pending = group.log.pending.values();
    let mut held: BTreeMap<&ConsumerName, u64> = BTreeMap::new();
    for pending in pending.chain(group.redone.pending.values()) {
        *held.entry(&pending.consumer).or_default() += 1;
    }
    let consumers = group.consumers.iter();
    consumers
        .map(|(consumer, heard)| ConsumerStatus {
            consumer: consumer.clone(),
            in_flight: held.get(consumer).copied().unwrap_or(0),
            idle_for: now.saturating_duration_since(*heard),
        })
        .collect()
}
