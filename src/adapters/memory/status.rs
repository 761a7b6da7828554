//! Looking at topics and groups.

use super::adapter::MemoryAdapter;
use super::store::{GroupState, TopicState};
use crate::domain::{EntryId, Group, Topic};
use crate::store::{Fields, GroupStatus, TopicStatus};

impl MemoryAdapter {
    pub(super) fn list_topics(&self) -> Vec<Topic> {
        self.with(|space| {
            let known = space
                .topics
                .iter()
                .filter(|(_, state)| state.settings.is_some());
            known.map(|(topic, _)| topic.clone()).collect()
        })
    }

    pub(super) fn topic_status(&self, topic: &Topic) -> Option<TopicStatus> {
        self.with(|space| {
            let state = space.topics.get(topic)?;
            let groups = state.groups.iter();
            Some(TopicStatus {
                topic: topic.clone(),
                entries: state.log.len(),
                settings: state.settings.unwrap_or_default(),
                groups: groups
                    .map(|(name, group)| group_status(state, name, group))
                    .collect(),
            })
        })
    }

    pub(super) fn browse_log(
        &self,
        topic: &Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> Vec<(EntryId, Fields)> {
        self.with(|space| {
            let Some(state) = space.topics.get(topic) else {
                return Vec::new();
            };
            state.log.after(after).take(max).cloned().collect()
        })
    }

    pub(super) fn newest_entry(&self, topic: &Topic) -> Option<EntryId> {
        self.with(|space| space.topics.get(topic)?.log.newest())
    }
}

pub(super) fn group_status(topic: &TopicState, name: &Group, group: &GroupState) -> GroupStatus {
    let redo = group.redone.lag(&group.redo);
    GroupStatus {
        group: name.clone(),
        lag: group.log.lag(&topic.log),
        in_flight: (group.log.pending.len() + group.redone.pending.len()) as u64,
        scheduled: group.scheduled.len() as u64 + redo,
        dead: group.dead.len() as u64,
        consumers: group.consumers.len() as u64,
    }
}
