//! Retention: removing by floor, exactly.

use super::adapter::MemoryAdapter;
use crate::domain::{EntryId, Group, Retention, Topic, whole_millis};
use crate::store::Trimmed;

impl MemoryAdapter {
    pub(super) fn trim_log(&self, topic: &Topic) -> Trimmed {
        let now = self.shared.now();
        self.with(|space| {
            let Some(topic) = space.topics.get_mut(topic) else {
                return Trimmed::default();
            };
            // The smallest id that a group still needs: nothing from here on is removed.
            let floor = topic.groups.values().map(|group| group.log.floor()).min();
            let settled = |id: EntryId| floor.is_none_or(|floor| id < floor);
            let unsettled = topic.groups.values().map(|group| {
                let pending = group.log.pending.len() as u64;
                group.log.lag(&topic.log) + pending
            });
            let length = topic.log.len();
            let backlog = unsettled.max().unwrap_or(length).min(length);
            let removed = match topic.settings.unwrap_or_default().retention() {
                Retention::Settled => topic.log.trim(|id, _| floor.is_some() && settled(id)),
                Retention::Count(keep) => topic.log.trim(|id, len| len > keep && settled(id)),
                Retention::Age(age) => {
                    let oldest = now.saturating_sub(whole_millis(age));
                    topic.log.trim(|id, _| id.millis < oldest && settled(id))
                }
            };
            Trimmed {
                removed,
                length: topic.log.len(),
                backlog,
                known: topic.settings.is_some(),
            }
        })
    }

    pub(super) fn trim_redelivery_stream(&self, topic: &Topic, group: &Group) {
        self.with(|space| {
            if let Some(group) = space.group(topic, group) {
                let floor = group.redone.floor();
                group.redo.trim(|id, _| id < floor);
            }
        });
    }
}
