//! Creating, changing and removing a topic, on each of its partitions.

use futures_util::future::join_all;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::error;
use crate::adapters::redis::resp::reply;
use crate::adapters::redis::scripts;
use crate::domain::{Error, ErrorKind, Retention, Topic, TopicSettings};
use crate::store::{Partition, TopicRemoval};

impl RedisAdapter {
    pub(super) async fn create_topic(
        &self,
        topic: &Topic,
        settings: TopicSettings,
    ) -> Result<TopicSettings, Error> {
        let operation = "create topic";
        settings
            .check(operation)
            .map_err(|e| e.on(topic.as_str()))?;
        if settings.partitions() > 1 {
            let needed = self.need_partitions(operation).await;
            needed.map_err(|e| e.on(topic.as_str()))?;
        }
        // The registry lies in another slot, so the script cannot write it. It comes first: a name
        // without a topic does no harm, but a topic without its name would be hidden.
        self.change_registry(operation, "SADD", topic).await?;
        // Partition 0 decides between callers that ask for different numbers of partitions.
        let held = self
            .create_partition(&Partition::of(topic), &settings)
            .await?;
        let others = (1..held.partitions()).map(|number| async move {
            let at = Partition::numbered(topic, number);
            self.create_partition(&at, &held).await
        });
        for created in join_all(others).await {
            created?;
        }
        Ok(held)
    }

