//! Publishing: appending to a log.

use std::sync::Arc;

use bytes::Bytes;

use super::backend::MemoryBackend;
use crate::domain::{EntryId, Topic, TopicSettings};

impl MemoryBackend {
    pub(super) fn create_topic(&self, topic: &Topic, settings: TopicSettings) -> TopicSettings {
        self.with(|space| {
            let state = space.topics.entry(topic.clone()).or_default();
            *state.settings.get_or_insert(settings)
        })
    }

    pub(super) fn append_entries(
        &self,
        topic: &Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> Vec<EntryId> {
        let (ids, arrived) = self.with(|space| {
            let state = space.topics.entry(topic.clone()).or_default();
            // Under the lock, so that ids grow as the clock does.
            let now = self.shared.now();
            let ids = entries
                .into_iter()
                .map(|(name, value)| {
                    let fields = vec![(Bytes::from_static(name.as_bytes()), value)];
                    state.log.push(now, fields)
                })
                .collect();
            (ids, Arc::clone(&state.arrived))
        });
        arrived.notify_waiters();
        ids
    }
}
