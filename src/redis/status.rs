//! Looking at topics and groups.

use redis::Value;

use super::backend::RedisBackend;
use super::publish::read_settings;
use super::reply::{self, Flat};
use crate::backend::{Fields, GroupStatus, TopicStatus};
use crate::domain::{EntryId, Error, ErrorKind, Group, Topic, TopicSettings};

impl RedisBackend {
    pub(super) async fn list_topics(&self) -> Result<Vec<Topic>, Error> {
        let mut names: Vec<String> = self
            .pool
            .run("list topics", async |connection| {
                redis::cmd("SMEMBERS")
                    .arg(self.keys.topics())
                    .query_async(connection)
                    .await
            })
            .await?;
        names.sort();
        names.iter().map(Topic::new).collect()
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
            .pool
            .run(operation, async |connection| {
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
                .pool
                .run(operation, async |connection| {
                    redis::cmd("XINFO")
                        .arg("GROUPS")
                        .arg(&log)
                        .query_async(connection)
                        .await
                })
                .await
                .map_err(|e| e.on(topic.as_str()))?;
            for row in rows {
                groups.push(self.group_status(topic, row, length).await?);
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(Some(TopicStatus {
            topic: topic.clone(),
            length,
            settings,
            groups,
        }))
    }

    async fn group_status(
        &self,
        topic: &Topic,
        row: Value,
        length: u64,
    ) -> Result<GroupStatus, Error> {
        let operation = "group status";
        let row = Flat::new(row).map_err(|e| super::error::sent(operation, e))?;
        let name = row.text("name").ok_or_else(|| {
            Error::new(ErrorKind::Decode, operation, "a group's name is not text")
                .on(topic.as_str())
        })?;
        let group = Group::new(name)?;
        let redo = self.keys.redo(topic, &group);
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("ZCARD")
            .arg(self.keys.retry(topic, &group))
            .cmd("XLEN")
            .arg(self.keys.dead(topic, &group))
            .cmd("XLEN")
            .arg(&redo);
        let (retries, dead, redo_length, redo_row) = self
            .pool
            .run(operation, async |connection| {
                let (retries, dead, redo_length): (u64, u64, u64) =
                    pipeline.query_async(connection).await?;
                let rows: Vec<Value> = match redis::cmd("XINFO")
                    .arg("GROUPS")
                    .arg(&redo)
                    .query_async(connection)
                    .await
                {
                    // A group that only a foreign consumer uses has no redo lane.
                    Err(e) if e.code() == Some("ERR") => Vec::new(),
                    rows => rows?,
                };
                let row = rows.into_iter().next().map(Flat::new).transpose()?;
                Ok((retries, dead, redo_length, row))
            })
            .await
            .map_err(|e| e.on(format!("{topic}/{group}")))?;
        let redo_pending = redo_row.as_ref().and_then(|row| row.count("pending"));
        let redo_lag = redo_row
            .as_ref()
            .map_or(0, |row| row.count("lag").unwrap_or(redo_length));
        Ok(GroupStatus {
            group,
            // Redis cannot tell the lag of a group that stands before a hole in the log.
            lag: row.count("lag").unwrap_or(length),
            in_flight: row.count("pending").unwrap_or(0) + redo_pending.unwrap_or(0),
            scheduled: retries + redo_lag,
            dead,
            consumers: row.count("consumers").unwrap_or(0),
        })
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
        self.pool
            .run(operation, async |connection| {
                let reply: Value = redis::cmd("XRANGE")
                    .arg(stream)
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

    pub(super) async fn newest_entry(&self, topic: &Topic) -> Result<Option<EntryId>, Error> {
        self.pool
            .run("newest entry", async |connection| {
                let reply: Value = redis::cmd("XREVRANGE")
                    .arg(self.keys.log(topic))
                    .arg("+")
                    .arg("-")
                    .arg("COUNT")
                    .arg(1)
                    .query_async(connection)
                    .await?;
                Ok(reply::entries(reply)?.pop().map(|(id, _)| id))
            })
            .await
            .map_err(|e| e.on(topic.as_str()))
    }
}
