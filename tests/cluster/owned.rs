//! An owned group while one primary does not answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::topics::TopicSettings;
use redstart::{Container, Delivery, Envelope, Outcome, SubscribeOptions};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::cluster::Cluster;
use crate::support::{next, signal, topic};

const PARTITIONS: u16 = 6;
const ROUNDS: u32 = 10;
/// For all rounds. A process that waits for the stopped primary takes several times as long.
const LONGEST: Duration = Duration::from_secs(30);

/// Publishes a message of each key, and returns them.
async fn publish(container: &Container, keys: &[u32], n: u32) -> Vec<(u32, u32)> {
    let message = |key: &u32| {
        let envelope = Envelope::new("n", &n).unwrap();
        envelope.with_key(key.to_string())
    };
    let all: Vec<Envelope> = keys.iter().map(message).collect();
    for published in container.bus().publish_all(&topic("orders"), &all).await {
        published.unwrap();
    }
    keys.iter().map(|key| (*key, n)).collect()
}

/// What was handled to the end, of each key in its order.
#[derive(Default)]
struct Handled(BTreeMap<u32, Vec<u32>>);

impl Handled {
    /// Waits for these, in any order of the keys.
    async fn all_of(&mut self, ends: &mut UnboundedReceiver<(u32, u32)>, wanted: &[(u32, u32)]) {
        let is_there = |one: &Self, (key, n)| one.0.get(key).is_some_and(|all| all.contains(n));
        while !wanted.iter().all(|(key, n)| is_there(self, (key, n))) {
            let (key, n) = next(ends).await;
            self.0.entry(key).or_default().push(n);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_stopped_keeps_its_own_partitions_waiting_only() {
    let cluster = Cluster::start_with(3, 0, &["--cluster-require-full-coverage", "no"]);
    let namespace = cluster.namespace();
    let container = cluster.builder(&namespace).connect().await.unwrap();
    let orders = topic("orders");
    let settings = TopicSettings::default().with_partitions(PARTITIONS);
    container.topics().create(&orders, settings).await.unwrap();
    let owner = |number: u16| cluster.owner_of(&namespace, number);
    // The members are with partition 0.
    let victim = (1..PARTITIONS).map(owner).find(|one| *one != owner(0));
    let victim = victim.expect("a primary without partition 0");

    let (sender, mut ends) = unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let sender = sender.clone();
        async move {
            // Each fourth message fails once, and keeps its place.
            if n % 4 == 1 && delivery.attempt() == 1 {
                return Outcome::retry_after(Duration::from_millis(20), "once");
            }
            let key = delivery.envelope().key().unwrap().parse::<u32>();
            let _ = sender.send((key.unwrap(), n));
            Outcome::Ack
        }
    };
    let options = SubscribeOptions::new().with_ownership(Ownership::new());
    // Fewer than the messages of the stopped primary.
    let options = options.with_concurrency(8);
    let bus = container.bus();
    let made = bus.subscribe_with(&orders, options, handler).await;
    let subscription = made.unwrap();

    let (mut up, mut down, mut handled) = (Vec::new(), Vec::new(), Handled::default());
    for key in 0..60 {
        let message = Envelope::new("n", &0).unwrap().with_key(key.to_string());
        let published = bus.publish(&orders, &message).await.unwrap();
        let is_down = owner(published.id.partition()) == victim;
        if is_down { &mut down } else { &mut up }.push(key);
        handled.all_of(&mut ends, &[(key, 0)]).await;
    }
    assert!(!up.is_empty() && !down.is_empty());
    // Some of them are under way when the primary stops.
    let mut waiting = Vec::new();
    for n in 1..=3 {
        waiting.extend(publish(&container, &down, n).await);
    }
    signal(cluster.nodes[victim].pid(), "STOP");
    let stopped = Instant::now();
    for n in 1..=ROUNDS {
        let wanted = publish(&container, &up, n).await;
        handled.all_of(&mut ends, &wanted).await;
    }
    let took = stopped.elapsed();
    println!("{ROUNDS} rounds took {took:?}");
    assert!(took < LONGEST, "{took:?}");
    signal(cluster.nodes[victim].pid(), "CONT");
    handled.all_of(&mut ends, &waiting).await;
    let wanted = publish(&container, &down, 4).await;
    handled.all_of(&mut ends, &wanted).await;
    for (key, mut all) in handled.0 {
        // A message comes again where the store did not learn of its end.
        all.dedup();
        assert!(all.is_sorted(), "{key}: {all:?}");
    }
    let healthy = async {
        while subscription.problem().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let healthy = tokio::time::timeout(crate::support::PATIENCE, healthy).await;
    healthy.unwrap_or_else(|_| panic!("{:?} stays", subscription.problem()));
    assert!(
        subscription
            .unsubscribe(crate::support::PATIENCE)
            .await
            .is_clean()
    );
}