    /// Creates the settings of a topic on one of its partitions, or finds them.
    async fn create_partition(
        &self,
        at: &Partition,
        settings: &TopicSettings,
    ) -> Result<TopicSettings, Error> {
        let operation = "create topic";
        let call = scripts::topic_create()
            .key(self.keys.meta(at))
            .arg(self.keys.namespace())
            .arg(at.topic().as_str())
            .arg(settings.retention().to_string())
            .arg(settings.backlog_limit())
            .arg(settings.partitions())
            .arg(at.number());
        let reply: Vec<String> = self
            .net
            .call(operation, &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))?;
        match reply.as_slice() {
            [ok, retention, limit, partitions] if ok == "ok" => {
                read_settings(retention, limit, partitions)
            }
            reply => Err(not_own(operation, reply)),
        }
        .map_err(|e| e.on(at.to_string()))
    }

    pub(super) async fn replace_settings(
        &self,
        topic: &Topic,
        settings: TopicSettings,
    ) -> Result<Option<TopicSettings>, Error> {
        let Some(count) = self.count_partitions(topic).await? else {
            return Ok(None);
        };
        // Partition 0 last: as long as it has the earlier settings, the change can be run again.
        let mut before = None;
        for number in (0..count).rev() {
            let at = Partition::numbered(topic, number);
            before = self.replace_partition_settings(&at, &settings).await?;
        }
        Ok(before)
    }

    async fn replace_partition_settings(
        &self,
        at: &Partition,
        settings: &TopicSettings,
    ) -> Result<Option<TopicSettings>, Error> {
        let operation = "change topic settings";
        let call = scripts::topic_settings()
            .key(self.keys.meta(at))
            .arg(self.keys.namespace())
            .arg(at.topic().as_str())
            .arg(settings.retention().to_string())
            .arg(settings.backlog_limit());
        let reply: Vec<String> = self
            .net
            .call(operation, &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))?;
        match reply.as_slice() {
            [] => Ok(None),
            [ok, retention, limit, partitions] if ok == "ok" => {
                read_settings(retention, limit, partitions).map(Some)
            }
            reply => Err(not_own(operation, reply)),
        }
        .map_err(|e| e.on(at.to_string()))
    }

    pub(super) async fn count_partitions(&self, topic: &Topic) -> Result<Option<u16>, Error> {
        let key = self.keys.meta(&Partition::of(topic));
        let (name, count): (Option<String>, Option<u16>) = self
            .net
            .run("topic partitions", &key, async |connection| {
                let found = redis::cmd("HMGET")
                    .arg(&key)
                    .arg("topic")
                    .arg("partitions")
                    .query_async(connection)
                    .await;
                match found {
                    // A key of another type is no topic of Redstart.
                    Err(error) if error.code() == Some("WRONGTYPE") => Ok((None, None)),
                    found => found,
                }
            })
            .await
            .map_err(|e| e.on(topic.as_str()))?;
        Ok(name.map(|_| count.unwrap_or(1)))
    }

    pub(super) async fn take_away_topic(
        &self,
        topic: &Topic,
    ) -> Result<Option<TopicRemoval>, Error> {
        let count = self.count_partitions(topic).await?.unwrap_or(1);
        let mut whole = None;
        if count > 1
            && let Some(status) = self.topic_status(&Partition::of(topic)).await?
            && !status.groups.is_empty()
        {
            let groups = status.groups.len() as u64;
            return Ok(Some(TopicRemoval::new(status.entries, groups)));
        }
        // Partition 0 last: as long as it is there, the removal can be run again.
        for number in (0..count).rev() {
            let at = Partition::numbered(topic, number);
            let Some(one) = self.take_away_partition(&at).await? else {
                continue;
            };
            if !one.removed && whole.is_some() {
                let rule = "a group came to the topic meanwhile: some partitions are removed, and the others \
                            are kept; remove the group, then run it again";
                let error = Error::new(ErrorKind::OutcomeUnknown, "remove topic", rule);
                return Err(error.on(at.to_string()));
            }
            let before: u64 = whole.map_or(0, |before: TopicRemoval| before.entries);
            whole = Some(TopicRemoval::new(before + one.entries, one.groups));
            if !one.removed {
                return Ok(whole);
            }
        }
        // Last: a name without a topic does no harm, but a topic without its name is hidden.
        self.change_registry("remove topic", "SREM", topic).await?;
        Ok(whole)
    }

    /// Adds a name to the registry of topics, or removes it.
    async fn change_registry(
        &self,
        operation: &'static str,
        command: &str,
        topic: &Topic,
    ) -> Result<(), Error> {
        let registry = self.keys.topics();
        let changed = self.net.run(operation, &registry, async |connection| {
            redis::cmd(command)
                .arg(&registry)
                .arg(topic.as_str())
                .exec_async(connection)
                .await
        });
        changed.await.map_err(|e| e.on(topic.as_str()))
    }

    async fn take_away_partition(&self, at: &Partition) -> Result<Option<TopicRemoval>, Error> {
        let operation = "remove topic";
        let [ids, before] = self.keys.ids(at);
        let call = scripts::topic_remove()
            .key(self.keys.log(at))
            .key(self.keys.meta(at))
            .key(ids)
            .key(before)
            .key(self.keys.later(at))
            .key(self.keys.later_body(at))
            .key(self.keys.later_bell(at))
            .arg(self.keys.namespace())
            .arg(at.topic().as_str());
        let reply: Vec<String> = self
            .net
            .call(operation, &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))?;
        match reply.as_slice() {
            [] => Ok(None),
            [ok, _, entries, groups] if ok == "ok" => {
                let number = |text: &String| text.parse().unwrap_or(0);
                Ok(Some(TopicRemoval::new(number(entries), number(groups))))
            }
            reply => Err(not_own(operation, reply).on(at.to_string())),
        }
    }
}

/// The error for the keys of another topic, and for a reply of another form.
fn not_own(operation: &'static str, reply: &[String]) -> Error {
    let [_, namespace, other] = reply else {
        return error::sent(operation, reply::unexpected("the script of a topic"));
    };
    let rule = format!(
        "its keys belong to topic {other:?} of namespace {namespace:?}; choose another name"
    );
    Error::new(ErrorKind::Invalid, operation, rule)
}

/// The settings as the store holds them.
pub(in crate::adapters::redis) fn read_settings(
    retention: &str,
    limit: &str,
    partitions: &str,
) -> Result<TopicSettings, Error> {
    let retention: Retention = retention.parse()?;
    let unreadable = |rule| Error::new(ErrorKind::Decode, "topic settings", rule);
    let limit = limit.parse();
    let partitions = partitions.parse();
    Ok(TopicSettings::default()
        .with_retention(retention)
        .with_backlog_limit(limit.map_err(|_| unreadable("the backlog limit is not a number"))?)
        .with_partitions(
            partitions.map_err(|_| unreadable("the number of partitions is not a number"))?,
        ))
}
