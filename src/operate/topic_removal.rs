//! Removing a topic with its groups: planned, confirmed, run.

use std::fmt;

use serde::Serialize;

use crate::domain::{Error, ErrorKind, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::group_removal::{describe, is_in_use};
use crate::operate::plan::{Confirmed, Plan};
use crate::operate::topics::Topics;
use crate::store::{GroupStatus, TopicRemoval};

/// What a planned removal of a topic will do. [`Display`](fmt::Display) says it in one line for each
/// fact.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedTopicRemoval {
    /// The topic.
    pub topic: Topic,
    /// Entries in its log, which go for good.
    pub entries: u64,
    /// Messages for later, which are not published any more.
    pub later: u64,
    /// Its groups and the messages that they would lose.
    pub groups: Vec<GroupStatus>,
    /// Consumers of all groups that called the store within [`Topics::LIVE_WITHIN`].
    pub live_consumers: u64,
    /// Whether the removal goes on although the topic is in use.
    pub force: bool,
    /// Whether the removal will be refused: a group is in use, or messages wait
    /// for later, and `force` is not set.
    pub refused: bool,
}

impl fmt::Display for PlannedTopicRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = counted(self.entries, "entry", "entries");
        let groups = counted(self.groups.len() as u64, "group", "groups");
        let topic = &self.topic;
        write!(f, "will remove topic {topic} for good: {entries}, {groups}")?;
        if self.later > 0 {
            let later = counted(self.later, "message", "messages");
            write!(f, "\n{later} for later will never be published")?;
        }
        for group in &self.groups {
            write!(f, "\n  {}: {}", group.group, describe(group, 0))?;
        }
        if self.live_consumers > 0 {
            let live = counted(self.live_consumers, "live consumer", "live consumers");
            write!(
                f,
                "\n{live} will create the topic and its groups again, empty"
            )?;
        }
        Ok(())
    }
}

impl Topics {
    /// Plans the removal of a topic: its entries, its settings, and its groups with their retries and
    /// dead letters. The operator confirms with the topic's name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic does not exist, and the kinds of the connection.
    pub async fn plan_topic_removal(
        &self,
        topic: &Topic,
        force: bool,
    ) -> Result<Plan<PlannedTopicRemoval>, Error> {
        let status = self.existing(topic).await?;
        let (mut live_consumers, mut in_use) = (0, status.later > 0);
        for group in &status.groups {
            let consumers = self.consumers(topic, &group.group).await?;
            let live = consumers
                .iter()
                .filter(|one| one.idle_for < Self::LIVE_WITHIN);
            let live = live.count() as u64;
            in_use |= is_in_use(group, live);
            live_consumers += live;
        }
        let planned = PlannedTopicRemoval {
            topic: topic.clone(),
            entries: status.entries,
            later: status.later,
            groups: status.groups,
            live_consumers,
            force,
            refused: in_use && !force,
        };
        Ok(Plan::new(planned, Some(topic.to_string())))
    }

    /// Runs a confirmed removal: group by group, then the topic. The store checks and removes each of
    /// them in one step. Without `force` it keeps a topic that has messages for later, and a group that
    /// is in use, and then the topic; groups that came before are gone. Stop publishers and consumers
    /// first: they create the topic again, and a message for later that is scheduled during the removal
    /// of its topic goes with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic does not exist any more, and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// Some groups may be gone when the future is dropped.
    pub async fn run_topic_removal(
        &self,
        plan: Confirmed<PlannedTopicRemoval>,
        operator: &str,
    ) -> Result<TopicRemoval, Error> {
        let plan = plan.into_plan();
        let (topic, force) = (&plan.topic, plan.force);
        let status = self.existing(topic).await?;
        if status.later > 0 && !force {
            let mut kept = TopicRemoval::new(status.entries, status.groups.len() as u64);
            kept.removed = false;
            return Ok(kept);
        }
        for status in status.groups {
            match self.remove_group(topic, &status.group, force).await {
                // Another operator removed it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removal => drop(removal?),
            }
        }
        let Some(removal) = self.store.topics().remove_topic(topic).await? else {
            let error = Error::new(ErrorKind::NotFound, "remove topic", "does not exist");
            return Err(error.on(topic.as_str()));
        };
        let TopicRemoval {
            removed, entries, ..
        } = removal;
        tracing::warn!(%topic, operator, force, removed, entries, "topic removed");
        Ok(removal)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::{Durability, TopicSettings, When};
    use crate::store::{NewLater, Partition};
    use crate::wire::Decoder;

    #[tokio::test]
    async fn a_topic_with_messages_for_later_stays_without_force() {
        let store = MemoryStore::new().store(None);
        let topics = Topics::new(store.clone(), Decoder::default());
        let topic = Topic::new("orders").unwrap();
        topics
            .create(&topic, TopicSettings::default())
            .await
            .unwrap();
        let plan = topics.plan_topic_removal(&topic, false).await.unwrap();
        assert!(!plan.preview().refused);
        // A publisher comes before the operator has confirmed.
        let later = NewLater {
            id: "a".parse().unwrap(),
            due: When::After(Duration::from_secs(3600)),
            keeps: false,
            name: "json",
            value: "{}".into(),
            slot: None,
        };
        let at = Partition::of(&topic);
        store
            .later()
            .put(&at, Durability::Accepted, &[later])
            .await
            .unwrap();
        let confirmed = plan.confirm("orders").unwrap();
        let removal = topics.run_topic_removal(confirmed, "ann").await.unwrap();
        assert!(!removal.removed, "{removal:?}");
        let left = store.later().list(&at, None, 10).await.unwrap();
        assert_eq!(left.entries.len(), 1);

        let plan = topics.plan_topic_removal(&topic, true).await.unwrap();
        let confirmed = plan.confirm("orders").unwrap();
        let removal = topics.run_topic_removal(confirmed, "ann").await.unwrap();
        assert!(removal.removed && topics.get(&topic).await.unwrap().is_none());
    }
}
