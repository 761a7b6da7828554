//! Retries and snoozed messages that are not due yet.

use std::time::Duration;

use redis::{RedisError, Value};
use tokio::time::Instant;

use super::adapter::RedisAdapter;
use super::keys::lane_name;
use super::resp::reply;
use super::scripts;
use crate::domain::{BoxFuture, Error, Timestamp};
use crate::store::batch::READ_BYTES;
use crate::store::{
    DeliveryId, GroupAt, Lane, MAX_BATCH, Promoted, Schedule, Scheduled, ScheduledPage,
};

impl RedisAdapter {
    async fn promote_due(&self, at: &GroupAt, max: usize) -> Result<Promoted, Error> {
        let call = scripts::promote()
            .key(self.keys.retry(at))
            .key(self.keys.retry_body(at))
            .key(self.keys.redelivery(at))
            .key(self.keys.later(&at.partition))
            .key(self.keys.later_body(&at.partition))
            .key(self.keys.log(&at.partition))
            .arg(max.min(MAX_BATCH));
        let sent = Instant::now();
        let (moved, published, next, missing, now): (u64, u64, i64, u64, u64) = self
            .net
            .call("promote", &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))?;
        self.note_clock(&at.partition, sent, now);
        let next = u64::try_from(next).ok().map(Duration::from_millis);
        Ok(Promoted {
            moved,
            published,
            next,
            missing,
        })
    }

    async fn list_scheduled(
        &self,
        at: &GroupAt,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> Result<ScheduledPage, Error> {
        let (due, place) = match after {
            Some((due, receipt)) => (due.as_millis().to_string(), member(&receipt)),
            None => (String::new(), String::new()),
        };
        let call = scripts::retry_list()
            .key(self.keys.retry(at))
            .key(self.keys.retry_body(at))
            .arg(due)
            .arg(place)
            .arg(max.min(MAX_BATCH))
            .arg(READ_BYTES);
        self.net
            .call("list scheduled", &call, |reply| {
                let mut reply = reply::array(reply)?.into_iter();
                let now = reply.next().ok_or_else(|| reply::unexpected("no time"))?;
                Ok(ScheduledPage {
                    now: time(&now)?,
                    entries: reply.map(scheduled).collect::<Result<_, RedisError>>()?,
                })
            })
            .await
            .map_err(|e| e.on(at.to_string()))
    }

    async fn take_scheduled(
        &self,
        operation: &'static str,
        action: &'static str,
        at: &GroupAt,
        receipts: &[DeliveryId],
    ) -> Result<Vec<bool>, Error> {
        let mut done = Vec::with_capacity(receipts.len());
        for batch in receipts.chunks(MAX_BATCH) {
            let mut call = scripts::retry_move_out()
                .key(self.keys.retry(at))
                .key(self.keys.retry_body(at))
                .key(self.keys.redelivery(at))
                .arg(action);
            for receipt in batch {
                call.push(member(receipt));
            }
            let flags = self
                .net
                .call(operation, &call, reply::flags)
                .await
                .map_err(|e| e.on(at.to_string()))?;
            done.extend(flags);
        }
        Ok(done)
    }
}

/// The member of the sorted set, as `settle.lua` writes it.
fn member(receipt: &DeliveryId) -> String {
    format!("{}:{}", lane_name(receipt.lane), receipt.id)
}

fn receipt(member: &[u8]) -> Option<DeliveryId> {
    [Lane::Log, Lane::Redelivery].into_iter().find_map(|lane| {
        let rest = member.strip_prefix(lane_name(lane).as_bytes())?;
        let id = reply::parse_id(rest.strip_prefix(b":")?)?;
        Some(DeliveryId { lane, id })
    })
}

pub(super) fn time(value: &Value) -> Result<Timestamp, RedisError> {
    Timestamp::from_millis(reply::integer(value)?).map_err(|_| reply::unexpected("no time"))
}

fn scheduled(entry: Value) -> Result<Scheduled, RedisError> {
    let unexpected = || reply::unexpected("retry_list.lua");
    let mut parts = reply::array(entry)?.into_iter();
    let (Some(member), Some(due), Some(redelivery)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(unexpected());
    };
    let due: f64 = reply::text(due)?.parse().map_err(|_| unexpected())?;
    Ok(Scheduled {
        receipt: receipt(&reply::bytes(member)?).ok_or_else(unexpected)?,
        due: Timestamp::from_millis(due as i64).unwrap_or(Timestamp::MAX),
        redelivery: reply::bytes(redelivery)?,
    })
}

impl Schedule for RedisAdapter {
    fn promote<'a>(
        &'a self,
        at: &'a GroupAt,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        Box::pin(self.promote_due(at, max))
    }

    fn list<'a>(
        &'a self,
        at: &'a GroupAt,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<ScheduledPage, Error>> {
        Box::pin(self.list_scheduled(at, after, max))
    }

    fn run_now<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.take_scheduled("run retries now", "run", at, receipts))
    }

    fn cancel<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.take_scheduled("cancel", "cancel", at, receipts))
    }
}
