//! Slots that move the old way: marked at both nodes, then key by key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use redstart::envelope::Codec;
use redstart::extract::Payload;
use redstart::store::{Member, Opening, StartFrom};
use redstart::topics::TopicSettings;
use redstart::{
    Container, Delivery, Envelope, ErrorKind, Kv, Namespace, Outcome, PublishOptions, RetryPolicy,
    SubscribeOptions, Topic,
};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, drained, finish, group, letters, next, topic, until};

const DAY: Duration = Duration::from_secs(86_400);

/// A cluster, a container on it, and the slot of topic `orders` with its owner and another node.
struct Ground {
    cluster: Arc<Cluster>,
    namespace: Namespace,
    container: Container,
    slot: u16,
    from: usize,
    to: usize,
    log: String,
}

impl Ground {
    async fn start() -> Self {
        let cluster = Arc::new(Cluster::start(3, 0));
        let namespace = cluster.namespace();
        let builder = cluster.builder(&namespace).with_codec(Codec::Json);
        let container = builder.connect().await.unwrap();
        let log = format!("{{{namespace}:orders}}:log");
        let slot = cluster.slot(&log);
        let from = cluster.owner(0, slot);
        let to = (from + 1) % 3;
        Self {
            cluster,
            namespace,
            container,
            slot,
            from,
            to,
            log,
        }
    }

