//! A container for tests, with its published messages, outcomes and dead letters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::faults::Faults;
use super::recorder::Recorder;
use crate::adapters::memory::{ManualClock, MemoryStore};
use crate::api::Published;
use crate::container::{Container, ContainerBuilder};
use crate::domain::{
    DeadLetter, DeadLetterFilter, EntryId, Envelope, Error, Group, Timestamp, Topic,
};
use crate::store::{Fields, GroupAt, Partition, Store};
use crate::wire::{Limits, decode_entry};

/// A container on a store in memory. The test sets its clock and makes its connection fail.
///
/// The methods panic with a description when an operation fails.
/// [Testing your handlers](crate::docs::testing) shows examples.
pub struct TestBus {
    container: Container,
    store: MemoryStore,
    clock: ManualClock,
    recorder: Recorder,
    faults: Faults,
}

impl fmt::Debug for TestBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestBus")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl TestBus {
    /// Connects a container of a service to an empty store. Its clock starts at this machine's time
    /// and then stands still.
    ///
    /// # Panics
    ///
    /// When `service` is not a valid group name.
    pub async fn start(service: &str) -> Self {
        let clock = ManualClock::new(Timestamp::now());
        let store = MemoryStore::with_clock(clock.clone());
        let recorder = Recorder::on(store.store(None));
        let faults = Faults::on(recorder.store());
        let container = connect(Container::builder(), faults.store(), service).await;
        Self {
            container,
            store,
            clock,
            recorder,
            faults,
        }
    }

    /// Connects another container to the same store, as a second process of a system would. The
    /// builder holds its own settings, such as coordinators.
    ///
    /// With a namespace in the builder, the container belongs to another system on the same store:
    /// it shares clock and faults with this one, and no topic and no value. The methods of this bus
    /// then do not see what it does.
    ///
    /// # Panics
    ///
    /// When `service` is not a valid group name, the namespace is not valid, or a coordinator fails
    /// to start.
    pub async fn second_process(&self, builder: ContainerBuilder, service: &str) -> Container {
        let namespace = builder.namespace().unwrap_or_else(|e| panic!("{e}"));
        let store = match namespace {
            None => self.faults.store(),
            Some(namespace) => self.faults.also_on(self.store.store(Some(namespace))),
        };
        connect(builder, store, service).await
    }

    /// The container, as the code under test gets it.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The connection to the store, which can be made to fail.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The store's clock.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Sets the clock forward. Retries and snoozed messages that become due are delivered.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Publishes a payload under a type.
    ///
    /// # Panics
    ///
    /// When publishing fails.
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        topic: &Topic,
        kind: &str,
        payload: &T,
    ) -> Published {
        let envelope = Envelope::new(kind, payload)
            .unwrap_or_else(|e| panic!("the payload cannot be encoded: {e}"));
        let published = self.container.bus().publish(topic, &envelope).await;
        published.unwrap_or_else(|e| panic!("publishing failed: {e:?}"))
    }

    /// The payloads published to a topic so far, in order, including those that retention removed.
    ///
    /// # Panics
    ///
    /// When a payload does not decode as `T`.
    #[must_use]
    pub fn published<T: DeserializeOwned>(&self, topic: &Topic) -> Vec<T> {
        payloads(self.published_envelopes(topic))
    }

    /// The messages published to a topic so far, in order.
    ///
    /// # Panics
    ///
    /// When a message cannot be decoded.
    #[must_use]
    pub fn published_envelopes(&self, topic: &Topic) -> Vec<Envelope> {
        envelopes(topic, self.recorder.published(topic))
    }

    /// The payloads of the messages that a group has acknowledged so far, in that order.
    ///
    /// # Panics
    ///
    /// When a payload does not decode as `T`.
    #[must_use]
    pub fn acknowledged<T: DeserializeOwned>(&self, topic: &Topic, group: &Group) -> Vec<T> {
        payloads(envelopes(topic, self.recorder.settled(topic, group)))
    }

    /// A group's dead letters, oldest first.
    ///
    /// # Panics
    ///
    /// When the store fails, for example while the connection is lost.
    pub async fn dead_letters(&self, topic: &Topic, group: &Group) -> Vec<DeadLetter> {
        let dead = self.container.dead_letters();
        let reading = async {
            let (mut letters, mut after) = (Vec::new(), None);
            loop {
                let filter = DeadLetterFilter::default();
                let page = dead.list(topic, group, &filter, after, 500).await?;
                let ids: Vec<EntryId> = page.items.iter().map(|(id, _)| *id).collect();
                letters.extend(dead.get(topic, group, &ids).await?);
                after = page.next;
                if after.is_none() {
                    return Ok::<_, Error>(letters);
                }
            }
        };
        reading
            .await
            .unwrap_or_else(|e| panic!("the dead letters cannot be read: {e:?}"))
    }

    /// Waits until every group has settled every message that is due now. Retries that are due later
    /// wait for [`advance`](Self::advance).
    ///
    /// # Panics
    ///
    /// When that takes longer than `deadline`. The message lists the groups with unsettled messages.
    pub async fn settle(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        loop {
            let busy = match self.promoted_and_busy().await {
                Ok(busy) if busy.is_empty() => return,
                Ok(busy) => busy.join("; "),
                Err(error) => format!("{error:?}"),
            };
            assert!(
                Instant::now() < until,
                "not idle after {deadline:?}: {busy}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Promotes due retries first, so that they count as work.
    async fn promoted_and_busy(&self) -> Result<Vec<String>, crate::Error> {
        let recorder = self.recorder.store();
        for topic in recorder.topics().list().await? {
            let Some(status) = recorder.inspect().status(&Partition::of(&topic)).await? else {
                continue;
            };
            for group in status.groups {
                let max = crate::store::MAX_BATCH;
                let at = GroupAt::of(&topic, &group.group);
                recorder.schedule().promote(&at, max).await?;
            }
        }
        self.recorder.busy().await
    }

    /// Shuts the container down.
    ///
    /// # Panics
    ///
    /// When handlers had to be cancelled after `deadline`, or deliveries could not be settled.
    pub async fn stop(self, deadline: Duration) {
        let report = self.container.shutdown(deadline).await;
        assert!(
            report.is_clean(),
            "the shutdown left work behind: {report:?}"
        );
    }
}

async fn connect(builder: ContainerBuilder, store: Arc<dyn Store>, service: &str) -> Container {
    let service = Group::new(service).unwrap_or_else(|e| panic!("{e}"));
    let builder = builder.with_store(store).with_service(service);
    let container = builder.connect().await;
    container.unwrap_or_else(|e| panic!("the container does not start: {e:?}"))
}

fn envelopes(topic: &Topic, entries: Vec<(EntryId, Fields)>) -> Vec<Envelope> {
    let decode = |(id, fields): (EntryId, Fields)| {
        let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
        let limits = Limits::default().without_bound();
        decode_entry(topic, id, pairs, limits)
            .unwrap_or_else(|e| panic!("entry {id} of {topic} cannot be decoded: {e}"))
    };
    entries.into_iter().map(decode).collect()
}

fn payloads<T: DeserializeOwned>(envelopes: Vec<Envelope>) -> Vec<T> {
    let payload = |envelope: Envelope| {
        let id = envelope.id();
        let payload = envelope.payload();
        payload.unwrap_or_else(|e| panic!("the payload of message {id} has another type: {e:?}"))
    };
    envelopes.into_iter().map(payload).collect()
}
