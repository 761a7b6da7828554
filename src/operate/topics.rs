//! Looking at topics and groups, making topics, removing groups.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{EntryId, Envelope, Error, ErrorKind, Group, Topic, TopicSettings};
use crate::store::{
    ConsumerStatus, Fields, GroupAt, GroupRemoval, GroupStatus, Partition, Store, TopicStatus,
};
use crate::wire::{Limits, Undecodable, decode_entry};

/// An entry of a topic, looked at without a group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// The message, or why it cannot be read.
    pub envelope: Result<Envelope, Undecodable>,
    /// Its fields, byte for byte.
    pub fields: Fields,
}

/// Looks at topics and groups, makes topics, removes groups. Consumes nothing.
#[derive(Clone, Debug)]
pub struct Topics {
    store: Arc<dyn Store>,
    limits: Limits,
}

impl Topics {
    /// A consumer that was heard of within this time counts as living, 60 seconds: one that works
    /// is heard of every few seconds.
    pub const LIVE_WITHIN: Duration = Duration::from_secs(60);

    pub(crate) fn new(store: Arc<dyn Store>, limits: Limits) -> Self {
        Self { store, limits }
    }

    /// Creates a topic with settings. Publishing and subscribing create one with the defaults.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the topic exists with other settings, which keep holding.
    pub async fn create(&self, topic: &Topic, settings: TopicSettings) -> Result<(), Error> {
        let held = self.store.topics().ensure_topic(topic, settings).await?;
        if held == settings {
            return Ok(());
        }
        let rule = format!(
            "exists with retention {} and backlog limit {}, which were fixed when it was created",
            held.retention(),
            held.backlog_limit()
        );
        Err(Error::new(ErrorKind::Invalid, "create topic", rule).on(topic.as_str()))
    }

    /// The topics of the namespace, by name, each with its groups.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn list(&self) -> Result<Vec<TopicStatus>, Error> {
        let mut all = Vec::new();
        for topic in self.store.topics().list().await? {
            all.extend(self.store.inspect().status(&Partition::of(&topic)).await?);
        }
        Ok(all)
    }

    /// Where a topic and its groups stand; `None` when there is no such topic.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn get(&self, topic: &Topic) -> Result<Option<TopicStatus>, Error> {
        self.store.inspect().status(&Partition::of(topic)).await
    }

    /// Where the groups of a topic stand, by name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such topic.
    pub async fn groups(&self, topic: &Topic) -> Result<Vec<GroupStatus>, Error> {
        match self.store.inspect().status(&Partition::of(topic)).await? {
            Some(status) => Ok(status.groups),
            None => {
                let rule = "there is no such topic";
                Err(Error::new(ErrorKind::NotFound, "groups", rule).on(topic.as_str()))
            }
        }
    }

    /// The consumers that a group knows, alive or not, by name; none where there is no such group.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn consumers(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<Vec<ConsumerStatus>, Error> {
        self.store
            .inspect()
            .consumers(&GroupAt::of(topic, group))
            .await
    }

    /// Removes a group for good, with all that is its own: its cursor, what it holds, its retries,
    /// its dead letters. The topic's entries and other groups stay as they are.
    ///
    /// A group for which anything waits, dead letters included, or of which a consumer has been
    /// heard within [`LIVE_WITHIN`](Self::LIVE_WITHIN), is left as it is unless `force` is set:
    /// [`GroupRemoval::removed`] tells. The two are one step, so that nothing can come in between.
    /// With `force`, consumers that live make the group anew and begin at the oldest entry that
    /// the topic still holds: stop them first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such group, and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// The group may have been removed when the future is dropped.
    pub async fn remove_group(
        &self,
        topic: &Topic,
        group: &Group,
        force: bool,
    ) -> Result<GroupRemoval, Error> {
        let (topics, at) = (self.store.topics(), GroupAt::of(topic, group));
        let found = topics.remove_group(&at, Self::LIVE_WITHIN, force);
        let Some(removal) = found.await? else {
            let rule = "there is no such group";
            let error = Error::new(ErrorKind::NotFound, "remove group", rule);
            return Err(error.on(format!("{topic}/{group}")));
        };
        if removal.removed {
            let GroupStatus {
                lag,
                in_flight,
                scheduled,
                dead,
                ..
            } = removal.status;
            tracing::warn!(%topic, %group, force, lag, in_flight, scheduled, dead, "group removed");
            metrics::counter!("redstart_groups_removed_total", "topic" => topic.to_string(), "group" => group.to_string())
                .increment(1);
        }
        Ok(removal)
    }

    /// Up to `max` entries of a topic after an id, oldest first. Consumes nothing.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn entries_after(
        &self,
        topic: &Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let entries = self
            .store
            .log()
            .browse(&Partition::of(topic), after, max)
            .await?;
        Ok(self.read(topic, entries))
    }

    /// The newest entries of a topic, up to `max`, oldest first. Consumes nothing.
    ///
    /// What comes after them is [`browse`](Self::browse) after the id of the last one.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn latest(&self, topic: &Topic, max: usize) -> Result<Vec<Entry>, Error> {
        let entries = self.store.log().latest(&Partition::of(topic), max).await?;
        Ok(self.read(topic, entries))
    }

    fn read(&self, topic: &Topic, entries: Vec<(EntryId, Fields)>) -> Vec<Entry> {
        let read = |(id, fields): (EntryId, Fields)| {
            let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
            let envelope = decode_entry(topic, id, pairs, self.limits);
            Entry {
                id,
                envelope,
                fields,
            }
        };
        entries.into_iter().map(read).collect()
    }

    /// The id of a topic's newest entry, if it has one.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn newest_id(&self, topic: &Topic) -> Result<Option<EntryId>, Error> {
        self.store.log().newest(&Partition::of(topic)).await
    }
}
