//! The state of the store: topics, groups and consumers.

mod progress;
mod server;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;

use super::adapter::RedisAdapter;
use super::net::error;
use super::resp::pack;
use super::resp::reply::{self, Flat};
use super::scripts;
use super::topics::read_settings;
use crate::domain::{
    BoxFuture, ConsumerName, Error, ErrorKind, Group, Migration, Placement, TopicSettings,
};
use crate::store::{
    ConsumerStatus, GroupAt, GroupStatus, Inspect, Lane, LogProgress, Partition, ServerInfo,
    TopicStatus,
};

impl RedisAdapter {
    async fn ping_publisher(&self) -> Result<(), Error> {
        let mut packed = Vec::new();
        pack(&mut packed, &[b"PING"]);
        let primaries = self.net.primaries("ping").await?;
        let asked = primaries
            .iter()
            .map(|one| one.send("ping", packed.clone(), 1));
        for replies in join_all(asked).await {
            for reply in replies? {
                reply.map_err(|e| error::sent("ping", e))?;
            }
        }
        Ok(())
    }

    pub(in crate::adapters::redis) async fn topic_status(
        &self,
        at: &Partition,
    ) -> Result<Option<TopicStatus>, Error> {
        let operation = "topic status";
        let log = self.keys.log(at);
        let mut first = redis::pipe();
        first
            .cmd("HMGET")
            .arg(self.keys.meta(at))
            .arg("retention")
            .arg("backlogLimit")
            .arg("partitions")
            .cmd("XLEN")
            .arg(&log)
            .cmd("EXISTS")
            .arg(&log)
            .cmd("ZCARD")
            .arg(self.keys.later(at));
        type Settings = (Option<String>, Option<String>, Option<String>);
        type Found = (Settings, u64, bool, u64);
        let (settings, length, exists, later): Found = self
            .net
            .run(operation, &log, async |connection| {
                first.query_async(connection).await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        let settings = match settings {
            (Some(retention), Some(limit), partitions) => {
                let partitions = partitions.as_deref().unwrap_or("1");
                read_settings(&retention, &limit, partitions).map_err(|e| e.on(at.to_string()))?
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
                .map_err(|e| e.on(at.to_string()))?;
            for row in rows {
                groups.extend(self.group_status(at, row).await?);
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(Some(TopicStatus {
            topic: at.topic().clone(),
            entries: length,
            later,
            settings,
            groups,
        }))
    }

    /// `None` when the group was removed meanwhile.
    async fn group_status(&self, at: &Partition, row: Value) -> Result<Option<GroupStatus>, Error> {
        let operation = "group status";
        let row = Flat::new(row).map_err(|e| error::sent(operation, e))?;
        let name = row.text("name").ok_or_else(|| {
            Error::new(ErrorKind::Decode, operation, "a group's name is not text")
                .on(at.to_string())
        })?;
        // A foreign consumer may call its group as it likes; the bus has no keys for it.
        let Ok(group) = Group::new(name) else {
            return Ok(None);
        };
        let at = GroupAt {
            partition: at.clone(),
            group,
        };
        let count = |name| row.get(name).and_then(|value| reply::count(value).ok());
        let call = scripts::group_status()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(&at))
            .key(self.keys.retry(&at))
            .key(self.keys.dead(&at))
            .key(self.keys.meta(&at.partition))
            .arg(at.group.as_str())
            .arg(row.text("last-delivered-id").unwrap_or_default())
            .arg(count("lag").map_or_else(String::new, |lag| lag.to_string()));
        let counts: Vec<u64> = self
            .net
            .call(operation, &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))?;
        let [lag, in_flight, scheduled, dead, owned] = counts[..] else {
            return Ok(None);
        };
        Ok(Some(GroupStatus {
            group: at.group,
            lag,
            in_flight,
            scheduled,
            dead,
            consumers: count("consumers").unwrap_or_default(),
            owned: owned == 1,
        }))
    }

    async fn list_consumers(&self, at: &GroupAt) -> Result<Vec<ConsumerStatus>, Error> {
        let mut known: BTreeMap<ConsumerName, ConsumerStatus> = BTreeMap::new();
        for lane in [Lane::Log, Lane::Redelivery] {
            let stream = self.keys.lane(at, lane);
            let mut command = redis::cmd("XINFO");
            command.arg("CONSUMERS").arg(&stream).arg(at.group.as_str());
            let rows = self
                .net
                .run("list consumers", &stream, async |connection| {
                    let reply: Result<Value, _> = command.query_async(connection).await;
                    match reply {
                        // A lane or group that is not there has no consumers.
                        Err(error) if is_absent(&error) => Ok(Vec::new()),
                        reply => reply::array(reply?)?.into_iter().map(consumer).collect(),
                    }
                })
                .await
                .map_err(|e| e.on(at.to_string()))?;
            for row in rows.into_iter().flatten() {
                match known.get_mut(&row.consumer) {
                    Some(same) => {
                        same.in_flight += row.in_flight;
                        same.idle_for = same.idle_for.min(row.idle_for);
                    }
                    None => drop(known.insert(row.consumer.clone(), row)),
                }
            }
        }
        Ok(known.into_values().collect())
    }
}

pub(in crate::adapters::redis) fn is_absent(error: &redis::RedisError) -> bool {
    let text = error.to_string();
    text.contains("NOGROUP") || text.contains("no such key")
}

/// `None` for a consumer of a foreign hand, whose name is not one of the bus.
fn consumer(row: Value) -> Result<Option<ConsumerStatus>, redis::RedisError> {
    let row = Flat::new(row)?;
    let count = |name| {
        let value = row
            .get(name)
            .ok_or_else(|| reply::unexpected("XINFO CONSUMERS"))?;
        reply::count(value)
    };
    let (in_flight, idle) = (count("pending")?, count("idle")?);
    let name = row
        .text("name")
        .and_then(|name| ConsumerName::new(name).ok());
    Ok(name.map(|consumer| ConsumerStatus {
        consumer,
        in_flight,
        idle_for: Duration::from_millis(idle),
    }))
}

impl Inspect for RedisAdapter {
    fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.ping_publisher())
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.try_to_publish())
    }

    fn servers(&self) -> BoxFuture<'_, Result<Vec<ServerInfo>, Error>> {
        Box::pin(self.ask_servers())
    }

    fn server_of<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Option<String>, Error>> {
        Box::pin(async {
            let log = self.keys.log(at);
            self.net.address_of("ask server", &log).await
        })
    }

    fn migrations(&self) -> BoxFuture<'_, Result<Vec<Migration>, Error>> {
        Box::pin(async { self.layout().status().await })
    }

    fn placement(&self) -> BoxFuture<'_, Result<Option<Placement>, Error>> {
        Box::pin(async { self.layout().placement().await })
    }

    fn status<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>> {
        Box::pin(self.topic_status(at))
    }

    fn progress<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<LogProgress>, Error>> {
        Box::pin(self.log_progress(at))
    }

    fn consumers<'a>(
        &'a self,
        at: &'a GroupAt,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, Error>> {
        Box::pin(self.list_consumers(at))
    }
}
