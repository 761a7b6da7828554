//! Scheduled retries: failed messages before their next attempt, and snoozed messages.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{BoxFuture, DeliveryHistory, Envelope, Error, Group, Moved, Timestamp, Topic};
use crate::store::{DeliveryId, Fields, GroupAt, MAX_BATCH, Scheduled, Store};
use crate::wire::redelivery::{RETRY_FIELD, Redelivery};
use crate::wire::{Limits, Undecodable, decode_entry};

/// A retry or a snoozed message that is not due yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduledRetry {
    /// The delivery that ended with this retry; identifies the retry.
    pub id: DeliveryId,
    /// When the retry is due, by the store's clock.
    pub due: Timestamp,
    /// How long until then, at the time of the call; zero once the retry is due.
    pub due_in: Duration,
    /// The message with its attempts so far and its last error, or why it is undecodable.
    pub envelope: Result<Envelope, Undecodable>,
    /// The origin of the message, its failed attempts and how often it was redriven.
    pub history: DeliveryHistory,
    /// The message's fields, byte for byte.
    pub fields: Fields,
}

/// Lists scheduled retries, runs them early, or cancels them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Retries {
    store: Arc<dyn Store>,
}

impl Retries {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Lists a group's scheduled retries after `after`, earliest first: up to `max`, at most 500.
    /// A page of large messages is shorter; only the page after the last one is empty.
    ///
    /// The last retry of a page is where the next page begins, so retries that leave between two
    /// pages shift nothing. The list leaves out due retries in the group's redelivery stream.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn list(
        &self,
        topic: &Topic,
        group: &Group,
        after: Option<&ScheduledRetry>,
        max: usize,
    ) -> Result<Vec<ScheduledRetry>, Error> {
        let after = after.map(|retry| (retry.due, retry.id));
        let page = self
            .store
            .schedule()
            .list(&GroupAt::of(topic, group), after, max)
            .await?;
        let entries = page.entries.into_iter();
        Ok(entries.map(|one| read(topic, one, page.now)).collect())
    }

    /// Runs retries now: the store moves them to the group's redelivery stream, as if they were
    /// due. Their failed attempts still count.
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some retries may have moved.
    ///
    /// # Cancel safety
    ///
    /// Some retries may have moved when the future is dropped, none by half.
    pub async fn run_now(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[DeliveryId],
    ) -> Result<Moved<DeliveryId>, Error> {
        let at = GroupAt::of(topic, group);
        let run = |ids| self.store.schedule().run_now(&at, ids);
        let moved = in_batches(ids, &at, "redstart_retries_run_now_total", run).await?;
        tracing::info!(%topic, %group, count = moved.moved.len(), "retries run now");
        Ok(moved)
    }

    /// Cancels retries: removes their messages for good. They do not become dead letters. To keep
    /// a copy, read them with [`list`](Self::list) first.
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some retries may be gone.
    ///
    /// # Cancel safety
    ///
    /// Some retries may be gone when the future is dropped.
    pub async fn cancel(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[DeliveryId],
    ) -> Result<Moved<DeliveryId>, Error> {
        let at = GroupAt::of(topic, group);
        let cancel = |ids| self.store.schedule().cancel(&at, ids);
        let moved = in_batches(ids, &at, "redstart_retries_cancelled_total", cancel).await?;
        tracing::info!(%topic, %group, count = moved.moved.len(), "retries cancelled");
        Ok(moved)
    }
}

/// Takes retries away in batches, and counts those that were there.
async fn in_batches<'a>(
    ids: &'a [DeliveryId],
    at: &GroupAt,
    counter: &'static str,
    take: impl Fn(&'a [DeliveryId]) -> BoxFuture<'a, Result<Vec<bool>, Error>>,
) -> Result<Moved<DeliveryId>, Error> {
    let mut result = Moved::default();
    for ids in ids.chunks(MAX_BATCH) {
        let moved = take(ids).await?;
        result.add(ids, &moved);
        let count = moved.iter().filter(|moved| **moved).count() as u64;
        metrics::counter!(counter, "topic" => at.topic().to_string(), "group" => at.group.to_string())
            .increment(count);
    }
    Ok(result)
}

pub(super) fn read(topic: &Topic, one: Scheduled, now: Timestamp) -> ScheduledRetry {
    let until = one.due.as_millis().saturating_sub(now.as_millis());
    let stored = vec![(bytes::Bytes::from_static(RETRY_FIELD), one.redelivery)];
    let (envelope, history, fields) = match Redelivery::decode(&stored) {
        Ok(redelivery) => {
            let pairs = redelivery.fields.iter();
            let pairs = pairs.map(|(name, value)| (&name[..], &value[..]));
            // The limits in force when it was published may have been wider.
            let limits = Limits::default().without_bound();
            let envelope = decode_entry(topic, redelivery.history.origin, pairs, limits);
            (envelope, redelivery.history, redelivery.fields)
        }
        Err(flaw) => (Err(flaw), DeliveryHistory::default(), stored),
    };
    ScheduledRetry {
        id: one.receipt,
        due: one.due,
        due_in: Duration::from_millis(u64::try_from(until).unwrap_or(0)),
        envelope,
        history,
        fields,
    }
}
