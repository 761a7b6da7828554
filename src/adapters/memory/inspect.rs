//! The state of topics, groups and consumers.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::adapter::{MemoryAdapter, turn};
use super::sequence::Cursor;
use super::state::{GroupState, TopicState};
use crate::domain::{
    BoxFuture, ConsumerName, EntryId, Error, Group, Migration, Placement, Timestamp,
};
use crate::store::{
    ConsumerStatus, DeliveryId, GroupAt, GroupProgress, GroupStatus, Inspect, LONGEST_UNSETTLED,
    Lane, LogProgress, Partition, ServerInfo, TopicStatus, Unsettled,
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
        owned: group.owned.is_some(),
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

fn progress(topic: &TopicState, now: u64) -> LogProgress {
    let groups = topic.groups.iter();
    LogProgress {
        last: topic.log.last(),
        // Only this adapter removes entries, and never one that a group still needs.
        appended: None,
        trimmed: topic.trimmed.and_then(|at| {
            let ago = u64::try_from(at.elapsed().as_millis()).ok()?;
            Timestamp::from_millis(i64::try_from(now.saturating_sub(ago)).ok()?).ok()
        }),
        groups: groups
            .map(|(name, group)| GroupProgress {
                group: name.clone(),
                delivered: group.log.delivered,
                read: None,
                lease: Some(group.lease).filter(|lease| !lease.is_zero()),
                unsettled: unsettled(Lane::Log, &group.log)
                    .chain(unsettled(Lane::Redelivery, &group.redelivered))
                    .collect(),
            })
            .collect(),
    }
}

fn unsettled(lane: Lane, cursor: &Cursor) -> impl Iterator<Item = Unsettled> {
    let now = Instant::now();
    let pending = cursor.pending.iter().take(LONGEST_UNSETTLED);
    pending.map(move |(id, pending)| Unsettled {
        id: DeliveryId::new(lane, *id),
        consumer: pending.consumer.to_string(),
        idle_for: pending
            .since
            .map(|since| now.saturating_duration_since(since)),
    })
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

    fn server_of<'a>(&'a self, _: &'a Partition) -> BoxFuture<'a, Result<Option<String>, Error>> {
        turn(|| Ok(None))
    }

    fn migrations(&self) -> BoxFuture<'_, Result<Vec<Migration>, Error>> {
        turn(|| Ok(Vec::new()))
    }

    fn placement(&self) -> BoxFuture<'_, Result<Option<Placement>, Error>> {
        turn(|| Ok(self.with(|space| space.placement)))
    }

    fn status<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let state = space.topics.get(at)?;
                let groups = state.groups.iter();
                Some(TopicStatus {
                    topic: at.topic().clone(),
                    entries: state.log.len(),
                    later: state.later.len(),
                    settings: state.settings.unwrap_or_default(),
                    groups: groups
                        .map(|(name, group)| group_status(state, name, group))
                        .collect(),
                })
            }))
        })
    }

    fn progress<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<LogProgress>, Error>> {
        turn(move || {
            let now = self.shared.now();
            Ok(self.with(|space| {
                let state = space.topics.get(at)?;
                let is_empty = state.log.last() == EntryId::default() && state.groups.is_empty();
                (!is_empty).then(|| progress(state, now))
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
