//! What waits for its time: failed messages before their next attempt, and snoozed ones.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{DeliveryHistory, Envelope, Error, Group, Moved, Timestamp, Topic};
use crate::store::{DeliveryId, Fields, GroupAt, MAX_BATCH, Scheduled, Store};
use crate::wire::redelivery::{RETRY_FIELD, Redelivery};
use crate::wire::{Limits, Undecodable, decode_entry};

/// A message that waits for its time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduledRetry {
    /// The delivery that ended with it; what it is chosen by.
    pub id: DeliveryId,
    /// When it is due, by the store's clock.
    pub due: Timestamp,
    /// How long until then, when it was listed; zero once it is due.
    pub due_in: Duration,
    /// The message with its attempts so far and its last error, or why it cannot be read.
    pub envelope: Result<Envelope, Undecodable>,
    /// Where it began, its history and how often it was redriven.
    pub history: DeliveryHistory,
    /// Its fields, byte for byte.
    pub fields: Fields,
}

/// Looks at what waits for its time, brings it back early, or removes it.
#[derive(Clone, Debug)]
pub struct Retries {
    store: Arc<dyn Store>,
}

impl Retries {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Lists what waits for its time in a group, earliest first: up to `max`, at most 500, of
    /// what comes after `after`. Fewer where the messages are large; none only at the end.
    ///
    /// The last one of a page is where the next page begins: what leaves meanwhile shifts nothing.
    /// What is due and has left for the group's redo lane is not among them.
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

    /// Brings messages back now: they go to the group's redo lane, as if they were due. Attempts
    /// count on.
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some may have been brought back.
    ///
    /// # Cancel safety
    ///
    /// Some of them may have been brought back when the future is dropped, none by half.
    pub async fn run_now(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[DeliveryId],
    ) -> Result<Moved<DeliveryId>, Error> {
        let mut chosen = Moved::default();
        for ids in ids.chunks(MAX_BATCH) {
            let done = self
                .store
                .schedule()
                .run_now(&GroupAt::of(topic, group), ids)
                .await?;
            chosen.add(ids, &done);
            let count = done.iter().filter(|done| **done).count();
            count_retries("redstart_retries_run_now_total", topic, group, count);
        }
        let count = chosen.moved.len();
        tracing::info!(%topic, %group, count, "retries run now");
        Ok(chosen)
    }

    /// Removes messages for good. They do not become dead letters: those are what the group has
    /// failed, and this is what nobody wants any more. What it is to be kept for later is in
    /// [`list`](Self::list).
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some may have been removed.
    ///
    /// # Cancel safety
    ///
    /// Some of them may have been removed when the future is dropped.
    pub async fn cancel(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[DeliveryId],
    ) -> Result<Moved<DeliveryId>, Error> {
        let mut chosen = Moved::default();
        for ids in ids.chunks(MAX_BATCH) {
            let done = self
                .store
                .schedule()
                .cancel(&GroupAt::of(topic, group), ids)
                .await?;
            chosen.add(ids, &done);
            let count = done.iter().filter(|done| **done).count();
            count_retries("redstart_retries_cancelled_total", topic, group, count);
        }
        let count = chosen.moved.len();
        tracing::info!(%topic, %group, count, "retries cancelled");
        Ok(chosen)
    }
}

fn count_retries(name: &'static str, topic: &Topic, group: &Group, count: usize) {
    metrics::counter!(name, "topic" => topic.to_string(), "group" => group.to_string())
        .increment(count as u64);
}

fn read(topic: &Topic, one: Scheduled, now: Timestamp) -> ScheduledRetry {
    let until = one.due.as_millis().saturating_sub(now.as_millis());
    let stored = vec![(bytes::Bytes::from_static(RETRY_FIELD), one.redelivery)];
    let (envelope, history, fields) = match Redelivery::decode(&stored) {
        Ok(redelivery) => {
            let pairs = redelivery.fields.iter();
            let pairs = pairs.map(|(name, value)| (&name[..], &value[..]));
            // It was taken in within the limits of then.
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
