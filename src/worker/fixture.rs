//! What the unit tests of the worker run on: a group in memory, and the parts of a subscription.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::adapters::memory::{ManualClock, MemoryStore};
use crate::api::{Delivery, IntoRouter, Payload, PublishHooks, RawHandler, SubscribeOptions, Work};
use crate::bus::Publishing;
use crate::domain::{
    Codec, ConsumerName, DeadLetter, DeliveryHistory, Envelope, Group, Outcome, Reason,
    RetryPolicy, TopicSettings,
};
use crate::store::{
    Attempts, Bell, Commit, Commits, DeliveryId, Fate, Fetched, Member, NewEntry, Opening,
    ReclaimCursor, StartFrom, Store, Unmarked,
};
use crate::wire::dead_letter::encode_record;
use crate::wire::{Decoder, Limits, encode_entry};
use crate::worker::core::{Core, Settlements};
use crate::worker::fault::Fault;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::lease::GroupLease;
use crate::worker::meters::Meters;
use crate::worker::script::Script;
use crate::worker::services::lease_keeper::LeaseKeeper;
use crate::worker::stir::Stir;

pub(crate) fn member() -> Member {
    let topic = crate::domain::Topic::new("orders").unwrap();
    let group = Group::new("billing").unwrap();
    Member::of(&topic, &group, ConsumerName::new("one").unwrap())
}

/// Another consumer of the group.
pub(crate) fn other() -> Member {
    Member {
        consumer: ConsumerName::new("two").unwrap(),
        ..member()
    }
}

/// A handler that tells the test of each call, and ends it so.
pub(crate) fn handler(outcome: Outcome) -> (Arc<dyn RawHandler>, Calls) {
    let (sender, calls) = mpsc::unbounded_channel();
    let function = move |Payload(number): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((number, delivery.attempt()));
        let outcome = outcome.clone();
        async { outcome }
    };
    (each(function), calls)
}

/// A function as a handler of one message at a time.
pub(crate) fn each<Marker>(function: impl IntoRouter<Marker>) -> Arc<dyn RawHandler> {
    match function.into_work(None).unwrap() {
        Work::Each(handler) => handler,
        Work::Batches(_) => panic!("a batch handler"),
    }
}

/// Options for a number of attempts without delays between them.
pub(crate) fn at_most(attempts: u32) -> SubscribeOptions {
    let retry = RetryPolicy::fixed(Duration::ZERO).with_max_attempts(attempts);
    SubscribeOptions::new().with_retry(retry)
}

/// Hands messages to a subscription.
pub(crate) fn hand_out(core: &Core, fetched: &[Fetched], taken_over: bool) {
    let new = core.accept(fetched.to_vec(), taken_over, Instant::now());
    assert_eq!(new, fetched.len());
}

/// The current hand-out of an entry.
pub(crate) fn current(core: &Core, id: DeliveryId) -> HandOut {
    let (all, _) = core.in_flight.hand_outs();
    *all.iter().find(|one| one.id == id).unwrap()
}

/// Lets another consumer have a delivery.
pub(crate) fn lose(core: &Core, id: DeliveryId) {
    assert_eq!(core.in_flight.lose([current(core, id)]), 1);
}

/// The message's number and the attempt of each call.
pub(crate) type Calls = mpsc::UnboundedReceiver<(u32, u32)>;

/// Everything that is in a channel.
pub(crate) fn all<T>(calls: &mut mpsc::UnboundedReceiver<T>) -> Vec<T> {
    std::iter::from_fn(|| calls.try_recv().ok()).collect()
}

/// The receipts of deliveries.
pub(crate) fn ids(fetched: &[Fetched]) -> Vec<DeliveryId> {
    fetched.iter().map(|one| one.receipt).collect()
}

/// What a wait brings, which ends soon.
pub(crate) async fn within<T>(waiting: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.expect("an end of the wait")
}

/// The next delivery for a worker: a first attempt.
pub(crate) async fn queued(core: &Core) -> DeliveryId {
    let queued = within(core.queue.next()).await.unwrap();
    assert_eq!(queued.lease.before(), Attempts::default());
    queued.fetched.receipt
}

pub(crate) struct Fixture {
    pub(crate) clock: ManualClock,
    pub(crate) script: Script,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
}

impl Fixture {
    /// A group without messages.
    pub(crate) async fn new() -> Self {
        let clock = ManualClock::new("2025-11-12T14:20:00Z".parse().unwrap());
        let script = Script::default();
        let store = script.before(MemoryStore::with_clock(clock.clone()).store(None));
        let member = Arc::new(member());
        let (topics, settings) = (store.topics(), TopicSettings::default());
        topics.ensure_topic(member.topic(), settings).await.unwrap();
        let start = StartFrom::Beginning;
        topics.create_group(&member.at, start).await.unwrap();
        Self {
            clock,
            script,
            store,
            member,
        }
    }

    /// The shared state of a subscription with these options.
    pub(crate) fn core(&self, options: SubscribeOptions) -> (Arc<Core>, Settlements) {
        let (core, settlements) = self.new_core(options);
        (Arc::new(core), settlements)
    }

    /// The same for a store that tells of changes by a bell.
    pub(crate) fn core_with_bell(
        &self,
        options: SubscribeOptions,
        bell: &Arc<Bell>,
    ) -> (Arc<Core>, Settlements) {
        let (mut core, settlements) = self.new_core(options);
        core.stir = Arc::new(Stir::new(Some(Arc::clone(bell))));
        core.tracks.set_stir(&mut core.settling, &core.stir);
        (Arc::new(core), settlements)
    }

