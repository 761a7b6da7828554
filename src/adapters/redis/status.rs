//! Looking at topics and groups.

use redis::Value;

use super::adapter::RedisAdapter;
use super::net::error;
use super::publish::read_settings;
use super::resp::reply::{self, Flat};
use super::scripts;
use crate::domain::{EntryId, Error, ErrorKind, Group, Topic, TopicSettings};
use crate::store::{Fields, GroupStatus, TopicStatus};

impl RedisAdapter {
    pub(super) async fn list_topics(&self) -> Result<Vec<Topic>, Error> {
        let registry = self.keys.topics();
        let mut names: Vec<String> = self
            .net
            .run("list topics", &registry, async |connection| {
                redis::cmd("SMEMBERS")
                    .arg(&registry)
                    .query_async(connection)
                    .await
            })
            .await?;
        names.sort();
        // What is no topic's name was put there by someone else.
        Ok(names
            .iter()
            .filter_map(|name| Topic::new(name).ok())
            .collect())
    }

    pub(super) async fn topic_status(&self, topic: &Topic) -> Result<Option<TopicStatus>, Error> {
        let operation = "topic status";
        let log = self.keys.log(topic);
        let mut first = redis::pipe();
        first
            .cmd("HMGET")
            .arg(self.keys.meta(topic))
            .arg("retention")
            .arg("backlogLimit")
            .cmd("XLEN")
            .arg(&log)
            .cmd("EXISTS")
            .arg(&log);
        let (settings, length, exists): ((Option<String>, Option<String>), u64, bool) = self
            .net
            .run(operation, &log, async |connection| {
                first.query_async(connection).await
            })
            .await
            .map_err(|e| e.on(topic.as_str()))?;
        let settings = match settings {
            (Some(retention), Some(limit)) => {
                read_settings(&retention, &limit).map_err(|e| e.on(topic.as_str()))?
            }
            // A foreign producer may have made the log: the defaults hold.
            _ if exists => TopicSettings::default(),
            _ => return Ok(None),
        };
        let mut groups = Vec::new();
        if exists {
            let rows: Vec<Value> = self
                .net
                .run(operation, &log, async |connection| {
                    redis::cmd("XINFO")
                        .arg("GROUPS")
                        .arg(&log)
                        .query_async(connection)
                        .await
                })
                .await
                .map_err(|e| e.on(topic.as_str()))?;
            for row in rows {
                groups.extend(self.group_status(topic, row).await?);
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(Some(TopicStatus {
            topic: topic.clone(),
            entries: length,
            settings,
            groups,
        }))
    }

    /// `None` when the group was removed meanwhile.
    async fn group_status(&self, topic: &Topic, row: Value) -> Result<Option<GroupStatus>, Error> {
        let operation = "group status";
        let name = Flat::new(row)
            .map_err(|e| error::sent(operation, e))?
            .text("name")
            .ok_or_else(|| {
                Error::new(ErrorKind::Decode, operation, "a group's name is not text")
                    .on(topic.as_str())
            })?;
        // A foreign consumer may call its group as it likes; the bus has no keys for it.
        let Ok(group) = Group::new(name) else {
            return Ok(None);
        };
        let call = scripts::group_status()
            .key(self.keys.log(topic))
            .key(self.keys.redo(topic, &group))
            .key(self.keys.retry(topic, &group))
            .key(self.keys.dead(topic, &group))
            .arg(group.as_str());
        let counts: Vec<u64> = self
            .net
            .call(operation, &call, reply::typed)
            .await
            .map_err(|e| e.on(format!("{topic}/{group}")))?;
        let [lag, in_flight, scheduled, dead, consumers] = counts[..] else {
            return Ok(None);
        };
        Ok(Some(GroupStatus {
            group,
            lag,
            in_flight,
            scheduled,
            dead,
            consumers,
        }))
    }

    pub(super) async fn browse_log(
        &self,
        topic: &Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        self.range("browse", self.keys.log(topic), after, max)
            .await
            .map_err(|e| e.on(topic.as_str()))
    }

    /// Entries of a stream after an id.
    pub(super) async fn range(
        &self,
        operation: &'static str,
        stream: String,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        self.net
            .run(operation, &stream, async |connection| {
                let reply: Value = redis::cmd("XRANGE")
                    .arg(&stream)
                    .arg(from)
                    .arg("+")
                    .arg("COUNT")
                    .arg(max)
                    .query_async(connection)
                    .await?;
                reply::entries(reply)
            })
            .await
    }

    pub(super) async fn latest_entries(
        &self,
        topic: &Topic,
        max: usize,
    ) -> Result<Vec<(EntryId, Fields)>, Error> {
        let log = self.keys.log(topic);
        self.net
            .run("latest entries", &log, async |connection| {
                let reply: Value = redis::cmd("XREVRANGE")
                    .arg(&log)
                    .arg("+")
                    .arg("-")
                    .arg("COUNT")
                    .arg(max)
                    .query_async(connection)
                    .await?;
                let mut entries = reply::entries(reply)?;
                entries.reverse();
                Ok(entries)
            })
            .await
            .map_err(|e| e.on(topic.as_str()))
    }

    pub(super) async fn newest_entry(&self, topic: &Topic) -> Result<Option<EntryId>, Error> {
        let latest = self.latest_entries(topic, 1).await?;
        Ok(latest.last().map(|(id, _)| *id))
    }
}
