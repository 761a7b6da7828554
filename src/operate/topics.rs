//! Topics and groups: status, entries, creation.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{EntryId, Envelope, Error, ErrorKind, Group, Topic, TopicSettings};
use crate::operate::dead_letters::counted;
use crate::operate::log_pages;
use crate::operate::suggest::closest;
use crate::store::{ConsumerStatus, Fields, GroupAt, GroupStatus, Partition, Store, TopicStatus};
use crate::wire::{Decoder, Undecodable};

/// An entry of a topic, as read without a group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The entry's id.
    pub id: EntryId,
    /// The message, or why it is undecodable.
    pub envelope: Result<Envelope, Undecodable>,
    /// The entry's fields, byte for byte.
    pub fields: Fields,
}

/// Lists topics and groups, creates topics, removes groups. Consumes nothing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Topics {
    pub(super) store: Arc<dyn Store>,
    decoder: Decoder,
}

impl Topics {
    /// A consumer counts as live when it called the store within this time: 120 seconds. A running
    /// consumer calls at least every 100 seconds.
    pub const LIVE_WITHIN: Duration = Duration::from_secs(120);

    pub(crate) fn new(store: Arc<dyn Store>, decoder: Decoder) -> Self {
        Self { store, decoder }
    }

    /// Creates a topic with settings. Publishing and subscribing create a topic with the defaults.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the topic exists with other settings; it keeps them.
    pub async fn create(&self, topic: &Topic, settings: TopicSettings) -> Result<(), Error> {
        let stored = self.store.topics().ensure_topic(topic, settings).await?;
        if stored == settings {
            return Ok(());
        }
        let rule = format!(
            "exists with retention {}, backlog limit {} and {}; `redstart topics settings` changes the first two",
            stored.retention(),
            stored.backlog_limit(),
            counted(stored.partitions().into(), "partition", "partitions"),
        );
        Err(Error::new(ErrorKind::Invalid, "create topic", rule).on(topic.as_str()))
    }

    /// Lists the topics of the namespace with their groups, sorted by name.
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

