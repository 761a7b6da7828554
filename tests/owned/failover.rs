//! A primary dies while processes of the group run: behind sentinels and in a cluster.
//!
//! The history lies on a server that does not fail. Every message is published at level replicated, so none
//! may be missing. What the replica has not heard of the group itself is lost with the primary.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redstart::container::ContainerBuilder;
use redstart::topics::TopicSettings;
use redstart::{Container, Durability, Envelope, Namespace, PublishOptions};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::history::{KEYS, check};
use crate::member::{Ground, start};
use crate::support::cluster::Cluster;
use crate::support::sentinel::Watched;
use crate::support::worker::Worker;
use crate::support::{PATIENCE, Server, finish, group, topic, until};

const PARTITIONS: u16 = 12;
const REPLICATED: Durability = Durability::replicated(1, Durability::MAX_TIMEOUT);
const AT_ONCE: u32 = 100;
const HOUR_IN_MICROS: &str = "3600000000";

/// What was published, and what of it may not be in the log.
#[derive(Clone, Default)]
struct Publisher {
    next: u32,
    unsure: BTreeSet<u32>,
}

impl Publisher {
    async fn publish(&mut self, container: &Container, count: u32) {
        self.publish_at(container, count, REPLICATED).await;
    }

    async fn publish_at(&mut self, container: &Container, count: u32, level: Durability) {
        let numbers = self.next..self.next + count;
        let envelope = |n: u32| {
            let envelope = Envelope::new("n", &n).unwrap();
            envelope.with_key(format!("k{}", n % KEYS))
        };
        let all: Vec<Envelope> = numbers.clone().map(envelope).collect();
        let options = PublishOptions::new().with_durability(level);
        let bus = container.bus();
        let results = bus.publish_all_with(&topic("orders"), &all, options).await;
        for (n, result) in numbers.zip(results) {
            if let Err(error) = result {
                println!("{n}: {error}");
                self.unsure.insert(n);
            }
        }
        self.next += count;
    }

    /// Publishes a few messages at a time until it is told to stop.
    async fn publish_until(mut self, container: Container, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Acquire) {
            self.publish(&container, 20).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self
    }
}

/// A group with its members, its publisher and its history.
struct Drill {
    ground: Ground,
    container: Container,
    history: Server,
    publisher: Publisher,
    members: BTreeMap<u32, Worker>,
    last: u32,
    sender: UnboundedSender<(u32, String)>,
}

impl Drill {
    async fn start(url: String, namespace: &Namespace, builder: ContainerBuilder) -> Self {
        let history = Server::start();
        let container = builder.connect().await.unwrap();
        let settings = TopicSettings::default().with_partitions(PARTITIONS);
        let made = container.topics().create(&topic("orders"), settings).await;
        made.unwrap();
        let mut drill = Self {
            ground: Ground {
                url,
                namespace: namespace.to_string(),
                history: history.url(),
            },
            container,
            history,
            publisher: Publisher::default(),
            members: BTreeMap::new(),
            last: 0,
            sender: unbounded_channel().0,
        };
        drill.publish(2_000).await;
        drill.join(3);
        drill
    }

    fn join(&mut self, count: u32) {
        for _ in 0..count {
            self.last += 1;
            let member = start(&self.ground, self.last, &self.sender);
            self.members.insert(self.last, member);
        }
    }

    /// Publishes until `count` messages are durable. On a busy machine the replica can fall behind, and some are
    /// not durable at first.
    async fn publish(&mut self, count: u32) {
        for _ in 0..count.div_ceil(AT_ONCE) {
            until("a replica that keeps up", async || {
                self.is_published(AT_ONCE).await.then_some(())
            })
            .await;
        }
    }

    async fn is_published(&mut self, count: u32) -> bool {
        let unsure = self.publisher.unsure.len();
        self.publisher.publish(&self.container, count).await;
        self.publisher.unsure.len() == unsure
    }

    /// Publishes messages that the next failover may lose.
    async fn publish_unsafely(&mut self, count: u32) {
        let numbers = self.publisher.next..self.publisher.next + count;
        self.publisher.unsure.extend(numbers);
        self.publisher
            .publish_at(&self.container, count, Durability::Accepted)
            .await;
    }

    fn note(&self, event: &str) {
        self.history.command::<()>(&["RPUSH", "history", event]);
    }

    /// Waits until the members have noted more events.
    async fn until_more(&self, events: u64) {
        let noted = || self.history.command::<u64>(&["LLEN", "history"]);
        let enough = noted() + events;
        until("the members to handle messages", async || {
            (noted() >= enough).then_some(())
        })
        .await;
    }

    /// Lets a server die and another one take over, while messages are published and handled.
    async fn through(&mut self, fault: impl AsyncFnOnce()) {
        self.until_more(500).await;
        self.note("fails-over");
        let stop = Arc::new(AtomicBool::new(false));
        let publisher = std::mem::take(&mut self.publisher);
        let publishing = publisher.publish_until(self.container.clone(), Arc::clone(&stop));
        let publishing = tokio::spawn(publishing);
        fault().await;
        stop.store(true, Ordering::Release);
        self.publisher = publishing.await.unwrap();
        self.drain().await;
        self.note("failed-over");
    }

