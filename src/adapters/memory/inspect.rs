//! The state of topics, groups and consumers.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::adapter::{MemoryAdapter, turn};
use super::state::{GroupState, TopicState};
use crate::domain::{BoxFuture, ConsumerName, Error, Group, Migration};
use crate::store::{
    ConsumerStatus, GroupAt, GroupStatus, Inspect, Partition, ServerInfo, TopicStatus,
};

pub(super) fn group_status(topic: &TopicState, name: &Group, group: &GroupState) -> GroupStatus {
    let unread = group.redelivered.lag(&group.redelivery);
    GroupStatus {
        group: name.clone(),
        lag: group.log.lag(&topic.log),
        in_flight: (group.log.pending.len() + group.redelivered.pending.len()) as u64,
        scheduled: group.scheduled.len() as u64 + unread,
        dead: group.dead.len() as u64,
        consumers: group.consumers.len() as u64,
    }
}

pub(super) fn consumers(group: &GroupState) -> Vec<ConsumerStatus> {
    let now = Instant::now();
    let pending = group.log.pending.values();
    let mut pending_of: BTreeMap<&ConsumerName, u64> = BTreeMap::new();
    for pending in pending.chain(group.redelivered.pending.values()) {
        *pending_of.entry(&pending.consumer).or_default() += 1;
    }
    let consumers = group.consumers.iter();
    consumers
        .map(|(consumer, active)| ConsumerStatus {
            consumer: consumer.clone(),
            in_flight: pending_of.get(consumer).copied().unwrap_or(0),
            idle_for: now.saturating_duration_since(*active),
        })
        .collect()
}

impl Inspect for MemoryAdapter {
    fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
        turn(|| Ok(()))
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        turn(|| Ok(()))
    }

    fn servers(&self) -> BoxFuture<'_, Result<Vec<ServerInfo>, Error>> {
        turn(|| Ok(Vec::new()))
    }

    fn migrations(&self) -> BoxFuture<'_, Result<Vec<Migration>, Error>> {
        turn(|| Ok(Vec::new()))
    }

    fn status<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let state = space.topics.get(at.topic())?;
                let groups = state.groups.iter();
                Some(TopicStatus {
                    topic: at.topic().clone(),
                    entries: state.log.len(),
                    settings: state.settings.unwrap_or_default(),
                    groups: groups
                        .map(|(name, group)| group_status(state, name, group))
                        .collect(),
                })
            }))
        })
    }

    fn consumers<'a>(
        &'a self,
        at: &'a GroupAt,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let group = space.group(at);
                group.map_or_else(Vec::new, |group| consumers(group))
            }))
        })
    }
}