    /// Lists the names of the namespace's topics, sorted.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn names(&self) -> Result<Vec<Topic>, Error> {
        self.store.topics().list().await
    }

    /// The status of a topic and its groups; `None` when the topic does not exist.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn get(&self, topic: &Topic) -> Result<Option<TopicStatus>, Error> {
        self.store.inspect().status(&Partition::of(topic)).await
    }

    /// The status of a topic's groups, sorted by name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic does not exist; the error names a topic that is spelt
    /// much like it.
    pub async fn groups(&self, topic: &Topic) -> Result<Vec<GroupStatus>, Error> {
        Ok(self.existing(topic).await?.groups)
    }

    /// The address of the primary of each of a topic's partitions, in their order, in a cluster; `None` for
    /// a partition whose slot no node serves. Empty outside a cluster, and where no node serves any of them.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn primaries(&self, topic: &TopicStatus) -> Result<Vec<Option<String>>, Error> {
        primaries(&*self.store, topic).await
    }

    /// The status of a topic's groups on each of its partitions, by group and partition.
    ///
    /// # Errors
    ///
    /// As [`groups`](Self::groups).
    pub async fn groups_by_partition(
        &self,
        topic: &Topic,
    ) -> Result<Vec<(u16, GroupStatus)>, Error> {
        let mut all = Vec::new();
        for at in self.existing(topic).await?.partitions() {
            // Of a topic that is removed meanwhile, nothing is left.
            let status = self.store.inspect().status(&at).await?;
            let groups = status.map(|status| status.groups).unwrap_or_default();
            all.extend(groups.into_iter().map(|group| (at.number(), group)));
        }
        all.sort_by(|(one, a), (other, b)| (&a.group, one).cmp(&(&b.group, other)));
        Ok(all)
    }

    /// The status of a topic that must exist.
    pub(super) async fn existing(&self, topic: &Topic) -> Result<TopicStatus, Error> {
        match self.get(topic).await? {
            Some(status) => Ok(status),
            None => Err(self.no_topic(topic).await),
        }
    }

    async fn no_topic(&self, topic: &Topic) -> Error {
        // A user without the right to list topics still learns that this one does not exist.
        let all = self.store.topics().list().await.unwrap_or_default();
        let rule = match closest(topic.as_str(), all.iter().map(Topic::as_str)) {
            Some(name) => format!("does not exist; did you mean {name}?"),
            None => "does not exist".to_owned(),
        };
        Error::new(ErrorKind::NotFound, "topic", rule).on(topic.as_str())
    }

    /// The status of one group.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic or the group does not exist; the error lists the
    /// groups that exist.
    pub async fn group(&self, topic: &Topic, group: &Group) -> Result<GroupStatus, Error> {
        let groups = self.groups(topic).await?;
        let names: Vec<&str> = groups.iter().map(|one| one.group.as_str()).collect();
        let rule = match closest(group.as_str(), names.iter().copied()) {
            Some(name) => format!("does not exist; did you mean {name}?"),
            None if names.is_empty() => "does not exist; the topic has no groups".to_owned(),
            None => format!("does not exist; the topic has {}", names.join(", ")),
        };
        let found = groups.iter().find(|one| one.group == *group).cloned();
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "group", rule).on(format!("{topic}/{group}"))
        })
    }

    /// Lists the consumers that a group knows, live or not, sorted by name; none when the group does not
    /// exist.
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

    /// Reads up to `max` entries of a topic after an id, oldest first: fewer where they are heavy, because
    /// a page ends after about four megabytes, and none only at the end. Consumes nothing. To follow a
    /// topic with several partitions, use [`entries_of_partition`](Self::entries_of_partition).
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
        let at = Partition::of(topic);
        let entries = log_pages::after(&*self.store, &at, after, max).await?;
        Ok(self.read(topic, entries))
    }

    /// Reads up to `max` entries of a topic before an id, or before the end, newest first: fewer where
    /// they are heavy, none only at the end. Consumes nothing.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn entries_before(
        &self,
        topic: &Topic,
        before: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let at = Partition::of(topic);
        let entries = log_pages::before(&*self.store, &at, before, max).await?;
        Ok(self.read(topic, entries))
    }

    /// Reads up to `max` entries of a topic from an id on, oldest first: fewer where they are heavy, none
    /// only at the end. Consumes nothing.
    ///
    /// [`EntryId::first_of`] is the id to start at a time.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn entries_from(
        &self,
        topic: &Topic,
        from: EntryId,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.entries_after(topic, from.before_in_topic(), max).await
    }

    /// Reads the newest entries of a topic, up to `max`, oldest first: fewer where they are heavy.
    /// Consumes nothing.
    ///
    /// To continue, call [`entries_after`](Self::entries_after) with the last id.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn latest(&self, topic: &Topic, max: usize) -> Result<Vec<Entry>, Error> {
        self.latest_at(topic, &Partition::of(topic), max).await
    }

    fn read(&self, topic: &Topic, entries: Vec<(EntryId, Fields)>) -> Vec<Entry> {
        let read = |(id, fields): (EntryId, Fields)| {
            let envelope = self.decoder.decode(topic, id, &fields).envelope;
            Entry {
                id,
                envelope,
                fields,
            }
        };
        entries.into_iter().map(read).collect()
    }

    /// The number of a topic's partitions; 1 when the topic does not exist.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn partitions(&self, topic: &Topic) -> Result<u16, Error> {
        Ok(self.store.topics().partitions(topic).await?.unwrap_or(1))
    }

    /// Reads up to `max` entries of one partition after an id, oldest first: fewer where they are heavy,
    /// none only at the end. Consumes nothing.
    ///
    /// To follow a topic with several partitions, follow each: a message can come to one partition with a
    /// lower id than another has already shown.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn entries_of_partition(
        &self,
        topic: &Topic,
        partition: u16,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let at = Partition::numbered(topic, partition);
        let entries = log_pages::after(&*self.store, &at, after, max).await?;
        Ok(self.read(topic, entries))
    }

    /// Reads the newest entries of one partition, up to `max`, oldest first: fewer where they are heavy.
    /// Consumes nothing.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn latest_of_partition(
        &self,
        topic: &Topic,
        partition: u16,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let at = Partition::numbered(topic, partition);
        self.latest_at(topic, &at, max).await
    }

    async fn latest_at(
        &self,
        topic: &Topic,
        at: &Partition,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = log_pages::before(&*self.store, at, None, max).await?;
        entries.reverse();
        Ok(self.read(topic, entries))
    }

    /// The status of a topic's groups on one partition, sorted by name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the partition does not exist, and the kinds of the connection.
    pub async fn groups_of_partition(
        &self,
        topic: &Topic,
        partition: u16,
    ) -> Result<Vec<GroupStatus>, Error> {
        let at = Partition::numbered(topic, partition);
        match self.store.inspect().status(&at).await? {
            Some(status) => Ok(status.groups),
            None => {
                let error = Error::new(ErrorKind::NotFound, "partition", "does not exist");
                Err(error.on(at.to_string()))
            }
        }
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

/// As [`Topics::primaries`].
pub(super) async fn primaries(
    store: &dyn Store,
    topic: &TopicStatus,
) -> Result<Vec<Option<String>>, Error> {
    let mut all = Vec::new();
    for at in topic.partitions() {
        all.push(store.inspect().server_of(&at).await?);
    }
    if all.iter().all(Option::is_none) {
        all.clear();
    }
    Ok(all)
}
