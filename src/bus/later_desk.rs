//! What the scheduling of messages remembers between calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::backlog::nothing_appended;
use super::due_watch::DueWatch;
use crate::domain::{Error, Topic, TopicSettings};
use crate::store::Store;

/// How long a topic counts as existing without another look.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// What scheduling needs beside the pipeline of publishes.
#[derive(Debug)]
pub(super) struct LaterDesk {
    store: Arc<dyn Store>,
    /// Looks at topics to which this container has no subscription.
    pub(super) watch: DueWatch,
    known: Mutex<HashMap<Topic, Instant>>,
    /// When the number of a topic's partitions was asked for.
    counted: Mutex<HashMap<Topic, Instant>>,
}

impl LaterDesk {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            watch: DueWatch::new(Arc::clone(&store)),
            store,
            known: Mutex::default(),
            counted: Mutex::default(),
        }
    }

    /// Asks how many partitions a topic has, unless that was asked a moment ago: the store then goes by the
    /// number of a topic that was created again.
    pub(super) async fn know_partitions(&self, topic: &Topic) -> Result<(), Error> {
        let is_known = {
            let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted
                .get(topic)
                .is_some_and(|at| at.elapsed() < KNOWN_FOR)
        };
        if !is_known {
            let count = self.store.topics().partitions(topic).await?;
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            match count {
                Some(_) => counted.insert(topic.clone(), Instant::now()),
                None => counted.remove(topic),
            };
        }
        Ok(())
    }

    /// Creates a topic, unless this container knows it.
    pub(super) async fn ensure_topic(&self, topic: &Topic) -> Result<(), Error> {
        let is_known = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(topic).is_some_and(|at| at.elapsed() < KNOWN_FOR)
        };
        if !is_known {
            let settings = TopicSettings::default();
            let ensured = self.store.topics().ensure_topic(topic, settings).await;
            ensured.map_err(|error| nothing_appended(error, topic))?;
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(topic.clone(), Instant::now());
        }
        Ok(())
    }
}
