//! Processes that join, leave, die and stand still on one server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use redstart::topics::{Retention, TopicSettings};
use redstart::{Container, Envelope};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::history::{KEYS, check};
use crate::member::{Ground, LEASE, Pace, start};
use crate::support::worker::Worker;
use crate::support::{Server, container, drained, finish, group, next, topic, until};
use crate::wire::Wire;

const PARTITIONS: u16 = 12;
/// In each cycle of rounds, every fault comes once.
const FAULTS: u32 = 7;

/// A group with its members, its publisher and its history.
struct Drill {
    server: Server,
    container: Container,
    connection: MultiplexedConnection,
    ground: Ground,
    members: BTreeMap<u32, Worker>,
    last: u32,
    published: u32,
    sender: UnboundedSender<(u32, String)>,
    said: UnboundedReceiver<(u32, String)>,
}

impl Drill {
    async fn start() -> Self {
        let server = Server::start();
        let container = container(&server).await;
        // An owner that goes back finds again what others have settled.
        let settings = TopicSettings::default()
            .with_partitions(PARTITIONS)
            .with_retention(Retention::Count(1_000_000));
        let made = container.topics().create(&topic("orders"), settings).await;
        made.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let (sender, said) = unbounded_channel();
        let mut drill = Self {
            connection: client.get_multiplexed_async_connection().await.unwrap(),
            ground: Ground {
                url: server.url(),
                namespace: "shop".to_owned(),
                history: server.url(),
            },
            server,
            container,
            members: BTreeMap::new(),
            last: 0,
            published: 0,
            sender,
            said,
        };
        drill.join(3);
        drill
    }

    fn join(&mut self, count: u32) {
        for _ in 0..count {
            self.join_by(&self.ground.clone());
        }
    }

    fn join_by(&mut self, ground: &Ground) -> u32 {
        self.last += 1;
        let member = start(ground, self.last, &self.sender);
        self.members.insert(self.last, member);
        self.last
    }

    async fn publish(&mut self, count: u32) {
        let numbers = self.published..self.published + count;
        let message = |n: u32| {
            Envelope::new("n", &n)
                .unwrap()
                .with_key(format!("k{}", n % KEYS))
        };
        let all: Vec<Envelope> = numbers.map(message).collect();
        let bus = self.container.bus();
        for result in bus.publish_all(&topic("orders"), &all).await {
            result.unwrap();
        }
        self.published += count;
    }

    async fn note(&mut self, event: &str) -> usize {
        self.connection.rpush("history", event).await.unwrap()
    }

    /// Notes that a member dies, and kills it.
    async fn kill(&mut self, number: u32) {
        self.note(&format!("kill {number}")).await;
        self.members.remove(&number).unwrap().kill();
    }

    /// Tells members at which pace their handlers work, and waits until they obey.
    async fn order(&mut self, members: &[u32], pace: Pace) {
        for number in members {
            let member = self.members.get_mut(number).unwrap();
            member.order(pace.order());
        }
        for _ in members {
            let (_, said) = next(&mut self.said).await;
            assert_eq!(said, pace.order());
        }
    }

    async fn noted(&self) -> usize {
        let mut connection = self.connection.clone();
        connection.llen("history").await.unwrap()
    }

    /// Whether each of these members has begun a message after a place in the history.
    async fn have_begun(&mut self, members: &[u32], after: usize) -> bool {
        let from = isize::try_from(after).unwrap();
        let noted: Vec<String> = self.connection.lrange("history", from, -1).await.unwrap();
        let has_begun = |member: &u32| {
            noted.iter().any(|one| {
                let words: Vec<&str> = one.split(' ').collect();
                words[0] == "begin" && words[3] == member.to_string()
            })
        };
        members.iter().all(has_begun)
    }

    /// Publishes until each of these members has begun a message. One that has just joined gets its share
    /// later.
    async fn keep_busy(&mut self, members: &[u32]) {
        let before = self.noted().await;
        until("each member to begin a message", async || {
            self.publish(KEYS).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.have_begun(members, before).await.then_some(())
        })
        .await;
    }

    /// Waits until everything is settled.
    async fn drain(&mut self) {
        let orders = topic("orders");
        until("the group to exist", async || {
            self.container.topics().groups(&orders).await.unwrap().pop()
        })
        .await;
        drained(&self.container, &orders, &group("billing")).await;
        self.note("drained").await;
    }

    fn numbers(&self) -> Vec<u32> {
        self.members.keys().copied().collect()
    }

