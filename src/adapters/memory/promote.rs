//! Bringing due retries back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::adapter::MemoryAdapter;
use crate::domain::{Group, Topic};
use crate::store::{Fields, MAX_BATCH, Promoted};
use crate::wire::redelivery::RETRY_FIELD;

/// An entry of a redo lane.
pub(super) fn redo_entry(redelivery: Bytes) -> Fields {
    vec![(Bytes::from_static(RETRY_FIELD), redelivery)]
}

impl MemoryAdapter {
    pub(super) fn promote_due(&self, topic: &Topic, group: &Group, max: usize) -> Promoted {
        let now = self.shared.now();
        let (promoted, arrived) = self.with(|space| {
            let mut promoted = Promoted::default();
            let Some(topic) = space.topics.get_mut(topic) else {
                return (promoted, None);
            };
            let Some(group) = topic.groups.get_mut(group) else {
                return (promoted, None);
            };
            while promoted.moved < max.min(MAX_BATCH) as u64
                && let Some(first) = group.scheduled.first_entry()
                && first.key().0 <= now
            {
                group.redo.push(now, redo_entry(first.remove()));
                promoted.moved += 1;
            }
            let next = group.scheduled.keys().next();
            promoted.next = next.map(|(due, _)| Duration::from_millis(due.saturating_sub(now)));
            (promoted, Some(Arc::clone(&topic.arrived)))
        });
        if let Some(arrived) = arrived.filter(|_| promoted.moved > 0) {
            arrived.notify_waiters();
        }
        promoted
    }
}
