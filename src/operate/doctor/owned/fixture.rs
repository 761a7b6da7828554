//! An owned group for the tests of its findings.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::adapters::memory::MemoryStore;
use crate::domain::{
    Codec, ConsumerName, Cursor, EntryId, Envelope, Group, Timestamp, Topic, TopicSettings,
};
use crate::operate::doctor::Doctor;
use crate::operate::doctor::finding::{Finding, Severity};
use crate::store::{
    Attempts, Attendance, DeliveryId, GroupAt, Lane, LaneStep, Limits, Member, NewEntry, Note,
    Partition, StartFrom, Step, Stepped, Store, encode_entry,
};
use crate::wire::redelivery::Redelivery;

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// An owned group on a topic with two partitions.
pub(super) struct Two {
    pub(super) store: Arc<dyn Store>,
    topic: Topic,
    group: Group,
}

impl Two {
    pub(super) async fn new() -> Self {
        let two = Self {
            store: MemoryStore::new().store(None),
            topic: Topic::new("orders").unwrap(),
            group: Group::new("billing").unwrap(),
        };
        let settings = TopicSettings::default().with_partitions(2);
        let made = two.store.topics().ensure_topic(&two.topic, settings);
        made.await.unwrap();
        for number in 0..2 {
            let at = two.member("one", number).at;
            let made = two.store.owners().create(&at, StartFrom::Beginning);
            made.await.unwrap();
        }
        two
    }

    fn member(&self, name: &str, number: u16) -> Member {
        Member {
            at: GroupAt {
                partition: Partition::numbered(&self.topic, number),
                group: self.group.clone(),
            },
            consumer: ConsumerName::new(name).unwrap(),
        }
    }

    pub(super) async fn claim(&self, name: &str, claims: &[u16]) {
        let attendance = Attendance {
            lease: 60 * MINUTE,
            claims: claims.iter().map(|at| (*at, 0)).collect(),
            ..Attendance::default()
        };
        let by = self.member(name, 0);
        self.store.owners().attend(&by, &attendance).await.unwrap();
    }

    /// Appends messages of a key to partition 1.
    pub(super) async fn append(&self, key: &str, size: usize, count: usize) -> Vec<EntryId> {
        let envelope = Envelope::new("t", &"x".repeat(size)).unwrap().with_key(key);
        let (name, value) = encoded(&envelope);
        let entry = NewEntry {
            id: Uuid::nil(),
            name,
            value,
            slot: None,
        };
        let at = Partition::numbered(&self.topic, 1);
        let appended = self.store.log().append(&at, &vec![entry; count]).await;
        let ids = appended.unwrap().into_iter().map(|one| one.unwrap().id);
        ids.map(|id| id.in_partition(0)).collect()
    }

    /// Lets a message of partition 1 fail with what comes before it settled, and others after it.
    pub(super) async fn fail(
        &self,
        id: EntryId,
        key: &str,
        ago: Duration,
        done: Vec<(EntryId, EntryId)>,
    ) {
        let owner = self.member("one", 1);
        self.store.owners().take(&owner, 1).await.unwrap();
        let mut envelope = Envelope::new("t", &1).unwrap().with_key(key);
        (envelope.failed_attempts, envelope.last_error) = (3, Some("declined".to_owned()));
        let (name, value) = encoded(&envelope);
        let mut redelivery = Redelivery {
            fields: vec![(Bytes::from_static(name.as_bytes()), value)],
            history: Default::default(),
            starts_over: false,
        };
        let now = self.store.now().as_millis();
        let since = now - i64::try_from(ago.as_millis()).unwrap();
        redelivery.history.first_failure = Timestamp::from_millis(since).ok();
        let low = id.before().unwrap();
        let step = Step {
            token: 1,
            number: 1,
            lanes: [
                Some(LaneStep {
                    cursor: Cursor {
                        low,
                        high: id,
                        done,
                    },
                    passed: 0,
                }),
                None,
            ],
            notes: vec![Note {
                delivery: DeliveryId::new(Lane::Log, id),
                attempts: Attempts::default(),
                kept: Some((MINUTE, redelivery.encode())),
            }],
            ..Step::default()
        };
        let stepped = self.store.owners().step(&owner, &step).await.unwrap();
        assert_eq!(stepped, Stepped::Done);
    }

    /// The findings on owned groups.
    pub(super) async fn found(&self) -> Vec<(&'static str, Severity, String)> {
        let report = Doctor::new(Arc::clone(&self.store)).run().await;
        let found = report.findings.into_iter();
        let found = found.filter(|one| ["owners", "keys"].contains(&one.check));
        found
            .inspect(Finding::assert_helpful)
            .map(|one| (one.check, one.severity, one.what))
            .collect()
    }
}

fn encoded(envelope: &Envelope) -> (&'static str, Bytes) {
    let (name, value) = encode_entry(envelope, Codec::Json, Limits::default()).unwrap();
    (name, value.into())
}
