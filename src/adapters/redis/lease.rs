//! Leases: extending, giving back, finding one's own, and taking over expired ones.

use std::time::Duration;

use redis::Value;

use super::adapter::RedisAdapter;
use super::resp::reply;
use super::scripts;
use super::settle::lane_name;
use crate::domain::{ConsumerName, Error, Group, Topic, whole_millis};
use crate::store::{DeliveryId, Fetched, Lane, MAX_BATCH, Member, ReclaimCursor, Reclaimed};

impl RedisAdapter {
    pub(super) async fn change_leases(
        &self,
        action: &'static str,
        member: &Member,
        receipts: &[DeliveryId],
    ) -> Result<Vec<bool>, Error> {
        let mut held = Vec::with_capacity(receipts.len());
        for batch in receipts.chunks(MAX_BATCH) {
            let mut call = scripts::lease()
                .key(self.keys.log(member.topic()))
                .key(self.keys.redo(member.topic(), member.group()))
                .arg(member.group().as_str())
                .arg(member.consumer.as_str())
                .arg(action);
            for receipt in batch {
                call.push(lane_name(receipt.lane));
                call.push(receipt.id.to_string());
            }
            let flags = self
                .net
                .call(action, &call, reply::flags)
                .await
                .map_err(|e| e.on(member.to_string()))?;
            held.extend(flags);
        }
        Ok(held)
    }

    pub(super) async fn list_pending(
        &self,
        member: &Member,
        max: usize,
    ) -> Result<Vec<DeliveryId>, Error> {
        let mut pipeline = redis::pipe();
        for lane in [Lane::Log, Lane::Redelivery] {
            pipeline
                .cmd("XPENDING")
                .arg(self.keys.lane(member.topic(), member.group(), lane))
                .arg(member.group().as_str())
                .arg("-")
                .arg("+")
                .arg(max)
                .arg(member.consumer.as_str());
        }
        self.net
            .run(
                "list pending",
                &self.keys.log(member.topic()),
                async |connection| {
                    let lanes: Vec<Value> = pipeline.query_async(connection).await?;
                    let mut held = Vec::new();
                    for (lane, reply) in [Lane::Log, Lane::Redelivery].into_iter().zip(lanes) {
                        for row in reply::array(reply)? {
                            let row = reply::array(row)?;
                            let id = row.first().ok_or_else(|| reply::unexpected("XPENDING"))?;
                            let id = reply::entry_id(id)?;
                            held.push(DeliveryId { lane, id });
                        }
                    }
                    Ok(held)
                },
            )
            .await
            .map_err(|e| e.on(member.to_string()))
    }

    pub(super) async fn take_over(
        &self,
        member: &Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> Result<Reclaimed, Error> {
        let call = scripts::reclaim()
            .key(self.keys.log(member.topic()))
            .key(self.keys.redo(member.topic(), member.group()))
            .arg(member.group().as_str())
            .arg(member.consumer.as_str())
            .arg(whole_millis(lease))
            .arg(max.min(MAX_BATCH))
            .arg(cursor.log.to_string())
            .arg(cursor.redelivery.to_string());
        self.net
            .call("reclaim", &call, |reply| {
                let mut reclaimed = Reclaimed::default();
                let lanes = reply::array(reply)?;
                for (source, (lane, reply)) in
                    (0..).zip([Lane::Log, Lane::Redelivery].into_iter().zip(lanes))
                {
                    let mut parts = reply::array(reply)?.into_iter();
                    let (Some(next), Some(taken), Some(missing)) =
                        (parts.next(), parts.next(), parts.next())
                    else {
                        return Err(reply::unexpected("reclaim.lua"));
                    };
                    let next = reply::entry_id(&next)?;
                    match lane {
                        Lane::Log => reclaimed.cursor.log = next,
                        Lane::Redelivery => reclaimed.cursor.redelivery = next,
                    }
                    reclaimed.missing += reply::array(missing)?.len() as u64;
                    for entry in reply::array(taken)? {
                        reclaimed.taken.push(taken_over(source, lane, entry)?);
                    }
                }
                Ok(reclaimed)
            })
            .await
            .map_err(|e| e.on(member.to_string()))
    }

    pub(super) async fn drop_consumers(
        &self,
        topic: &Topic,
        group: &Group,
        idle: Duration,
        only: Option<&ConsumerName>,
    ) -> Result<u64, Error> {
        let call = scripts::prune_consumers()
            .key(self.keys.log(topic))
            .key(self.keys.redo(topic, group))
            .arg(group.as_str())
            .arg(whole_millis(idle))
            .arg(only.map_or("", ConsumerName::as_str));
        self.net
            .call("prune consumers", &call, reply::typed)
            .await
            .map_err(|e| e.on(format!("{topic}/{group}")))
    }
}

fn taken_over(source: u16, lane: Lane, entry: Value) -> Result<Fetched, redis::RedisError> {
    let mut parts = reply::array(entry)?.into_iter();
    let (Some(id), Some(fields), Some(deliveries)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(reply::unexpected("reclaim.lua"));
    };
    Ok(Fetched {
        source,
        receipt: DeliveryId {
            lane,
            id: reply::entry_id(&id)?,
        },
        fields: reply::fields(fields)?,
        deliveries: u32::try_from(reply::count(&deliveries)?).unwrap_or(u32::MAX),
    })
}
