//! Publishing: appending to a log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::adapter::MemoryAdapter;
use crate::domain::{EntryId, Topic, TopicSettings, whole_millis};
use crate::store::{Appended, Identified};

impl MemoryAdapter {
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

    pub(super) fn append_identified(
        &self,
        topic: &Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> Vec<Appended> {
        let window = whole_millis(window);
        let (appended, arrived) = self.with(|space| {
            let state = space.topics.entry(topic.clone()).or_default();
            let now = self.shared.now();
            let appended = entries
                .into_iter()
                .map(|Identified { id, name, value }| {
                    if let Some(id) = state.ids.within(id, window, now) {
                        return Appended {
                            id,
                            duplicate: true,
                        };
                    }
                    let fields = vec![(Bytes::from_static(name.as_bytes()), value)];
                    let entry = state.log.push(now, fields);
                    state.ids.remember(id, entry, window, now);
                    Appended {
                        id: entry,
                        duplicate: false,
                    }
                })
                .collect();
            (appended, Arc::clone(&state.arrived))
        });
        arrived.notify_waiters();
        appended
    }
}
