//! Housekeeping for topics without a consumer of Redstart: what every consumer does beside its work.

use std::time::Duration;

use serde::Serialize;

use super::topics::Topics;
use crate::domain::{Error, ErrorKind, Topic, TopicSettings};
use crate::store::{GroupAt, MAX_BATCH, Partition};

/// Another process trimmed the topic less than this ago: it has that turn.
const TURN: Duration = Duration::from_millis(500);
/// A call removed nearly as many entries as it may: there are more.
const MORE: u64 = 90_000;
/// A consumer that was inactive for this long is gone.
const PRUNE_AFTER: Duration = Duration::from_secs(300);

/// What a round of housekeeping did for one topic.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Housekeeping {
    /// The topic.
    pub topic: Topic,
    /// Entries that it removed from the log.
    pub removed: u64,
    /// Due retries that it brought back to their groups.
    pub promoted: u64,
    /// Consumers without deliveries that it removed from their groups.
    pub pruned: u64,
}

impl Topics {
    /// Keeps house for a topic, once: removes the entries that its retention no longer asks for, brings
    /// due retries back to their groups, and removes consumers that are gone.
    ///
    /// Every consumer of Redstart does this beside its work. A topic that only programs without
    /// Redstart read needs it from elsewhere: run `redstart janitor`, or call this every few seconds.
    /// Several processes may do so at once. Entries that a group has not settled stay.
    ///
    /// A topic that only other programs wrote to gets the settings of a new one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic does not exist; else the kinds of the connection. A
    /// round that failed can be repeated.
    pub async fn keep_house(&self, topic: &Topic) -> Result<Housekeeping, Error> {
        let at = Partition::of(topic);
        let status = self.store.inspect().status(&at).await?;
        let exists = status.is_some_and(|one| one.entries > 0 || !one.groups.is_empty());
        if !exists && !self.store.topics().list().await?.contains(topic) {
            let rule = "does not exist";
            return Err(Error::new(ErrorKind::NotFound, "topic", rule).on(topic.as_str()));
        }
        // The settings hold when the topic was trimmed.
        let settings = TopicSettings::default();
        self.store.topics().ensure_topic(topic, settings).await?;
        let mut done = Housekeeping {
            topic: topic.clone(),
            removed: 0,
            promoted: 0,
            pruned: 0,
        };
        let mut pause = TURN;
        loop {
            let removed = self.store.topics().trim_in_turn(&at, pause).await?;
            done.removed += removed;
            if removed < MORE {
                break;
            }
            pause = Duration::ZERO;
        }
        for group in self.groups(topic).await? {
            let at = GroupAt::of(topic, &group.group);
            self.keep_house_of(&at, &mut done).await?;
        }
        Ok(done)
    }

    async fn keep_house_of(&self, at: &GroupAt, done: &mut Housekeeping) -> Result<(), Error> {
        loop {
            let promoted = self.store.schedule().promote(at, MAX_BATCH).await?;
            done.promoted += promoted.moved;
            let moved = promoted.moved + promoted.published + promoted.missing;
            if moved < MAX_BATCH as u64 {
                break;
            }
        }
        let topics = self.store.topics();
        topics.trim_redelivery(at).await?;
        done.pruned += topics.prune_consumers(at, PRUNE_AFTER, None).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::{Durability, Group, Timestamp, When};
    use crate::store::{NewLater, StartFrom};
    use crate::wire::Decoder;

    #[tokio::test]
    async fn all_messages_that_are_due_are_published() {
        let store = MemoryStore::new().store(None);
        let topics = Topics::new(store.clone(), Decoder::default());
        let (topic, group) = (Topic::new("orders").unwrap(), Group::new("g").unwrap());
        topics
            .create(&topic, TopicSettings::default())
            .await
            .unwrap();
        let at = GroupAt::of(&topic, &group);
        let start = StartFrom::Beginning;
        store.topics().create_group(&at, start).await.unwrap();
        let due: Vec<NewLater> = (0..2 * MAX_BATCH + 1)
            .map(|n| NewLater {
                id: n.to_string().parse().unwrap(),
                due: When::At(Timestamp::from_millis(1).unwrap()),
                keeps: false,
                name: "json",
                value: "{}".into(),
                slot: None,
            })
            .collect();
        store
            .later()
            .put(&at.partition, Durability::Accepted, &due)
            .await
            .unwrap();
        topics.keep_house(&topic).await.unwrap();
        let left = store.later().list(&at.partition, None, 1).await.unwrap();
        assert_eq!(left.entries, []);
    }
}
