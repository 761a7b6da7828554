//! Looking at topics and groups, and making topics.

use std::sync::Arc;

use crate::backend::{Backend, Fields, GroupStatus, TopicStatus};
use crate::codec::{Limits, Undecodable, decode_entry};
use crate::domain::{EntryId, Envelope, Error, ErrorKind, Topic, TopicSettings};

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

/// Looks at topics and groups, and makes topics. Consumes nothing.
#[derive(Clone, Debug)]
pub struct Admin {
    backend: Arc<dyn Backend>,
    limits: Limits,
}

impl Admin {
    pub(crate) fn new(backend: Arc<dyn Backend>, limits: Limits) -> Self {
        Self { backend, limits }
    }

    /// Creates a topic with settings. Publishing and subscribing create one with the defaults.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the topic exists with other settings, which keep holding.
    pub async fn create_topic(&self, topic: &Topic, settings: TopicSettings) -> Result<(), Error> {
        let held = self.backend.ensure_topic(topic, settings).await?;
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
    pub async fn topics(&self) -> Result<Vec<TopicStatus>, Error> {
        let mut all = Vec::new();
        for topic in self.backend.topics().await? {
            all.extend(self.backend.status(&topic).await?);
        }
        Ok(all)
    }

    /// Where a topic and its groups stand; `None` when there is no such topic.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn topic(&self, topic: &Topic) -> Result<Option<TopicStatus>, Error> {
        self.backend.status(topic).await
    }

    /// Where the groups of a topic stand, by name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such topic.
    pub async fn groups(&self, topic: &Topic) -> Result<Vec<GroupStatus>, Error> {
        match self.backend.status(topic).await? {
            Some(status) => Ok(status.groups),
            None => {
                let rule = "there is no such topic";
                Err(Error::new(ErrorKind::NotFound, "groups", rule).on(topic.as_str()))
            }
        }
    }

    /// Up to `max` entries of a topic after an id, oldest first. Consumes nothing.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn browse(
        &self,
        topic: &Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let entries = self.backend.browse(topic, after, max).await?;
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
        let entries = self.backend.latest(topic, max).await?;
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
    pub async fn newest(&self, topic: &Topic) -> Result<Option<EntryId>, Error> {
        self.backend.newest(topic).await
    }
}
