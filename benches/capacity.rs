//! What a message costs the primaries of a cluster: the prices of the page on capacity.
//!
//! Each price is measured on three primaries and, with as many partitions on it, on one. The other
//! side, one primary, is the prediction for three.

// The other figures' parts are not used here.
#![allow(dead_code, unused_imports)]

mod bench;
mod cluster;
mod meter;
mod options;
mod ours;
mod pair;
mod report;
mod server;
mod work;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::topics::TopicSettings;
use redstart::{Container, Delivery, Envelope, SubscribeOptions, Topic};

use crate::bench::Bench;
use crate::cluster::Cluster;
use crate::pair::Side;
use crate::work::{Order, SIZE};

const FIGURES: usize = 13;
/// The names of the prices. Replicated bytes are those that each replica gets; those that go out do
/// not count them.
const NAMES: [&str; FIGURES] = [
    "publish/server-cpu",
    "publish/in",
    "publish/out",
    "publish/replicated",
    "shared/server-cpu",
    "shared/in",
    "shared/out",
    "shared/replicated",
    "owned/server-cpu",
    "owned/in",
    "owned/out",
    "owned/replicated",
    "publish/memory",
];
/// On each primary.
const PARTITIONS: u16 = 2;
const PRIMARIES: u16 = 3;
/// Messages that one call publishes to each primary.
const BATCH: u64 = 200;

fn main() {
    bench::run(measure);
}

async fn measure(bench: &mut Bench) {
    for replicas in 0..=2 {
        let names = NAMES.map(|name| match replicas {
            0 => format!("capacity/{name}"),
            1 => format!("capacity/1-replica/{name}"),
            more => format!("capacity/{more}-replicas/{name}"),
        });
        let figures: [_; FIGURES] = std::array::from_fn(|at| {
            let unit = match names[at].ends_with("cpu") {
                true => "µs/message",
                false => "B/message",
            };
            (&*names[at], unit)
        });
        if !bench.options.wants_any_long(&figures) {
            continue;
        }
        let count = bench.options.count(300_000);
        let fsync = &bench.options.aof;
        let one = Cluster::start(fsync, 1, replicas);
        let three = Cluster::start(fsync, PRIMARIES, replicas);
        let number = Cell::new(0);
        bench
            .report
            .measure(figures, async |side| {
                let (cluster, primaries) = match side {
                    Side::Ours => (&three, PRIMARIES),
                    Side::Raw => (&one, 1),
                };
                let fresh = || {
                    number.set(number.get() + 1);
                    Topic::new(format!("bench-{}", number.get())).expect("a name")
                };
                let container = cluster.connect().await;
                let run = Run {
                    cluster,
                    container: &container,
                    primaries,
                    count,
                };
                let shared = SubscribeOptions::new().with_concurrency(64);
                let owned = shared.clone().with_ownership(Ownership::new());
                let [publish, shared] = run.prices(&fresh(), shared).await;
                let [_, owned] = run.prices(&fresh(), owned).await;
                ours::finish(container).await;
                let memory = [publish[4]];
                let prices = [&publish[..4], &shared[..4], &owned[..4], &memory].concat();
                prices.try_into().expect("a figure for each name")
            })
            .await;
    }
}

/// What a message costs in one phase: microseconds of the server's processor, bytes in and out, bytes
/// to each replica, bytes of memory.
type Price = [f64; 5];

struct Run<'a> {
    cluster: &'a Cluster,
    container: &'a Container,
    primaries: u16,
    count: u64,
}

impl Run<'_> {
    /// The price of publishing a message, and of handling it.
    async fn prices(&self, topic: &Topic, options: SubscribeOptions) -> [Price; 2] {
        let (container, count) = (self.container, self.count);
        let settings = TopicSettings::default()
            .with_backlog_limit(u64::MAX)
            .with_partitions(PARTITIONS * self.primaries);
        let created = container.topics().create(topic, settings).await;
        created.expect("a topic");
        let began = self.spent();
        self.publish(topic).await;
        let published = self.spent();
        let handled: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&handled);
        let handler = move |_: Payload<Order>, _: Delivery| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        };
        let bus = container.bus();
        let subscription = bus.subscribe_with(topic, options, handler).await;
        let subscription = subscription.expect("subscribed");
        ours::wait_for(&handled, count).await;
        ours::drained(container, topic, 0).await;
        let consumed = self.spent();
        let _ = subscription.unsubscribe(Duration::from_secs(10)).await;
        assert_eq!(handled.load(Ordering::Relaxed), count);
        let each =
            |from: Price, to: Price| std::array::from_fn(|at| (to[at] - from[at]) / count as f64);
        [each(began, published), each(published, consumed)]
    }

    /// What all primaries have spent so far.
    fn spent(&self) -> Price {
        let cluster = self.cluster;
        let threads = ["used_cpu_user_main_thread", "used_cpu_sys_main_thread"];
        [
            cluster.info("cpu", &threads) * 1e6,
            cluster.info("stats", &["total_net_input_bytes"]),
            cluster.info("stats", &["total_net_output_bytes"])
                - cluster.info("stats", &["total_net_repl_output_bytes"]),
            cluster.info("replication", &["master_repl_offset"]),
            cluster.info("memory", &["used_memory"]),
        ]
    }

    /// Publishes messages with different keys, in batches.
    async fn publish(&self, topic: &Topic) {
        let (bus, batch) = (self.container.bus(), BATCH * u64::from(self.primaries));
        let mut next = 0;
        while next < self.count {
            let end = (next + batch).min(self.count);
            let all: Vec<_> = (next..end).map(order).collect();
            for result in bus.publish_all(topic, &all).await {
                result.expect("published");
            }
            next = end;
        }
    }
}

fn order(id: u64) -> Envelope {
    let envelope = Envelope::new("order.placed", &Order::new(id, SIZE));
    envelope
        .expect("encodes")
        .with_key(format!("customer-{id}"))
}
