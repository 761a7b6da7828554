//! What the unit tests of the worker run on: a group in memory, and the parts of a subscription.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::adapters::memory::{ManualClock, MemoryStore};
use crate::domain::{
    Codec, ConsumerName, DeadLetter, DeliveryHistory, Envelope, Group, Reason, TopicSettings,
};
use crate::store::{
    Commit, Commits, DeliveryId, Fate, Fetched, Member, NewEntry, Opening, ReclaimCursor,
    StartFrom, Store, Unmarked,
};
use crate::wire::dead_letter::encode_record;
use crate::wire::{Limits, encode_entry};
use crate::worker::fault::Fault;
use crate::worker::intake::lease::GroupLease;
use crate::worker::meters::Meters;
use crate::worker::services::lease_keeper::LeaseKeeper;

pub(crate) fn member() -> Member {
    let topic = crate::domain::Topic::new("orders").unwrap();
    let group = Group::new("billing").unwrap();
    Member::of(&topic, &group, ConsumerName::new("one").unwrap())
}

pub(crate) struct Fixture {
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
}

impl Fixture {
    /// A group without messages.
    pub(crate) async fn new() -> Self {
        let clock = ManualClock::new("2025-11-12T14:20:00Z".parse().unwrap());
        let store = MemoryStore::with_clock(clock.clone()).store(None);
        let member = Arc::new(member());
        let (topics, settings) = (store.topics(), TopicSettings::default());
        topics.ensure_topic(member.topic(), settings).await.unwrap();
        let start = StartFrom::Beginning;
        topics.create_group(&member.at, start).await.unwrap();
        Self {
            clock,
            store,
            member,
        }
    }

    /// Publishes messages and fetches them.
    pub(crate) async fn fetch(&self, count: usize) -> Vec<Fetched> {
        let entries = (0..count).map(|number| {
            let envelope = Envelope::new("order.placed", &number).unwrap();
            let (name, bytes) = encode_entry(&envelope, Codec::Json, Limits::default()).unwrap();
            NewEntry {
                id: envelope.id(),
                name,
                value: Bytes::from(bytes),
            }
        });
        let (at, entries) = (&self.member.at.partition, entries.collect::<Vec<_>>());
        for appended in self.store.log().append(at, &entries).await.unwrap() {
            appended.unwrap();
        }
        let opening = Opening::of(&self.member);
        let (mut reader, _) = self.store.open(&opening).await.unwrap();
        let fetched = reader.fetch(count, Duration::ZERO).await.unwrap();
        assert_eq!(fetched.len(), count);
        fetched
    }

    /// Lets another consumer of the group take a delivery over.
    pub(crate) async fn take_over(&self, id: DeliveryId) {
        self.commit(Commit::release(id)).await;
        let other = Member {
            consumer: ConsumerName::new("two").unwrap(),
            ..member()
        };
        let lease = Duration::from_secs(30);
        let reclaimed = self
            .store
            .deliveries()
            .claim_expired(&other, lease, Unmarked::Begun, ReclaimCursor::default(), 10)
            .await
            .unwrap();
        assert_eq!(reclaimed.taken.len(), 1);
    }

    async fn commit(&self, commit: Commit) {
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
            store: Arc::clone(&self.store),
            member: Arc::clone(&self.member),
            in_flight: Arc::default(),
            meters: self.meters(),
            lease: Arc::new(GroupLease::new(Duration::from_secs(30))),
            fault: Fault::default(),
        }
    }
}