    fn new_core(&self, options: SubscribeOptions) -> (Core, Settlements) {
        let (store, work) = (Arc::clone(&self.store), Work::Each(handler(Outcome::Ack).0));
        let (limits, settings) = (Limits::default(), TopicSettings::default());
        let hooks = PublishHooks::default();
        let publishing = Publishing::new(Arc::clone(&store), Codec::Json, limits, None, hooks);
        let publishing = Arc::new(publishing);
        let (core, mut settlements) = Core::new(
            store,
            member(),
            options,
            Decoder::default(),
            settings,
            &work,
            publishing,
        );
        (core, settlements.remove(0))
    }

    /// Publishes messages with the numbers from 0.
    pub(crate) async fn publish(&self, count: usize) {
        let entries = (0..count).map(|number| {
            let envelope = Envelope::new("order.placed", &number).unwrap();
            let (name, bytes) = encode_entry(&envelope, Codec::Json, Limits::default()).unwrap();
            NewEntry {
                id: envelope.id(),
                name,
                value: Bytes::from(bytes),
                slot: envelope.slot(),
            }
        });
        let (at, entries) = (&self.member.at.partition, entries.collect::<Vec<_>>());
        for appended in self.store.log().append(at, &entries).await.unwrap() {
            appended.unwrap();
        }
    }

    /// Publishes messages and fetches them.
    pub(crate) async fn fetch(&self, count: usize) -> Vec<Fetched> {
        self.publish(count).await;
        let opening = Opening::of(&self.member);
        let (mut reader, _) = self.store.open(&opening).await.unwrap();
        let fetched = reader.fetch(count, Duration::ZERO).await.unwrap();
        assert_eq!(fetched.len(), count);
        fetched
    }

    /// A subscription that holds messages, and these as they were handed out.
    pub(crate) async fn holding(
        &self,
        options: SubscribeOptions,
        (count, taken_over): (usize, bool),
    ) -> (Arc<Core>, Settlements, Vec<Fetched>) {
        let fetched = self.fetch(count).await;
        let (core, settlements) = self.core(options);
        hand_out(&core, &fetched, taken_over);
        core.queue.close();
        self.script.calls();
        (core, settlements, fetched)
    }

    /// Lets another consumer of the group take a delivery over.
    pub(crate) async fn take_over(&self, id: DeliveryId) {
        self.commit(Commit::release(id)).await;
        assert_eq!(self.given_back().await.len(), 1);
    }

    /// Lets another consumer take over what was given back. Returns each, with the attempts that
    /// count as begun.
    pub(crate) async fn given_back(&self) -> Vec<(DeliveryId, u32)> {
        self.claimed_by_another(Duration::from_secs(30)).await
    }

    /// Lets another consumer take over what was leased longer ago than this.
    pub(crate) async fn claimed_by_another(&self, lease: Duration) -> Vec<(DeliveryId, u32)> {
        let cursor = ReclaimCursor::default();
        let (deliveries, other) = (self.store.deliveries(), other());
        let reclaimed = deliveries.claim_expired(&other, lease, Unmarked::Begun, cursor, 100);
        let taken = reclaimed.await.unwrap().taken.into_iter();
        taken.map(|one| (one.receipt, one.attempts.begun)).collect()
    }

    /// What the store assigns to the subscription's consumer.
    pub(crate) async fn pending(&self) -> Vec<DeliveryId> {
        let pending = self.store.deliveries().pending_of(&self.member, 100);
        pending.await.unwrap()
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        assert!(waited.is_ok(), "timed out: {what}");
    }

    pub(crate) async fn commit(&self, commit: Commit) {
        let commits = Commits::from_iter([commit]);
        let replies = self.store.deliveries().commit(&self.member, &commits).await;
        let fates = replies.unwrap().answered().unwrap();
        assert!(fates.iter().all(|fate| *fate == Fate::Done), "{fates:?}");
    }

    pub(crate) async fn acknowledge(&self, id: DeliveryId) {
        self.commit(Commit::ack(id)).await;
    }

    pub(crate) async fn reschedule(&self, id: DeliveryId, delay: Duration) {
        let redelivery = Bytes::from_static(b"later");
        self.commit(Commit::reschedule(id, delay, redelivery)).await;
    }

    /// The number of scheduled retries.
    pub(crate) async fn scheduled(&self) -> usize {
        let schedule = self.store.schedule().list(&self.member.at, None, 10).await;
        schedule.unwrap().entries.len()
    }

    pub(crate) async fn dead_letter(&self, fetched: &Fetched) {
        let receipt = fetched.receipt;
        let dead = DeadLetter {
            id: receipt.id,
            topic: self.member.topic().clone(),
            group: self.member.group().clone(),
            reason: Reason::Rejected,
            error: "no".to_owned(),
            fingerprint: "no".to_owned(),
            handler: "bill".to_owned(),
            consumer: "one".to_owned(),
            message_type: "order.placed".to_owned(),
            tenant: None,
            correlation: None,
            message_id: None,
            attempts: 1,
            last_failure: self.store.now(),
            history: DeliveryHistory::from(receipt.id),
            fields: fetched.fields.clone(),
            imported_from: None,
        };
        let record = encode_record(&dead);
        self.commit(Commit::dead_letter(receipt, record)).await;
    }

    pub(crate) fn meters(&self) -> Arc<Meters> {
        Arc::new(Meters::new(&self.member))
    }

    pub(crate) fn lease_keeper(&self) -> LeaseKeeper {
        LeaseKeeper {
            partition: None,
            store: Arc::clone(&self.store),
            member: Arc::clone(&self.member),
            in_flight: Arc::default(),
            meters: self.meters(),
            lease: Arc::new(GroupLease::new(Duration::from_secs(30))),
            fault: Fault::default(),
            stir: Arc::default(),
        }
    }
}
