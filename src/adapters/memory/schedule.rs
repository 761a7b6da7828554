//! What waits for its time: looking at it, bringing it back early, removing it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::adapter::MemoryAdapter;
use super::promote::redo_entry;
use crate::domain::{Group, Timestamp, Topic};
use crate::store::{DeliveryId, Schedule, Scheduled};

impl MemoryAdapter {
    pub(super) fn list_scheduled(
        &self,
        topic: &Topic,
        group: &Group,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> Schedule {
        let from = after.map_or(Bound::Unbounded, |(due, receipt)| {
            Bound::Excluded((u64::try_from(due.as_millis()).unwrap_or(0), receipt))
        });
        let entries = self.with(|space| {
            let group = space.group(topic, group).into_iter();
            let waiting = group.flat_map(|group| group.scheduled.range((from, Bound::Unbounded)));
            let scheduled = waiting.map(|((due, receipt), redelivery)| Scheduled {
                receipt: *receipt,
                due: time(*due),
                redelivery: redelivery.clone(),
            });
            scheduled.take(max).collect()
        });
        Schedule {
            now: self.shared.clock.now(),
            entries,
        }
    }

    pub(super) fn run_scheduled_now(
        &self,
        topic: &Topic,
        group: &Group,
        receipts: &[DeliveryId],
    ) -> Vec<bool> {
        let now = self.shared.now();
        let (moved, arrived) = self.with(|space| {
            let found = space.topics.get_mut(topic).and_then(|topic| {
                let group = topic.groups.get_mut(group)?;
                Some((Arc::clone(&topic.arrived), group))
            });
            let Some((arrived, group)) = found else {
                return (vec![false; receipts.len()], None);
            };
            let mut places = places(&group.scheduled);
            let mut hasten = |receipt: &DeliveryId| {
                let redelivery = places
                    .remove(receipt)
                    .and_then(|due| group.scheduled.remove(&(due, *receipt)));
                redelivery
                    .map(|redelivery| group.redo.push(now, redo_entry(redelivery)))
                    .is_some()
            };
            let moved = receipts.iter().map(&mut hasten).collect();
            (moved, Some(arrived))
        });
        if let Some(arrived) = arrived {
            arrived.notify_waiters();
        }
        moved
    }

    pub(super) fn cancel_scheduled(
        &self,
        topic: &Topic,
        group: &Group,
        receipts: &[DeliveryId],
    ) -> Vec<bool> {
        self.with(|space| {
            let Some(group) = space.group(topic, group) else {
                return vec![false; receipts.len()];
            };
            let mut places = places(&group.scheduled);
            let mut cancel = |receipt: &DeliveryId| {
                let due = places.remove(receipt);
                due.is_some_and(|due| group.scheduled.remove(&(due, *receipt)).is_some())
            };
            receipts.iter().map(&mut cancel).collect()
        })
    }
}

/// When each is due.
fn places(scheduled: &BTreeMap<(u64, DeliveryId), Bytes>) -> BTreeMap<DeliveryId, u64> {
    let places = scheduled.keys();
    places.map(|(due, receipt)| (*receipt, *due)).collect()
}

fn time(millis: u64) -> Timestamp {
    let time = i64::try_from(millis).ok();
    time.and_then(|millis| Timestamp::from_millis(millis).ok())
        .unwrap_or(Timestamp::MAX)
}
