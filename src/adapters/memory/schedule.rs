//! Retries and snoozed messages that are not due yet.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::adapter::{MemoryAdapter, turn};
use super::state::{GroupState, TopicState, redelivery_entry};
use crate::domain::{BoxFuture, Error, Timestamp};
use crate::store::{DeliveryId, GroupAt, MAX_BATCH, Promoted, Schedule, Scheduled, ScheduledPage};

impl MemoryAdapter {
    /// Changes a group, and wakes its readers where the change says so.
    fn change_and_wake<T>(
        &self,
        at: &GroupAt,
        change: impl FnOnce(&mut GroupState) -> (T, bool),
    ) -> Option<T> {
        let (changed, wake): (T, Option<Arc<Notify>>) = self.with(|space| {
            let topic = space.topics.get_mut(&at.partition)?;
            let (changed, wakes) = change(topic.groups.get_mut(&at.group)?);
            Some((changed, wakes.then(|| Arc::clone(&topic.arrived))))
        })?;
        if let Some(arrived) = wake {
            arrived.notify_waiters();
        }
        Some(changed)
    }
}

fn promote(group: &mut GroupState, now: u64, max: usize) -> Promoted {
    let mut promoted = Promoted::default();
    while promoted.moved < max.min(MAX_BATCH) as u64
        && let Some(first) = group.scheduled.first_entry()
        && first.key().0 <= now
    {
        let entry = redelivery_entry(first.remove());
        group.redelivery.push(now, entry);
        promoted.moved += 1;
    }
    let next = group.scheduled.keys().next();
    promoted.next = next.map(|(due, _)| Duration::from_millis(due.saturating_sub(now)));
    promoted
}

/// When each is due.
fn due_times(scheduled: &BTreeMap<(u64, DeliveryId), Bytes>) -> BTreeMap<DeliveryId, u64> {
    let keys = scheduled.keys();
    keys.map(|(due, receipt)| (*receipt, *due)).collect()
}

/// Takes each receipt out of the schedule; `then` gets its redelivery. For each, whether it was
/// scheduled.
fn take_each(
    group: &mut GroupState,
    receipts: &[DeliveryId],
    mut then: impl FnMut(&mut GroupState, Bytes),
) -> Vec<bool> {
    let mut due_times = due_times(&group.scheduled);
    let mut take = |receipt: &DeliveryId| {
        let due = due_times.remove(receipt);
        let taken = due.and_then(|due| group.scheduled.remove(&(due, *receipt)));
        taken.map(|redelivery| then(group, redelivery)).is_some()
    };
    receipts.iter().map(&mut take).collect()
}

pub(super) fn time(millis: u64) -> Timestamp {
    let time = i64::try_from(millis).ok();
    time.and_then(|millis| Timestamp::from_millis(millis).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Appends due messages to the topic's log. Wakes its readers.
pub(super) fn promote_later(topic: &mut TopicState, now: u64, max: usize) -> Promoted {
    let mut promoted = Promoted::default();
    while promoted.published < max.min(MAX_BATCH) as u64
        && let Some(fields) = topic.later.pop_due(now)
    {
        topic.log.push(now, fields);
        promoted.published += 1;
    }
    if promoted.published > 0 {
        topic.arrived.notify_waiters();
    }
    let next = topic.later.first_due();
    promoted.next = next.map(|due| until(due, now));
    promoted
}

pub(super) fn until(due: u64, now: u64) -> Duration {
    Duration::from_millis(due.saturating_sub(now))
}

impl Schedule for MemoryAdapter {
    fn promote<'a>(
        &'a self,
        at: &'a GroupAt,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        turn(move || {
            let now = self.shared.now();
            let promoted = self.change_and_wake(at, |group| {
                let promoted = promote(group, now, max);
                (promoted, promoted.moved > 0)
            });
            let mut promoted = promoted.unwrap_or_default();
            let messages = self.with(|space| {
                let topic = space.topics.get_mut(&at.partition)?;
                Some(promote_later(topic, now, max))
            });
            if let Some(messages) = messages {
                promoted.published = messages.published;
                let next = [promoted.next, messages.next];
                promoted.next = next.into_iter().flatten().min();
            }
            Ok(promoted)
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a GroupAt,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<ScheduledPage, Error>> {
        let from = after.map_or(Bound::Unbounded, |(due, receipt)| {
            Bound::Excluded((u64::try_from(due.as_millis()).unwrap_or(0), receipt))
        });
        turn(move || {
            let entries = self.with(|space| {
                let group = space.group(at).into_iter();
                let range = group.flat_map(|group| group.scheduled.range((from, Bound::Unbounded)));
                let scheduled = range.map(|((due, receipt), redelivery)| Scheduled {
                    receipt: *receipt,
                    due: time(*due),
                    redelivery: redelivery.clone(),
                });
                scheduled.take(max).collect()
            });
            let now = self.shared.clock.now();
            Ok(ScheduledPage { now, entries })
        })
    }

    fn run_now<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || {
            let now = self.shared.now();
            let moved = self.change_and_wake(at, |group| {
                let moved = take_each(group, receipts, |group, redelivery| {
                    group.redelivery.push(now, redelivery_entry(redelivery));
                });
                (moved, true)
            });
            Ok(moved.unwrap_or_else(|| vec![false; receipts.len()]))
        })
    }

    fn cancel<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || {
            let removed =
                self.change_and_wake(at, |group| (take_each(group, receipts, |_, _| {}), false));
            Ok(removed.unwrap_or_else(|| vec![false; receipts.len()]))
        })
    }
}
