//! The consumers of a group, and removing a group.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;

use super::adapter::RedisAdapter;
use super::resp::reply::{self, Flat};
use super::scripts;
use crate::domain::{ConsumerName, Error, Group, Topic, whole_millis};
use crate::store::{ConsumerStatus, GroupRemoval, GroupStatus, Lane};

impl RedisAdapter {
    pub(super) async fn list_consumers(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<Vec<ConsumerStatus>, Error> {
        let mut known: BTreeMap<ConsumerName, ConsumerStatus> = BTreeMap::new();
        for lane in [Lane::Log, Lane::Redelivery] {
            let stream = self.keys.lane(topic, group, lane);
            let mut command = redis::cmd("XINFO");
            command.arg("CONSUMERS").arg(&stream).arg(group.as_str());
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
                .map_err(|e| e.on(format!("{topic}/{group}")))?;
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

    pub(super) async fn take_away_group(
        &self,
        topic: &Topic,
        group: &Group,
        quiet: Duration,
        force: bool,
    ) -> Result<Option<GroupRemoval>, Error> {
        let call = scripts::group_remove()
            .key(self.keys.log(topic))
            .key(self.keys.redo(topic, group))
            .key(self.keys.retry(topic, group))
            .key(self.keys.retry_body(topic, group))
            .key(self.keys.dead(topic, group))
            .key(self.keys.dead_body(topic, group))
            .key(self.keys.dead_counts(topic, group))
            .key(self.keys.dead_causes(topic, group))
            .key(self.keys.dead_restored(topic, group))
            .key(self.keys.dead_uncounted(topic, group))
            .key(self.keys.journal(topic, group))
            .arg(group.as_str())
            .arg(whole_millis(quiet))
            .arg(if force { "force" } else { "" });
        let found: Vec<u64> = self
            .net
            .call("remove group", &call, reply::typed)
            .await
            .map_err(|e| e.on(format!("{topic}/{group}")))?;
        let [removed, lag, in_flight, scheduled, dead, consumers, living] = found[..] else {
            return Ok(None);
        };
        Ok(Some(GroupRemoval {
            removed: removed == 1,
            status: GroupStatus {
                group: group.clone(),
                lag,
                in_flight,
                scheduled,
                dead,
                consumers,
            },
            live_consumers: living,
        }))
    }
}

fn is_absent(error: &redis::RedisError) -> bool {
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