    /// Waits until everything is settled: all owners then know what the store has.
    async fn drain(&self) {
        let (mut fewest, mut deadline) = (u64::MAX, Instant::now() + PATIENCE);
        loop {
            // A former primary that comes back ends its connections once more.
            let groups = self.container.topics().groups(&topic("orders")).await;
            let left = groups.as_ref().ok().and_then(|groups| {
                let status = groups.iter().find(|one| one.group == group("billing"))?;
                Some(status.lag + status.in_flight + status.scheduled)
            });
            match left {
                Some(0) => return,
                Some(left) if left < fewest => {
                    (fewest, deadline) = (left, Instant::now() + PATIENCE);
                }
                _ => {}
            }
            let is_late = Instant::now() > deadline;
            assert!(!is_late, "{fewest} messages are left: {groups:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the members and checks the history.
    async fn check(self) {
        self.drain().await;
        self.members.into_values().for_each(Worker::end);
        let history: Vec<String> = self.history.command(&["LRANGE", "history", "0", "-1"]);
        let Publisher { next, unsure } = self.publisher;
        let ends = history.iter().filter(|one| one.starts_with("end")).count();
        let stale = history.iter().filter(|one| one.starts_with("stale"));
        let (unknown, stale) = (unsure.len(), stale.count());
        println!("{next} messages, {unknown} of them unknown, {ends} ends, {stale} stale");
        let wrong = check(&history, next, &unsure);
        assert_eq!(wrong, [""; 0], "{} in all", wrong.len());
        finish(self.container).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_keys_outlasts_a_primary_behind_sentinels() {
    let mut watched = Watched::start(3, 3);
    let namespace = watched.namespace();
    let builder = watched.builder(&namespace);
    let mut drill = Drill::start(watched.url(), &namespace, builder).await;
    drill
        .through(async || {
            watched.servers[0].kill();
            let primary = watched.until_failed_over(0);
            // Without a replica, nothing reaches level replicated.
            watched.until_replica(3 - primary);
        })
        .await;
    drill.publish(600).await;
    drill.check().await;
}

/// Lets a primary die, and waits until it is back as a replica.
fn fail_over(cluster: &mut Cluster, primary: usize) {
    let replica = cluster.replica(primary);
    cluster.nodes[primary].kill();
    cluster.until("the replica to take over", || {
        replication(cluster, replica).contains("role:master")
    });
    cluster.nodes[primary].start_again();
    cluster.until_whole();
}

/// Cuts a primary off from its replica: what it writes from now on is lost when it dies.
fn cut_off(cluster: &Cluster, primary: usize) {
    let replica = &cluster.nodes[cluster.replica(primary)];
    // The primary has no password, and refuses a replica that has one.
    replica.command::<()>(&["CONFIG", "SET", "masterauth", "wrong"]);
    cluster.nodes[primary].command::<()>(&["CLIENT", "KILL", "TYPE", "replica"]);
    cluster.until("the replica to be cut off", || {
        replication(cluster, primary).contains("connected_slaves:0")
    });
}

fn replication(cluster: &Cluster, node: usize) -> String {
    cluster.nodes[node].command(&["INFO", "replication"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_keys_outlasts_primaries_of_a_cluster() {
    let whole = ["--cluster-require-full-coverage", "no"];
    let mut cluster = Cluster::start_with(3, 1, &whole);
    let namespace = cluster.namespace();
    let builder = cluster.builder(&namespace);
    let mut drill = Drill::start(cluster.url(), &namespace, builder).await;
    let key = |partition: u16, name: &str| match partition {
        0 => format!("{{{namespace}:orders}}:group:billing:{name}"),
        _ => format!("{{{namespace}:orders/{partition}}}:group:billing:{name}"),
    };
    let slots = (0..PARTITIONS).map(|partition| cluster.slot(&key(partition, "cursor")));
    let slots: Vec<u16> = slots.collect();
    let primaries: Vec<usize> = slots.iter().map(|slot| cluster.owner(0, *slot)).collect();
    let first = primaries[0];
    let other = *primaries.iter().find(|one| **one != first).unwrap();
    drill.through(async || fail_over(&mut cluster, other)).await;

    // The primary of partition 0 keeps the members, the owners and the tokens of all partitions.
    drill.publish(2_000).await;
    drill.until_more(500).await;
    drill.note("fails-over");
    cut_off(&cluster, first);
    let cursor = |cluster: &Cluster, partition: u16, field: &str| -> String {
        let node = cluster.owner(first, slots[usize::from(partition)]);
        cluster.nodes[node].command(&["HGET", &key(partition, "cursor"), field])
    };
    let (here, elsewhere): (Vec<u16>, Vec<u16>) =
        (0..PARTITIONS).partition(|one| primaries[usize::from(*one)] == first);
    // As a primary gives them whose clock is an hour ahead.
    let mut ahead: BTreeMap<u16, u64> = BTreeMap::new();
    for partition in elsewhere {
        let words = [
            "HINCRBY",
            &key(0, "tokens"),
            &partition.to_string(),
            HOUR_IN_MICROS,
        ];
        ahead.insert(partition, cluster.nodes[first].command(&words));
    }
    let token = |cluster: &Cluster, at: u16| cursor(cluster, at, "token").parse::<u64>().unwrap();
    cluster.until("the members to have the tokens", || {
        ahead
            .iter()
            .all(|(at, ahead)| token(&cluster, *at) >= *ahead)
    });
    let places = || {
        here.iter()
            .map(|at| cursor(&cluster, *at, "log:low"))
            .collect::<Vec<_>>()
    };
    let before = places();
    drill.publish_unsafely(600).await;
    cluster.until("steps that are lost", || places() != before);
    for (number, mut member) in std::mem::take(&mut drill.members) {
        drill.note(&format!("kill {number}"));
        member.kill();
    }
    fail_over(&mut cluster, first);
    // These processes know no token.
    drill.join(3);
    drill.drain().await;
    drill.note("failed-over");
    for (at, ahead) in &ahead {
        let token = token(&cluster, *at);
        assert!(token > *ahead, "{token} after {ahead} on partition {at}");
    }
    drill.publish(600).await;
    drill.check().await;
}
