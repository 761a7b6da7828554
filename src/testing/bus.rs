//! A container for tests, with its published messages, calls of handlers and dead letters.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use uuid::Uuid;

use super::assertions::{DeadLetterList, Handled, Handling, PublishedMessages, payload};
use super::faults::Faults;
use super::recorder::Recorder;
use crate::adapters::memory::{ManualClock, MemoryStore};
use crate::api::observe::Observer;
use crate::api::{Delivery, Message, Published};
use crate::container::{Container, ContainerBuilder};
use crate::domain::{
    DeadLetterFilter, EntryId, Envelope, Error, Group, Namespace, Outcome, Timestamp, Topic,
};
use crate::store::{Fields, GroupAt, MAX_BATCH, Partition, Store};
use crate::wire::{Limits, decode_entry};

/// How many times the clock is set forward until a test counts as endless.
const MAX_STEPS: usize = 1000;

/// The calls of handlers so far.
#[derive(Debug, Default)]
struct Calls(Mutex<Vec<Handling>>);

impl Observer for Calls {
    fn handled(&self, delivery: &Delivery, outcome: &Outcome) {
        let call = Handling {
            topic: delivery.topic().clone(),
            group: delivery.group().clone(),
            envelope: delivery.envelope().clone(),
            attempt: delivery.attempt(),
            outcome: outcome.clone(),
        };
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call);
    }
}

/// Where a test bus stores everything.
enum Place {
    Memory(MemoryStore, ManualClock),
    /// The URL of a server.
    Server(String),
}

impl Place {
    fn clock(&self) -> Option<&ManualClock> {
        match self {
            Self::Memory(_, clock) => Some(clock),
            Self::Server(_) => None,
        }
    }

    /// The store of a namespace.
    async fn store(&self, namespace: Namespace) -> Arc<dyn Store> {
        match self {
            Self::Memory(store, _) => store.store(Some(namespace)),
            Self::Server(url) => {
                let builder = Container::builder()
                    .with_redis_url(url)
                    .with_namespace(namespace);
                let connected = builder.connect().await;
                let connected =
                    connected.unwrap_or_else(|e| panic!("the server cannot be used: {e:?}"));
                connected.store()
            }
        }
    }
}

/// A container for tests: on a store in memory whose clock the test sets, or on a server.
///
/// The test makes its connection fail, waits until all work is done, and looks at the calls of
/// handlers, the published messages and the dead letters.
///
/// The methods panic with a description when an operation fails.
/// [Testing your handlers](crate::docs::testing) shows examples.
pub struct TestBus {
    container: Container,
    place: Place,
    recorder: Recorder,
    faults: Faults,
    calls: Arc<Calls>,
    patience: Duration,
}

impl fmt::Debug for TestBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestBus")
            .field("clock", &self.place.clock())
            .finish_non_exhaustive()
    }
}

impl TestBus {
    /// Connects a container of a service to an empty store in memory. Its clock starts at this
    /// machine's time and then stands still.
    ///
    /// # Panics
    ///
    /// When `service` is not a valid group name.
    pub async fn start(service: &str) -> Self {
        let clock = ManualClock::new(Timestamp::now());
        let memory = MemoryStore::with_clock(clock.clone());
        let store = memory.store(None);
        Self::on(store, Place::Memory(memory, clock), service).await
    }

    /// Connects a container of a service to a server, in a fresh namespace.
    ///
    /// The same tests run as in memory, except that time passes by itself: [`advance`](Self::advance)
    /// and [`clock`](Self::clock) panic. The keys of the namespace stay; use a server that the test
    /// run throws away.
    ///
    /// # Panics
    ///
    /// When the server cannot be reached, or `service` is not a valid group name.
    pub async fn start_on(url: &str, service: &str) -> Self {
        let namespace = Namespace::new(format!("test-{}", Uuid::now_v7().simple()));
        let namespace = namespace.unwrap_or_else(|e| unreachable!("{e}"));
        let place = Place::Server(url.to_owned());
        Self::on(place.store(namespace).await, place, service).await
    }

