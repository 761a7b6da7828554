//! The bells of groups. They ring for messages for later, whichever container has set them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::domain::{Group, Namespace, Topic};
use crate::store::{Bell, GroupAt, Ring};

type BellsOfTopic = HashMap<Group, Weak<Bell>>;

/// The bells that somebody holds, by namespace and topic.
#[derive(Debug, Default)]
pub(super) struct Bells(Mutex<HashMap<(Option<Namespace>, Topic), BellsOfTopic>>);

impl Bells {
    pub(super) fn bell_of(&self, namespace: &Option<Namespace>, at: &GroupAt) -> Arc<Bell> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|_, bells| {
            bells.retain(|_, bell| bell.strong_count() > 0);
            !bells.is_empty()
        });
        let topic = (namespace.clone(), at.topic().clone());
        let known = topics.entry(topic).or_default();
        let known = known.entry(at.group.clone()).or_default();
        known.upgrade().unwrap_or_else(|| {
            let bell = Arc::<Bell>::default();
            *known = Arc::downgrade(&bell);
            bell
        })
    }

    pub(super) fn ring_due(&self, namespace: &Option<Namespace>, topic: &Topic) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bells) = topics.get(&(namespace.clone(), topic.clone())) {
            for bell in bells.values().filter_map(Weak::upgrade) {
                bell.ring(Ring::Due);
            }
        }
    }
}
