//! Shared by the checks of owned groups: members by hand, and handlers of a topic with four partitions.

use std::ops::Range;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::api::{Delivery, Ownership, Payload, SubscribeOptions, Subscription};
use crate::container::Container;
use crate::domain::{EntryId, Envelope, TopicSettings};
use crate::store::{
    Attendance, Cursor, DeliveryId, Lane, LaneStep, Member, Note, Owners, Roster, StartFrom, Step,
    Stepped, Taken,
};
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{Must as _, Stage, number, quick};

/// Long enough for every call of a check, and short enough to wait for.
pub(super) const LEASE: Duration = Duration::from_millis(500);
/// A lease whose end no check waits for, and that a busy machine keeps.
pub(super) const LONG_LEASE: Duration = Duration::from_secs(5);

pub(super) fn attendance(lease: Duration, claims: &[u16]) -> Attendance {
    Attendance {
        lease,
        claims: claims.iter().map(|at| (*at, 0)).collect(),
        ..Attendance::default()
    }
}

pub(super) fn log(id: EntryId) -> DeliveryId {
    DeliveryId::new(Lane::Log, id)
}

/// The owner of each partition.
pub(super) fn owners(roster: &Roster) -> Vec<(u16, &str)> {
    let owners = roster.owners.iter();
    let owners = owners.map(|(at, owner)| (*at, owner.consumer.as_str()));
    owners.collect()
}

/// The token of a partition's owner.
pub(super) fn token_of(roster: &Roster, partition: u16) -> u64 {
    let owner = roster.owners.get(&partition);
    owner.must("an owner of the partition").token
}

/// A step that settles the log up to an entry.
pub(super) fn up_to(token: u64, number: u64, low: EntryId, passed: u64) -> Step {
    let lane = LaneStep {
        cursor: Cursor::at(low),
        passed,
    };
    Step {
        token,
        number,
        lanes: [Some(lane), None],
        ..Step::default()
    }
}

impl<'a, S: Subject> Stage<'a, S> {
    /// An owned group on topic `orders`.
    pub(super) async fn owned(subject: &'a S) -> Self {
        let stage = Self::bare(subject).await;
        let topics = stage.store.topics();
        let made = topics.ensure_topic(&stage.topic, <_>::default()).await;
        made.must("creating the topic");
        let made = stage.owners().create(&stage.at, StartFrom::Beginning).await;
        made.must("creating the group");
        stage
    }

    pub(super) fn owners(&self) -> &dyn Owners {
        self.store.owners()
    }

    pub(super) async fn attend(&self, by: &Member, attendance: &Attendance) -> Roster {
        let roster = self.owners().attend(by, attendance).await;
        roster.must("attending")
    }

    pub(super) async fn write_step(&self, by: &Member, step: &Step) -> Stepped {
        self.owners().step(by, step).await.must("a step")
    }

    pub(super) async fn take_cursor(&self, by: &Member, token: u64) -> ([Cursor; 2], Vec<Note>) {
        match self.owners().take(by, token).await.must("taking") {
            Taken::Taken { cursors, notes, .. } => (cursors, notes),
            Taken::Stale(other) => panic!("{token} is stale beside {other}"),
        }
    }

    pub(super) async fn is_stale(&self, by: &Member, token: u64) -> u64 {
        match self.owners().take(by, token).await.must("taking") {
            Taken::Stale(other) => other,
            Taken::Taken { .. } => panic!("{token} should be stale"),
        }
    }
}

pub(super) const FOUR: u16 = 4;

pub(super) fn owning(attempts: u32) -> SubscribeOptions {
    quick(attempts)
        .with_start(StartFrom::Beginning)
        .with_ownership(Ownership::new().with_lease(LONG_LEASE))
}

/// Message `n` has key `n % 10`.
pub(super) fn keyed(n: u32) -> Envelope {
    number(n).with_key(format!("k{}", n % 10))
}

/// What a handler sends: the message's number, and its attempt.
pub(super) type Seen = mpsc::UnboundedReceiver<(u32, u32)>;

impl<S: Subject> Stage<'_, S> {
    /// Topic `orders` with four partitions and no group.
    pub(super) async fn four(subject: &S) -> Stage<'_, S> {
        let stage = Stage::bare(subject).await;
        let settings = TopicSettings::default().with_partitions(FOUR);
        let made = stage.store.topics().ensure_topic(&stage.topic, settings);
        made.await.must("creating the topic");
        stage
    }

    pub(super) async fn publish_keys(&self, numbers: Range<u32>) {
        let all: Vec<Envelope> = numbers.map(keyed).collect();
        let results = self.container.bus().publish_all(&self.topic, &all).await;
        for result in results {
            result.must("publishing");
        }
    }

    /// The partition of a message of [`keyed`].
    pub(super) fn partition_of(&self, n: u32) -> u16 {
        crate::domain::crc16(format!("k{}", n % 10).as_bytes()) % FOUR
    }

    /// Subscribes a handler that fails as often as `fails` says.
    pub(super) async fn own(
        &self,
        container: &Container,
        options: SubscribeOptions,
        fails: impl Fn(u32) -> u32 + Send + Sync + 'static,
    ) -> (Subscription, Seen) {
        let (sender, seen) = mpsc::unbounded_channel();
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            assert!(delivery.fence().is_some_and(|fence| fence.token > 0));
            let _ = sender.send((n, delivery.attempt()));
            let fails = delivery.attempt() <= fails(n);
            async move {
                tokio::task::yield_now().await;
                if fails { Err("not yet") } else { Ok(()) }
            }
        };
        let bus = container.bus();
        let made = bus.subscribe_with(&self.topic, options, handler).await;
        (made.must("subscribing"), seen)
    }

    pub(super) async fn owners_of(&self) -> Vec<(u16, String)> {
        let roster = self.owners().roster(&self.at).await.must("asking");
        let owners = roster.owners.iter();
        owners
            .map(|(at, owner)| (*at, owner.consumer.to_string()))
            .collect()
    }
}

/// The numbers of each key in the order in which they came, without repeated attempts.
pub(super) fn of_keys(seen: &[(u32, u32)]) -> Vec<Vec<u32>> {
    let of = |key| {
        let of_key = seen.iter().filter(|(n, _)| n % 10 == key);
        let mut numbers: Vec<u32> = of_key.map(|(n, _)| *n).collect();
        numbers.dedup();
        numbers
    };
    (0..10).map(of).collect()
}