    /// Stops a member for longer than its lease.
    async fn stop(&mut self, victim: u32) {
        self.note(&format!("stop {victim}")).await;
        self.members.get_mut(&victim).unwrap().freeze();
        self.publish(300).await;
        tokio::time::sleep(LEASE * 2).await;
        self.members.get_mut(&victim).unwrap().thaw();
    }

    /// A member's last steps reach the server when others have had its partitions and have died, too.
    /// Without a fence, the next owners go on from where these steps say. Returns whether there was a step: a
    /// busy machine may hold the member up until it has lost its partitions.
    async fn deliver_steps_late(&mut self) -> bool {
        let wire = Wire::before(self.server.port()).await;
        let behind = Ground {
            url: wire.url(),
            ..self.ground.clone()
        };
        let victim = self.join_by(&behind);
        self.order(&[victim], Pace::Waiting).await;
        self.keep_busy(&[victim]).await;
        self.note(&format!("stop {victim}")).await;
        wire.keep();
        // The victim hears of none of these.
        self.publish(300).await;
        self.order(&[victim], Pace::Fast).await;
        // Of the commands of a member, a step alone has this key.
        let given_up = Instant::now() + 2 * LEASE;
        until("a step on the way", async || {
            let is_kept = wire.has_kept(":causes");
            (is_kept || Instant::now() > given_up).then_some(())
        })
        .await;
        self.drain().await;
        let is_kept = wire.has_kept(":causes");
        // The victim, too: it would begin anew.
        for number in self.numbers() {
            self.kill(number).await;
        }
        wire.deliver().await;
        self.join(3);
        is_kept
    }

    /// A member dies as soon as a handler has begun in a group that was quiet. Unless the store knew before
    /// that it might begin, this attempt does not count.
    async fn die_at_a_beginning(&mut self, victim: u32) {
        self.keep_busy(&[victim]).await;
        self.drain().await;
        self.order(&[victim], Pace::Deadly).await;
        let mut dying = self.members.remove(&victim).unwrap();
        until("the member to die", async || {
            self.publish(KEYS).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            dying.ended()
        })
        .await;
        self.join(1);
    }

    /// A member joins while the handlers of all others take long. Where a partition changes its owner before
    /// its handlers have returned, two of them have one key.
    async fn join_beside_slow_handlers(&mut self) {
        let members = self.numbers();
        self.order(&members, Pace::Slow).await;
        self.publish(1_000).await;
        self.keep_busy(&members).await;
        self.join(1);
        self.keep_busy(&[self.last]).await;
        self.order(&members, Pace::Fast).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_a_key_keep_their_order_whatever_happens_to_processes() {
    let seed = std::env::var("REDSTART_OWNED_SEED").ok();
    let seed = seed.map_or(7, |seed| seed.parse().unwrap());
    let rounds = std::env::var("REDSTART_OWNED_ROUNDS").ok();
    let rounds: u32 = rounds.map_or(FAULTS, |rounds| rounds.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut drill = Drill::start().await;
    drill.publish(600).await;
    for round in 0..rounds {
        // More than is handled meanwhile: handlers run whenever a partition moves.
        drill.publish(1_000).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let numbers = drill.numbers();
        let victim = numbers[random.usize(..numbers.len())];
        match (round % FAULTS, numbers.len()) {
            (0, _) | (_, 1) => drill.join(1),
            (1, _) => {
                drill.kill(victim).await;
                drill.join(1);
            }
            (2, _) => drill.stop(victim).await,
            (3, _) => drill.members.remove(&victim).unwrap().end(),
            (4, _) => {
                let mut tries = 1;
                while !drill.deliver_steps_late().await {
                    tries += 1;
                    assert!(tries <= 5, "no step was on the way in five tries");
                }
            }
            (5, _) => drill.die_at_a_beginning(victim).await,
            _ => drill.join_beside_slow_handlers().await,
        }
    }
    drill.publish(KEYS).await;
    drill.drain().await;
    std::mem::take(&mut drill.members)
        .into_values()
        .for_each(Worker::end);

    let history: Vec<String> = drill.connection.lrange("history", 0, -1).await.unwrap();
    let messages = drill.published;
    let wrong = check(&history, messages, &BTreeSet::new());
    let stale = history.iter().filter(|one| one.starts_with("stale"));
    let ends = history.iter().filter(|one| one.starts_with("end"));
    let (stale, ends) = (stale.count(), ends.count());
    println!("seed {seed}: {messages} messages, {ends} ends, {stale} stale");
    assert_eq!(wrong, [""; 0], "seed {seed}, {} in all", wrong.len());
    finish(drill.container).await;
}
