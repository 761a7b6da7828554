//! A partition whose server does not answer, beside others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use crate::adapters::memory::MemoryStore;
use crate::api::{Delivery, Ownership, Payload, SubscribeOptions, Subscription};
use crate::container::Container;
use crate::domain::{
    BoxFuture, Envelope, Error, Group, Outcome, RetryPolicy, Topic, TopicSettings,
};
use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use crate::store::{GroupAt, OwnersOp, StartFrom, Store};

const FOUR: u16 = 4;
/// The partition whose server does not answer.
const AWAY: u16 = 1;
/// No renewal ends a wait.
const LEASE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(50);

/// Lets calls of some names wait that concern the partition.
#[derive(Clone, Debug)]
struct Hangs(watch::Sender<&'static [&'static str]>);

impl Decorator for Hangs {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        let partition = match &op {
            Op::Owners(OwnersOp::Read { at, .. }) => Some(at.partition.number()),
            Op::Owners(OwnersOp::Step { by, .. }) => Some(by.at.partition.number()),
            _ => None,
        };
        let leaves = matches!(op, Op::Owners(OwnersOp::Leave { .. }));
        Box::pin(async move {
            if leaves {
                // As over a network.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if partition == Some(AWAY) {
                let mut names = self.0.subscribe();
                let _ = names.wait_for(|names| !names.contains(&op.name())).await;
            }
            next.run(op).await
        })
    }
}

impl Hangs {
    /// From now on these calls wait, and no others.
    fn hang(&self, names: &'static [&'static str]) {
        self.0.send_replace(names);
    }
}

/// A topic with four partitions and forty keys.
struct Ground {
    hangs: Hangs,
    store: Arc<dyn Store>,
    container: Container,
    topic: Topic,
    /// The partition of each message.
    partitions: Vec<u16>,
}

impl Ground {
    async fn new() -> Self {
        let hangs = Hangs(watch::channel(&[][..]).0);
        let memory = MemoryStore::new().store(None);
        let store: Arc<dyn Store> = Arc::new(Decorated::new(Arc::new(hangs.clone()), memory));
        let builder = Container::builder().with_store(Arc::clone(&store));
        let builder = builder.with_service(Group::new("billing").unwrap());
        let container = builder.connect().await.unwrap();
        let topic = Topic::new("orders").unwrap();
        let settings = TopicSettings::default().with_partitions(FOUR);
        container.topics().create(&topic, settings).await.unwrap();
        Self {
            hangs,
            store,
            container,
            topic,
            partitions: Vec::new(),
        }
    }

    /// Publishes forty messages, one of each key.
    async fn publish(&mut self) {
        let first = self.partitions.len();
        let message = |n: usize| {
            let envelope = Envelope::new("n", &n).unwrap();
            envelope.with_key(format!("k{}", n % 40))
        };
        let all: Vec<Envelope> = (first..first + 40).map(message).collect();
        for published in self.container.bus().publish_all(&self.topic, &all).await {
            self.partitions.push(published.unwrap().id.partition());
        }
    }

    /// The messages of the partition, or of the others, from one on.
    fn messages(&self, is_away: bool, from: usize) -> BTreeSet<u32> {
        let all = (0..).zip(&self.partitions).skip(from);
        let of = all.filter(|(_, at)| (**at == AWAY) == is_away);
        let of: BTreeSet<u32> = of.map(|(n, _)| n).collect();
        assert!(!of.is_empty());
        of
    }
}

/// The number and the attempt of a message.
type Calls = mpsc::UnboundedReceiver<(u32, u32)>;