    /// Moves the slot, in another thread, as often as it takes until a flag is set; at least once.
    fn move_until(&self, done: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u32> {
        let (cluster, done) = (Arc::clone(&self.cluster), Arc::clone(done));
        let (slot, mut from, mut to) = (self.slot, self.from, self.to);
        tokio::task::spawn_blocking(move || {
            let mut moves = 0;
            // The test holds the other one; without it the test has failed.
            while moves == 0 || !done.load(Ordering::Acquire) && Arc::strong_count(&done) > 1 {
                cluster.move_slot(slot, from, to);
                (from, to) = (to, from);
                moves += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            moves
        })
    }
}

/// A handler that sends each number on.
macro_rules! forward {
    ($sender:ident) => {
        move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = $sender.send(n);
            async {}
        }
    };
}

/// Receives numbers from 0 on, each once and in their order.
async fn expect(received: &mut UnboundedReceiver<u32>, numbers: std::ops::Range<u32>) {
    for n in numbers {
        assert_eq!(next(received).await, n);
    }
}

async fn publish_one(container: &Container, n: u32) {
    let envelope = Envelope::new("n", &n).unwrap();
    let published = container.bus().publish(&topic("orders"), &envelope).await;
    published.unwrap();
}

fn counter(snapshotter: &Snapshotter, name: &str) -> u64 {
    let all = snapshotter.snapshot().into_vec();
    let of = all.into_iter().filter(|(key, ..)| key.key().name() == name);
    of.map(|(.., value)| match value {
        DebugValue::Counter(count) => count,
        _ => 0,
    })
    .sum()
}

/// Everything in a topic's log, read from the node that has it.
async fn log(container: &Container, topic: &Topic) -> Vec<u32> {
    let at = redstart::store::Partition::of(topic);
    let store = container.store();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.log().browse(&at, after, 1000).await.unwrap();
        let Some((last, _)) = page.last() else {
            return all;
        };
        after = Some(*last);
        for (_, fields) in &page {
            let text = String::from_utf8_lossy(&fields[0].1);
            let number = text.split(r#""payload":"#).nth(1).expect("a payload");
            let digits = number.split(|c: char| !c.is_ascii_digit()).next().unwrap();
            all.push(digits.parse().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_a_publisher_survives_a_slot_that_moves_under_load() {
    let ground = Ground::start().await;
    let (orders, bus) = (topic("orders"), ground.container.bus());
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_concurrency(1).with_lease(DAY);
    let _subscription = bus
        .subscribe_with(&orders, options, forward!(sender))
        .await
        .unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let moving = ground.move_until(&done);
    let (mut tried, mut published) = (0, Vec::new());
    // Each call has several pipelines under way, and the last ones are begun before the first is done.
    for _ in 0..40 {
        let numbers = tried..tried + 1500;
        tried = numbers.end;
        let envelope = |n| Envelope::new("n", &n).unwrap();
        let all: Vec<Envelope> = numbers.clone().map(envelope).collect();
        for (n, result) in numbers.zip(bus.publish_all(&orders, &all).await) {
            match result {
                Ok(_) => published.push(n),
                // A slot that leaves and comes back within one pipeline: the node has done younger
                // messages, so the older ones fail instead of losing their place.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }
    }
    done.store(true, Ordering::Release);
    let moves = moving.await.unwrap();
    println!("{moves} moves, {} of {tried} published", published.len());
    assert!(published.len() * 10 >= tried as usize * 9);

    for n in published {
        assert_eq!(next(&mut received).await, n);
    }
    drained(&ground.container, &orders, &group("billing")).await;
    assert!(received.try_recv().is_err(), "nothing arrives twice");
    finish(ground.container).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_keep_their_order_and_lose_nothing_while_a_slot_moves() {
    const EACH: u32 = 1500;
    let ground = Ground::start().await;
    let orders = topic("orders");
    ground
        .container
        .topics()
        .create(&orders, TopicSettings::default())
        .await
        .unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let moving = ground.move_until(&done);
    let mut publishers = Vec::new();
    for publisher in 0..8_u32 {
        let (bus, orders) = (ground.container.bus().clone(), orders.clone());
        publishers.push(tokio::spawn(async move {
            for n in 0..EACH {
                let number = publisher * EACH + n;
                let envelope = Envelope::new("n", &number).unwrap();
                bus.publish(&orders, &envelope).await.unwrap();
            }
        }));
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    done.store(true, Ordering::Release);
    moving.await.unwrap();
    let all = log(&ground.container, &orders).await;
    assert_eq!(all.len() as u32, 8 * EACH);
    for publisher in 0..8 {
        let numbers = publisher * EACH..(publisher + 1) * EACH;
        let own = all.iter().copied().filter(|n| numbers.contains(n));
        assert!(own.eq(numbers.clone()), "publisher {publisher}");
    }
    finish(ground.container).await;
}

#[tokio::test]
async fn retries_and_dead_letters_wait_while_a_slot_moves_and_count_nothing() {
    let ground = Ground::start().await;
    let (orders, billing) = (topic("orders"), group("billing"));
    let (sender, mut received) = mpsc::unbounded_channel();
    let retry = RetryPolicy::fixed(Duration::from_millis(5)).with_max_attempts(2);
    let lease = Duration::from_secs(1);
    let options = SubscribeOptions::new()
        .with_hold_back(Duration::ZERO)
        .with_retry(retry)
        .with_lease(lease);
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((n, delivery.attempt()));
        async { Outcome::retry("always") }
    };
    // The other process takes over what the first one does not keep.
    let builder = ground.cluster.builder(&ground.namespace);
    let other = builder.with_codec(Codec::Json).connect().await.unwrap();
    let mut subscriptions = Vec::new();
    for container in [&ground.container, &other] {
        let (bus, options) = (container.bus(), options.clone());
        let subscribing = bus.subscribe_with(&orders, options, handler.clone());
        subscriptions.push(subscribing.await.unwrap());
    }
    // The first publish measures the topic's backlog, which a moving slot does not allow.
    publish_one(&ground.container, 6).await;
    assert_eq!(next(&mut received).await, (6, 1));
    assert_eq!(next(&mut received).await, (6, 2));
    drained(&ground.container, &orders, &billing).await;
    ground
        .cluster
        .begin_move(ground.slot, ground.from, ground.to);
    publish_one(&ground.container, 7).await;
    assert_eq!(next(&mut received).await, (7, 1));
    // Longer than the lease, and longer than a call is repeated.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(received.try_recv().is_err(), "the retry waits");
    let owner = &ground.cluster.nodes[ground.from];
    let pending: Vec<redis::Value> = owner.command(&["XPENDING", &ground.log, "billing"]);
    assert_eq!(pending[0], redis::Value::Int(1));

    let (cluster, slot) = (Arc::clone(&ground.cluster), ground.slot);
    for key in cluster.keys(slot, ground.from) {
        cluster.move_key(&key, ground.from, ground.to);
    }
    cluster.end_move(slot, ground.from, ground.to);
    assert_eq!(next(&mut received).await, (7, 2));
    let left = drained(&ground.container, &orders, &billing).await;
    assert_eq!(left.dead, 2);
    let letters = letters(&ground.container, &orders, &billing).await;
    assert_eq!([letters[0].attempts, letters[1].attempts], [2, 2]);
    assert!(received.try_recv().is_err(), "nothing was handled again");
    finish(other).await;
    finish(ground.container).await;
}

#[tokio::test]
async fn a_blocked_reader_follows_its_slot_and_its_group_is_not_made_again() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // This test and all its tasks run on one thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let ground = Ground::start().await;
    let (orders, bus) = (topic("orders"), ground.container.bus());
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = bus.subscribe(&orders, forward!(sender)).await.unwrap();
    for n in 0..4_u32 {
        publish_one(&ground.container, n).await;
        assert_eq!(next(&mut received).await, n);
        drained(&ground.container, &orders, &group("billing")).await;
        let (from, to) = match n % 2 {
            0 => (ground.from, ground.to),
            _ => (ground.to, ground.from),
        };
        let cluster = Arc::clone(&ground.cluster);
        let slot = ground.slot;
        let moving = tokio::task::spawn_blocking(move || cluster.move_slot(slot, from, to));
        moving.await.unwrap();
    }
    assert_eq!(counter(&snapshotter, "redstart_groups_recreated_total"), 0);
    assert!(received.try_recv().is_err());
    finish(ground.container).await;
}

#[tokio::test]
async fn a_group_that_its_owner_has_lost_is_made_again() {
    let ground = Ground::start().await;
    let (orders, bus) = (topic("orders"), ground.container.bus());
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = bus.subscribe(&orders, forward!(sender)).await.unwrap();
    publish_one(&ground.container, 0).await;
    expect(&mut received, 0..1).await;
    ground.cluster.nodes[ground.from].command::<()>(&["FLUSHALL"]);
    until("the group to be there again", async || {
        let all = ground.container.topics().groups(&orders).await;
        all.is_ok_and(|groups| !groups.is_empty()).then_some(())
    })
    .await;
    publish_one(&ground.container, 1).await;
    expect(&mut received, 1..2).await;
    finish(ground.container).await;
}

#[tokio::test]
async fn an_interrupt_reaches_a_reader_that_followed_its_slot() {
    let ground = Ground::start().await;
    let (orders, store) = (topic("orders"), ground.container.store());
    ground
        .container
        .topics()
        .create(&orders, TopicSettings::default())
        .await
        .unwrap();
    let at = redstart::store::GroupAt::of(&orders, &group("billing"));
    let topics = store.topics();
    topics.create_group(&at, StartFrom::End).await.unwrap();
    let member = Member {
        at,
        consumer: "one".parse().unwrap(),
    };
    let (mut reader, interrupt) = store.open(&Opening::of(&member)).await.unwrap();
    ground
        .cluster
        .move_slot(ground.slot, ground.from, ground.to);
    let reading = reader.fetch(1, 10 * PATIENCE);
    let interrupting = async {
        // The read must have begun; one that has not is interrupted in vain.
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            interrupt.interrupt().await.unwrap();
        }
    };
    let fetched = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            fetched = reading => fetched.unwrap(),
            () = interrupting => unreachable!("interrupting never ends"),
        }
    });
    assert!(fetched.await.expect("an interrupt in time").is_empty());
    finish(ground.container).await;
}

#[tokio::test]
async fn a_deduplicated_publish_waits_for_its_slot_and_is_done_once() {
    let ground = Ground::start().await;
    let (orders, bus) = (topic("orders"), ground.container.bus());
    ground
        .container
        .topics()
        .create(&orders, TopicSettings::default())
        .await
        .unwrap();
    ground
        .cluster
        .begin_move(ground.slot, ground.from, ground.to);
    let envelope = Envelope::new("n", &5_u32).unwrap();
    let options = PublishOptions::new().with_deduplication(Duration::from_secs(3600));
    let publishing = bus.publish_with(&orders, &envelope, options);
    let moving = async {
        // The script meets the slot while it moves.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (cluster, slot) = (&ground.cluster, ground.slot);
        for key in cluster.keys(slot, ground.from) {
            cluster.move_key(&key, ground.from, ground.to);
        }
        cluster.end_move(slot, ground.from, ground.to);
    };
    let (published, ()) = tokio::join!(publishing, moving);
    assert!(!published.unwrap().duplicate);
    let again = bus.publish_with(&orders, &envelope, options).await.unwrap();
    assert!(again.duplicate, "the target knows the id");
    assert_eq!(log(&ground.container, &orders).await, [5]);
    finish(ground.container).await;
}

#[tokio::test]
async fn a_plain_publish_follows_a_key_that_has_moved_ahead_of_its_slot() {
    let ground = Ground::start().await;
    let (orders, bus) = (topic("orders"), ground.container.bus());
    publish_one(&ground.container, 0).await;
    let (cluster, slot) = (&ground.cluster, ground.slot);
    cluster.begin_move(slot, ground.from, ground.to);
    cluster.move_key(&ground.log, ground.from, ground.to);
    let all: Vec<Envelope> = (1..2000_u32)
        .map(|n| Envelope::new("n", &n).unwrap())
        .collect();
    for result in bus.publish_all(&orders, &all).await {
        result.unwrap();
    }
    for key in cluster.keys(slot, ground.from) {
        cluster.move_key(&key, ground.from, ground.to);
    }
    cluster.end_move(slot, ground.from, ground.to);
    assert!(
        log(&ground.container, &orders)
            .await
            .into_iter()
            .eq(0..2000)
    );
    finish(ground.container).await;
}

#[tokio::test]
async fn values_of_many_slots_are_found_while_slots_move() {
    let cluster = Cluster::start(3, 0);
    let namespace = cluster.namespace();
    let kv = Kv::connect(&cluster.url(), Some(namespace.clone())).unwrap();
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    let entries: Vec<(&str, usize)> = keys.iter().map(String::as_str).zip(0..).collect();
    kv.set_many(&entries, None).await.unwrap();
    // The map of this process does not know of these moves.
    for key in &keys[..5] {
        let slot = cluster.slot(&format!("{namespace}:{key}"));
        let from = cluster.owner(0, slot);
        cluster.move_slot(slot, from, (from + 1) % 3);
    }
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found: Vec<Option<usize>> = kv.get_many(&names).await.unwrap();
    assert!(found.into_iter().eq((0..200).map(Some)));
    // A key that has moved ahead of its slot.
    let slot = cluster.slot(&format!("{namespace}:k9"));
    let from = cluster.owner(0, slot);
    cluster.begin_move(slot, from, (from + 1) % 3);
    cluster.move_key(&format!("{namespace}:k9"), from, (from + 1) % 3);
    let found: Vec<Option<usize>> = kv.get_many(&["k8", "k9"]).await.unwrap();
    assert_eq!(found, [Some(8), Some(9)]);
    assert_eq!(kv.incr("k9", 1).await.unwrap(), 10);
}
