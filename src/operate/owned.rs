//! Owned groups: who owns each partition, and which failed messages hold back their keys there.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use crate::domain::{
    ConsumerName, Cursor, DeliveryHistory, EntryId, Envelope, Error, ErrorKind, Group, Timestamp,
    Topic,
};
use crate::operate::retries::{self, ScheduledRetry};
use crate::operate::topics::Topics;
use crate::store::{
    DeliveryId, GroupAt, KeptMessage, Lane, OwnedProgress, Partition, Roster, Scheduled, Store,
};

/// How many failed messages of a partition are listed.
const LISTED: usize = 10;
/// How many partitions are asked side by side.
const SIDE_BY_SIDE: usize = 8;

/// A partition of an owned group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OwnedPartition {
    /// Its number, from 0.
    pub partition: u16,
    /// The member that owns it; `None` while nobody does.
    pub owner: Option<ConsumerName>,
    /// The owner's token.
    pub token: Option<u64>,
    /// Every entry of the log up to this one is settled; the smallest id where nobody has owned it yet.
    pub low: EntryId,
    /// No entry of the log after this one has begun.
    pub high: EntryId,
    /// How many failed messages keep their places. Each holds back the later messages of its key.
    pub held_back: u64,
    /// Milliseconds until the first of them is tried again, negative once it is due or running; `None`
    /// without one.
    #[serde(rename = "nextTryMs")]
    pub next_try: Option<i64>,
    /// The oldest of them, ten at most.
    pub oldest: Vec<HoldingMessage>,
    /// Which of its entries are settled and begun, and which messages keep their places.
    #[serde(skip)]
    pub(super) cursor: Cursor,
    #[serde(skip)]
    pub(super) kept: BTreeSet<DeliveryId>,
}

/// A failed message that holds back its key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HoldingMessage {
    /// The message.
    pub id: DeliveryId,
    /// Its key. A message without one holds back nothing; `None` also where it is undecodable.
    pub key: Option<String>,
    /// Its type; empty where it is undecodable.
    #[serde(rename = "type")]
    pub message_type: String,
    /// How many attempts have failed.
    pub attempts: u32,
    /// The error of the last one; `None` for a message that a handler snoozed.
    pub error: Option<String>,
    /// When the first attempt failed; `None` for a message that a handler snoozed.
    pub since: Option<Timestamp>,
    /// When it is tried again, by the store's clock.
    pub due: Timestamp,
    /// Milliseconds until then, negative once it is due or running.
    #[serde(rename = "nextTryMs")]
    pub next_try: i64,
}

/// The milliseconds until a time.
fn left(due: Timestamp, now: Timestamp) -> i64 {
    due.as_millis().saturating_sub(now.as_millis())
}

impl HoldingMessage {
    fn new(topic: &Topic, partition: u16, one: &KeptMessage, now: Timestamp) -> Option<Self> {
        let DeliveryId { lane, id } = one.delivery;
        let stored = Scheduled {
            receipt: DeliveryId::new(lane, id.in_partition(partition)),
            due: one.due,
            redelivery: one.message.clone()?,
        };
        let ScheduledRetry {
            id,
            due,
            envelope,
            history,
            ..
        } = retries::read(topic, stored, now);
        let DeliveryHistory { first_failure, .. } = history;
        let envelope = envelope.ok();
        let envelope = envelope.as_ref();
        Some(Self {
            id,
            key: envelope.and_then(|one| one.key().map(str::to_owned)),
            message_type: envelope.map_or_else(String::new, |one| one.message_type().to_owned()),
            attempts: envelope.map_or(0, Envelope::failed_attempts),
            error: envelope.and_then(|one| one.last_error().map(str::to_owned)),
            since: first_failure,
            due,
            next_try: left(due, now),
        })
    }
}

impl OwnedPartition {
    fn new(topic: &Topic, partition: u16, roster: &Roster, progress: &OwnedProgress) -> Self {
        let owner = roster.owners.get(&partition);
        let now = progress.now;
        let kept = &progress.kept;
        let oldest = kept
            .iter()
            .filter_map(|one| HoldingMessage::new(topic, partition, one, now));
        let [log, _] = &progress.cursors;
        Self {
            partition,
            owner: owner.map(|owner| owner.consumer.clone()),
            token: owner.map(|owner| owner.token),
            low: log.low.in_partition(partition),
            high: log.high.in_partition(partition),
            held_back: kept.len() as u64,
            next_try: kept.iter().map(|one| left(one.due, now)).min(),
            oldest: oldest.collect(),
            cursor: log.clone(),
            kept: kept.iter().map(|one| one.delivery).collect(),
        }
    }

    /// When the first of the listed messages began to fail.
    #[must_use]
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.oldest.iter().filter_map(|one| one.since).min()
    }

    /// The keys of the listed messages that came back by a redrive.
    pub(super) fn redriven_keys(&self) -> impl Iterator<Item = &str> {
        let redriven = self.oldest.iter();
        let redriven = redriven.filter(|one| one.id.lane == Lane::Redelivery);
        redriven.filter_map(|one| one.key.as_deref())
    }
}

/// Who is in an owned group and owns what; `None` for a shared group and for one that does not exist.
pub(super) async fn roster(store: &dyn Store, at: &GroupAt) -> Result<Option<Roster>, Error> {
    if !store.capabilities().ownership {
        return Ok(None);
    }
    let first = GroupAt {
        partition: Partition::numbered(at.topic(), 0),
        group: at.group.clone(),
    };
    match store.owners().roster(&first).await {
        Ok(roster) => Ok(Some(roster)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The partitions of an owned group, in their order, with up to `listed` failed messages each.
pub(super) async fn partitions(
    store: &dyn Store,
    at: &GroupAt,
    roster: &Roster,
    listed: usize,
) -> Result<Vec<OwnedPartition>, Error> {
    let count = store.topics().partitions(at.topic()).await?.unwrap_or(1);
    stream::iter(0..count)
        .map(|number| async move {
            let at = GroupAt {
                partition: Partition::numbered(at.topic(), number),
                group: at.group.clone(),
            };
            let progress = store.owners().progress(&at, listed).await?;
            Ok(OwnedPartition::new(at.topic(), number, roster, &progress))
        })
        .buffered(SIDE_BY_SIDE)
        .try_collect()
        .await
}

/// How many failed messages of an owned group hold back their keys, and how many of its partitions no
/// member owns; `None` where the group is gone.
pub(super) async fn counts(store: &dyn Store, at: &GroupAt) -> Result<Option<(u64, u64)>, Error> {
    let Some(roster) = roster(store, at).await? else {
        return Ok(None);
    };
    let all = partitions(store, at, &roster, 0).await?;
    let ownerless = all.iter().filter(|one| one.owner.is_none()).count() as u64;
    let held_back = all.iter().map(|one| one.held_back).sum();
    Ok(Some((held_back, ownerless)))
}

impl Topics {
    /// Lists the partitions of an owned group: the owner of each, how far it has come, and the failed
    /// messages that hold back their keys. Empty for a shared group, and where the group does not exist.
    /// Changes nothing; the rights of a viewer are enough.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn owned_partitions(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<Vec<OwnedPartition>, Error> {
        let at = GroupAt::of(topic, group);
        match roster(&*self.store, &at).await? {
            Some(roster) => partitions(&*self.store, &at, &roster, LISTED).await,
            None => Ok(Vec::new()),
        }
    }
}