/// A process whose handler tells of each call and waits for a permit. With `fails`, each first attempt fails.
async fn process(ground: &Ground, permits: &Arc<Semaphore>, fails: bool) -> (Subscription, Calls) {
    let (sender, calls) = mpsc::unbounded_channel();
    let permits = Arc::clone(permits);
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let (sender, permits) = (sender.clone(), Arc::clone(&permits));
        async move {
            let _ = sender.send((n, delivery.attempt()));
            permits.acquire().await.unwrap().forget();
            match fails && delivery.attempt() == 1 {
                true => Outcome::retry("not yet"),
                false => Outcome::Ack,
            }
        }
    };
    let options = SubscribeOptions::new()
        .with_start(StartFrom::Beginning)
        .with_concurrency(16)
        .with_retry(RetryPolicy::fixed(Duration::ZERO).with_max_attempts(5))
        .with_ownership(Ownership::new().with_lease(LEASE));
    let bus = ground.container.bus();
    let made = bus.subscribe_with(&ground.topic, options, handler).await;
    (made.unwrap(), calls)
}

async fn next(calls: &mut Calls) -> (u32, u32) {
    let next = tokio::time::timeout(Duration::from_secs(30), calls.recv()).await;
    next.expect("a call comes").unwrap()
}

/// Waits until calls of all these messages have come.
async fn all_of(calls: &mut Calls, mut wanted: BTreeSet<u32>) {
    while !wanted.is_empty() {
        let next = tokio::time::timeout(Duration::from_secs(30), calls.recv()).await;
        let Ok(next) = next else {
            panic!("{wanted:?} do not come");
        };
        wanted.remove(&next.unwrap().0);
    }
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_delays_no_other() {
    of_others_come_while_hang(&["owners.read"]).await;
}

#[tokio::test]
async fn a_partition_whose_messages_cannot_begin_delays_no_other() {
    of_others_come_while_hang(&["owners.step"]).await;
}

/// The calls hang before anything has begun.
async fn of_others_come_while_hang(names: &'static [&'static str]) {
    let mut ground = Ground::new().await;
    ground.publish().await;
    ground.hangs.hang(names);
    let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2));
    let (one, mut calls) = process(&ground, &permits, false).await;
    all_of(&mut calls, ground.messages(false, 0)).await;
    ground.publish().await;
    all_of(&mut calls, ground.messages(false, 40)).await;
    ground.hangs.hang(&[]);
    all_of(&mut calls, ground.messages(true, 0)).await;
    assert!(one.unsubscribe(GRACE).await.is_clean());
}

/// Handlers of each partition have returned, with failures, when the steps of one begin to hang.
#[tokio::test]
async fn a_partition_whose_steps_hang_delays_no_other() {
    let mut ground = Ground::new().await;
    ground.publish().await;
    let permits = Arc::new(Semaphore::new(0));
    let (one, mut calls) = process(&ground, &permits, true).await;
    let first = next(&mut calls).await.0;
    ground.hangs.hang(&["owners.step"]);
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let (mut begun, mut again) = (ground.messages(false, 0), ground.messages(false, 0));
    begun.remove(&first);
    while !begun.is_empty() || !again.is_empty() {
        match next(&mut calls).await {
            (n, 1) => begun.remove(&n),
            (n, _) => again.remove(&n),
        };
    }
    // The store has their acknowledgements: the next message of each key waits for one.
    ground.publish().await;
    all_of(&mut calls, ground.messages(false, 40)).await;
    ground.hangs.hang(&[]);
    all_of(&mut calls, ground.messages(true, 40)).await;
    assert!(one.unsubscribe(GRACE).await.is_clean());
}

#[tokio::test]
async fn a_process_leaves_although_a_partition_does_not_answer() {
    let mut ground = Ground::new().await;
    let permits = Arc::new(Semaphore::new(0));
    // The end of an attempt that failed waits for the store.
    let (one, mut calls) = process(&ground, &permits, true).await;
    ground.publish().await;
    next(&mut calls).await;
    ground.hangs.hang(&["owners.step"]);
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    all_of(&mut calls, ground.messages(false, 0)).await;
    one.unsubscribe(Duration::ZERO).await;
    let at = GroupAt::of(&ground.topic, &Group::new("billing").unwrap());
    let roster = ground.store.owners().roster(&at).await.unwrap();
    assert!(
        roster.owners.is_empty() && roster.members.is_empty(),
        "{roster:?}"
    );
}
