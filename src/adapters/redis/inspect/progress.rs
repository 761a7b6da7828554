//! How far logs and their groups have come, for diagnosis.

use std::time::Duration;

use redis::{FromRedisValue, RedisError, Value};

use super::is_absent;
use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::error;
use crate::adapters::redis::resp::reply::{self, Flat};
use crate::domain::{EntryId, Error, Group, Timestamp};
use crate::store::{
    DeliveryId, GroupAt, GroupProgress, LONGEST_UNSETTLED, Lane, LogProgress, Partition, Unsettled,
};

const OPERATION: &str = "log progress";

/// A release sets an idle time of about three years, longer than any lease.
const GIVEN_BACK: Duration = Duration::from_secs(365 * 86_400);

impl RedisAdapter {
    pub(super) async fn log_progress(&self, at: &Partition) -> Result<Option<LogProgress>, Error> {
        let on = |error: Error| error.on(at.to_string());
        let log = self.keys.log(at);
        let info = |part: &'static str| {
            let mut command = redis::cmd("XINFO");
            command.arg(part).arg(&log);
            command
        };
        let (stream, groups) = (info("STREAM"), info("GROUPS"));
        let facts = self
            .net
            .run(OPERATION, &log, async |connection| {
                let stream: Value = match stream.query_async(connection).await {
                    Err(error) if is_absent(&error) => return Ok(None),
                    stream => stream?,
                };
                let groups: Value = groups.query_async(connection).await?;
                Ok(Some((Flat::new(stream)?, reply::array(groups)?)))
            })
            .await;
        let Some((stream, rows)) = facts.map_err(on)? else {
            return Ok(None);
        };
        let trimmed: Option<i64> = self.meta_field(at, "trimmed").await.map_err(on)?;
        let last = id(&stream, "last-generated-id").map_err(|e| on(error::sent(OPERATION, e)))?;
        let mut groups = Vec::new();
        for row in rows {
            groups.extend(self.group_progress(at, row).await.map_err(on)?);
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(Some(LogProgress {
            last,
            // Redis counts since 7.0.
            appended: number(&stream, "entries-added"),
            trimmed: trimmed.and_then(|millis| Timestamp::from_millis(millis).ok()),
            groups,
        }))
    }

    /// A field of the topic's settings.
    async fn meta_field<T: FromRedisValue>(
        &self,
        at: &Partition,
        field: &str,
    ) -> Result<Option<T>, Error> {
        let meta = self.keys.meta(at);
        let read = self.net.run(OPERATION, &meta, async |connection| {
            let mut command = redis::cmd("HGET");
            command.arg(&meta).arg(field);
            command.query_async(connection).await
        });
        read.await
    }

    async fn group_progress(
        &self,
        at: &Partition,
        row: Value,
    ) -> Result<Option<GroupProgress>, Error> {
        let row = Flat::new(row).map_err(|e| error::sent(OPERATION, e))?;
        // A foreign consumer may call its group as it likes; the bus has no keys for it.
        let Some(group) = row.text("name").and_then(|name| Group::new(name).ok()) else {
            return Ok(None);
        };
        let at = GroupAt {
            partition: at.clone(),
            group,
        };
        let delivered = id(&row, "last-delivered-id").map_err(|e| error::sent(OPERATION, e))?;
        let lease = format!("lease:{}", at.group.as_str());
        let lease: Option<u64> = self.meta_field(&at.partition, &lease).await?;
        let mut unsettled = Vec::new();
        for lane in [Lane::Log, Lane::Redelivery] {
            unsettled.extend(self.unsettled(&at, lane).await?);
        }
        Ok(Some(GroupProgress {
            group: at.group,
            delivered,
            read: number(&row, "entries-read"),
            lease: lease.map(Duration::from_millis),
            unsettled,
        }))
    }

    async fn unsettled(&self, at: &GroupAt, lane: Lane) -> Result<Vec<Unsettled>, Error> {
        let stream = self.keys.lane(at, lane);
        let mut command = redis::cmd("XPENDING");
        command.arg(&stream).arg(at.group.as_str());
        command.arg("-").arg("+").arg(LONGEST_UNSETTLED);
        let rows: Vec<(String, String, u64, u64)> = self
            .net
            .run(OPERATION, &stream, async |connection| {
                match command.query_async(connection).await {
                    // A stream or group that is not there has no deliveries.
                    Err(error) if is_absent(&error) => Ok(Vec::new()),
                    rows => rows,
                }
            })
            .await?;
        let read = |(id, consumer, idle, _): (String, String, u64, u64)| {
            let id = reply::parse_id(id.as_bytes())?;
            let idle = Duration::from_millis(idle);
            Some(Unsettled {
                id: DeliveryId::new(lane, id),
                consumer,
                idle_for: Some(idle).filter(|idle| *idle < GIVEN_BACK),
            })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}

fn id(row: &Flat, name: &str) -> Result<EntryId, RedisError> {
    let text = row.text(name);
    let id = text.and_then(|text| reply::parse_id(text.as_bytes()));
    id.ok_or_else(|| reply::unexpected("XINFO"))
}

/// A count; `None` where the server does not know it.
fn number(row: &Flat, name: &str) -> Option<u64> {
    reply::count(row.get(name)?).ok()
}