    async fn on(store: Arc<dyn Store>, place: Place, service: &str) -> Self {
        let recorder = Recorder::on(store);
        let faults = Faults::on(recorder.store());
        let calls = Arc::<Calls>::default();
        let observer = Arc::clone(&calls) as Arc<dyn Observer>;
        let builder = Container::builder().with_observer(observer);
        let container = connect(builder, faults.store(), service).await;
        Self {
            container,
            place,
            recorder,
            faults,
            calls,
            patience: Duration::from_secs(60),
        }
    }

    /// Sets how long [`settle`](Self::settle) and [`stop`](Self::stop) wait before they panic; by
    /// default one minute. A test that passes never waits for it.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
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
        let Some(namespace) = namespace else {
            let observer = Arc::clone(&self.calls) as Arc<dyn Observer>;
            let builder = builder.with_observer(observer);
            return connect(builder, self.faults.store(), service).await;
        };
        let store = self.faults.also_on(self.place.store(namespace).await);
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
    ///
    /// # Panics
    ///
    /// On a server.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        let rule = "a test bus on a server cannot set the clock";
        self.place.clock().unwrap_or_else(|| panic!("{rule}"))
    }

    /// Sets the clock forward, and [settles](Self::settle): retries and snoozed messages that become
    /// due are delivered.
    ///
    /// # Panics
    ///
    /// As [`settle`](Self::settle), and on a server.
    pub async fn advance(&self, by: Duration) {
        self.clock().advance(by);
        self.settle().await;
    }

    /// Goes through every scheduled retry and snoozed message until none is left: the clock is set
    /// forward to each in turn. On a server they run before their time.
    ///
    /// # Panics
    ///
    /// As [`settle`](Self::settle), and when messages are still scheduled after 1,000 steps, because
    /// a handler snoozes for ever.
    pub async fn run_to_end(&self) {
        self.settle().await;
        for _ in 0..MAX_STEPS {
            match self.next_step().await {
                Ok(true) => self.settle().await,
                Ok(false) => return,
                Err(error) => panic!("the scheduled retries cannot be read: {error:?}"),
            }
        }
        panic!("messages are still scheduled after {MAX_STEPS} steps");
    }

    /// Makes the earliest scheduled message due. Returns whether there was one.
    async fn next_step(&self) -> Result<bool, Error> {
        let retries = self.container.retries();
        let mut earliest: Option<Duration> = None;
        for (topic, group) in self.groups().await? {
            let scheduled = retries.list(&topic, &group, None, MAX_BATCH).await?;
            let Some(first) = scheduled.first() else {
                continue;
            };
            earliest = Some(earliest.map_or(first.due_in, |due| due.min(first.due_in)));
            if self.place.clock().is_none() {
                let ids: Vec<_> = scheduled.iter().map(|one| one.id).collect();
                retries.run_now(&topic, &group, &ids).await?;
            }
        }
        if let (Some(clock), Some(due_in)) = (self.place.clock(), earliest) {
            // The clock counts whole milliseconds.
            clock.advance(due_in + Duration::from_millis(1));
        }
        Ok(earliest.is_some())
    }

    async fn groups(&self) -> Result<Vec<(Topic, Group)>, Error> {
        let (store, mut groups) = (self.recorder.store(), Vec::new());
        for topic in store.topics().list().await? {
            let status = store.inspect().status(&Partition::of(&topic)).await?;
            let found = status.into_iter().flat_map(|status| status.groups);
            groups.extend(found.map(|group| (topic.clone(), group.group)));
        }
        Ok(groups)
    }

    /// Publishes a message, and [settles](Self::settle).
    ///
    /// # Panics
    ///
    /// When publishing fails, and as [`settle`](Self::settle).
    pub async fn send<T: Message + Serialize>(&self, topic: &Topic, message: &T) -> Published {
        let sending = self.container.bus();
        let sent = sending.send(topic, message).await;
        let sent = sent.unwrap_or_else(|e| panic!("publishing failed: {e:?}"));
        self.settle().await;
        sent
    }

    /// Publishes an envelope, and [settles](Self::settle).
    ///
    /// # Panics
    ///
    /// When publishing fails, and as [`settle`](Self::settle).
    pub async fn publish(&self, topic: &Topic, envelope: &Envelope) -> Published {
        let published = self.container.bus().publish(topic, envelope).await;
        let published = published.unwrap_or_else(|e| panic!("publishing failed: {e:?}"));
        self.settle().await;
        published
    }

    /// The calls of a group's handlers so far, in the order in which they ended. A call that has not
    /// returned is not among them.
    #[must_use = "it asserts nothing by itself"]
    pub fn handled(&self, topic: &Topic, group: impl AsRef<str>) -> Handled {
        let group = group.as_ref();
        let calls = self.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_group = calls
            .iter()
            .filter(|call| call.topic == *topic && call.group.as_str() == group);
        Handled {
            name: format!("{topic}/{group}"),
            calls: of_group.cloned().collect(),
        }
    }

    /// The messages published to a topic so far, in order, including those that retention removed.
    ///
    /// # Panics
    ///
    /// When a message cannot be decoded.
    #[must_use = "it asserts nothing by itself"]
    pub fn published(&self, topic: &Topic) -> PublishedMessages {
        PublishedMessages {
            name: topic.to_string(),
            envelopes: envelopes(topic, self.recorder.published(topic)),
        }
    }

    /// The payloads of the messages that a group has acknowledged so far, in that order.
    ///
    /// # Panics
    ///
    /// When a payload does not decode as `T`, or `group` is not a valid name.
    #[must_use]
    pub fn acknowledged<T: DeserializeOwned>(
        &self,
        topic: &Topic,
        group: impl AsRef<str>,
    ) -> Vec<T> {
        let settled = self.recorder.settled(topic, &name(group.as_ref()));
        envelopes(topic, settled).iter().map(payload).collect()
    }

    /// A group's dead letters, oldest first.
    ///
    /// # Panics
    ///
    /// When the store fails, for example while the connection is lost, or `group` is not a valid name.
    #[must_use = "it asserts nothing by itself"]
    pub async fn dead_letters(&self, topic: &Topic, group: impl AsRef<str>) -> DeadLetterList {
        let group = name(group.as_ref());
        let dead = self.container.dead_letters();
        let reading = async {
            let (mut letters, mut after) = (Vec::new(), None);
            loop {
                let filter = DeadLetterFilter::default();
                let page = dead.list(topic, &group, &filter, after, 500).await?;
                let ids: Vec<EntryId> = page.items.iter().map(|(id, _)| *id).collect();
                letters.extend(dead.get(topic, &group, &ids).await?);
                after = page.next;
                if after.is_none() {
                    return Ok::<_, Error>(letters);
                }
            }
        };
        let letters = reading.await;
        DeadLetterList {
            name: format!("{topic}/{group}"),
            letters: letters.unwrap_or_else(|e| panic!("the dead letters cannot be read: {e:?}")),
        }
    }

    /// Waits until every group has settled every message that is due now. Retries that are due later
    /// wait for [`advance`](Self::advance) or [`run_to_end`](Self::run_to_end).
    ///
    /// # Panics
    ///
    /// When that takes longer than the [patience](Self::with_patience). The message lists the groups
    /// with unsettled messages.
    pub async fn settle(&self) {
        let until = Instant::now() + self.patience;
        loop {
            let busy = match self.promoted_and_busy().await {
                Ok(busy) if busy.is_empty() => return,
                Ok(busy) => busy.join("; "),
                Err(error) => format!("{error:?}"),
            };
            assert!(
                Instant::now() < until,
                "not idle after {:?}: {busy}",
                self.patience
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Promotes due retries first, so that they count as work.
    async fn promoted_and_busy(&self) -> Result<Vec<String>, Error> {
        let recorder = self.recorder.store();
        for (topic, group) in self.groups().await? {
            let at = GroupAt::of(&topic, &group);
            recorder.schedule().promote(&at, MAX_BATCH).await?;
        }
        self.recorder.busy().await
    }

    /// Shuts the container down.
    ///
    /// # Panics
    ///
    /// When handlers had to be cancelled after the [patience](Self::with_patience), or deliveries
    /// could not be settled.
    pub async fn stop(self) {
        let report = self.container.shutdown(self.patience).await;
        assert!(
            report.is_clean(),
            "the shutdown left work behind: {report:?}"
        );
    }
}

fn name(group: &str) -> Group {
    Group::new(group).unwrap_or_else(|e| panic!("{e}"))
}

async fn connect(builder: ContainerBuilder, store: Arc<dyn Store>, service: &str) -> Container {
    let builder = builder.with_store(store).with_service(name(service));
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
