//! Messages for later: list, cancel and reschedule them.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Bus;
use crate::domain::{EntryId, Envelope, Error, Moved, ScheduleId, Timestamp, Topic, When};
use crate::store::{Fields, LaterEntry, LaterPlace, MAX_BATCH, Partition, Store};
use crate::wire::{Decoder, Undecodable};

/// A message for later.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduledMessage {
    /// The id of the message for later, within its partition.
    pub id: ScheduleId,
    /// The partition that keeps the message: the same id can name another message in another one.
    pub partition: u16,
    /// When the message is due, by the store's clock.
    pub due: Timestamp,
    /// How long until then, at the time of the call; zero once the message is due.
    pub due_in: Duration,
    /// The message, or why it is undecodable.
    pub envelope: Result<Envelope, Undecodable>,
    /// The fields that its entry in the topic will have, byte for byte.
    pub fields: Fields,
}

/// Lists messages for later, reschedules them, or cancels them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schedules {
    store: Arc<dyn Store>,
    bus: Bus,
    decoder: Decoder,
    /// The one partition that the calls mean.
    partition: Option<u16>,
}

impl Schedules {
    pub(crate) fn new(store: Arc<dyn Store>, bus: Bus, decoder: Decoder) -> Self {
        Self {
            store,
            bus,
            decoder,
            partition: None,
        }
    }

    /// Means one partition of each topic only. There an id names one message at most.
    #[must_use]
    pub fn in_partition(mut self, number: u16) -> Self {
        self.partition = Some(number);
        self
    }

    fn at(&self, topic: &Topic) -> Partition {
        match self.partition {
            Some(number) => Partition::numbered(topic, number),
            None => Partition::of(topic),
        }
    }

    /// Lists a topic's messages for later after `after`, earliest first: up to `max`, at most 500. A
    /// page of large messages is shorter; only the page after the last one is empty.
    ///
    /// The last message of a page is where the next page begins, so messages that leave between two
    /// pages shift nothing.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn list(
        &self,
        topic: &Topic,
        after: Option<&ScheduledMessage>,
        max: usize,
    ) -> Result<Vec<ScheduledMessage>, Error> {
        let after = after.map(|message| LaterPlace {
            due: message.due,
            partition: message.partition,
            id: &message.id,
        });
        let at = self.at(topic);
        let page = self.store.later().list(&at, after, max).await?;
        let entries = page.entries.into_iter();
        Ok(entries.map(|one| self.read(topic, one, page.now)).collect())
    }

    /// Cancels messages: removes them for good. To keep a copy, read them with [`list`](Self::list)
    /// first.
    ///
    /// An id can name a message in each partition of a topic. This cancels all of them, and returns the
    /// id once for each. To cancel one, name its partition: [`in_partition`](Self::in_partition).
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some messages may be gone.
    ///
    /// # Cancel safety
    ///
    /// Some messages may be gone when the future is dropped, none by half.
    pub async fn cancel(
        &self,
        topic: &Topic,
        ids: &[ScheduleId],
    ) -> Result<Moved<ScheduleId>, Error> {
        let at = self.at(topic);
        let mut result = Moved::default();
        for ids in ids.chunks(MAX_BATCH) {
            let cancelled = self.store.later().cancel(&at, ids).await?;
            for (id, count) in ids.iter().zip(cancelled) {
                match count {
                    0 => result.missing.push(id.clone()),
                    _ => result.moved.extend((0..count).map(|_| id.clone())),
                }
            }
        }
        tracing::info!(%topic, count = result.moved.len(), "messages for later cancelled");
        Ok(result)
    }

    /// Changes when a message is due, or the messages that an id names in several partitions. Returns the
    /// new time of each; none where no message of this id is scheduled. To change one of them, name its
    /// partition: [`in_partition`](Self::in_partition).
    ///
    /// # Errors
    ///
    /// As for [`Bus::reschedule`].
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped each message may have the old or the new time.
    pub async fn reschedule(
        &self,
        topic: &Topic,
        id: &ScheduleId,
        due: When,
    ) -> Result<Vec<Timestamp>, Error> {
        self.bus.reschedule_in(&self.at(topic), id, due).await
    }

    fn read(&self, topic: &Topic, one: LaterEntry, now: Timestamp) -> ScheduledMessage {
        let until = one.due.as_millis().saturating_sub(now.as_millis());
        // It has no entry in the log yet.
        let entry = EntryId::default();
        ScheduledMessage {
            envelope: self.decoder.decode(topic, entry, &one.fields).envelope,
            id: one.id,
            partition: one.partition,
            due: one.due,
            due_in: Duration::from_millis(u64::try_from(until).unwrap_or(0)),
            fields: one.fields,
        }
    }
}
