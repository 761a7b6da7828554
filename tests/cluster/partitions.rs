//! A topic with several partitions while one primary is down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::store::Reading;
use redstart::topics::TopicSettings;
use redstart::{Container, Delivery, Envelope, Outcome, SubscribeOptions};
use tokio::sync::{Semaphore, mpsc};

use crate::support::cluster::Cluster;
use crate::support::{group, next, topic, until};

const PARTITIONS: u16 = 6;
/// Several of them pass while the primary is down.
const LEASE: Duration = Duration::from_secs(2);

fn message(key: u32, n: u32) -> Envelope {
    Envelope::new("n", &n).unwrap().with_key(key.to_string())
}

/// Unsettled and undelivered messages of a group on one partition.
async fn open(container: &Container, name: &str, number: u16) -> u64 {
    let topics = container.topics();
    let groups = topics.groups_of_partition(&topic("orders"), number).await;
    let groups = groups.unwrap().into_iter();
    let of = groups.filter(|status| status.group == group(name));
    of.map(|one| one.lag + one.in_flight + one.scheduled).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_down_stops_its_own_partitions_only() {
    let mut cluster = Cluster::start_with(3, 0, &["--cluster-require-full-coverage", "no"]);
    let namespace = cluster.namespace();
    let container = cluster.builder(&namespace).connect().await.unwrap();
    let orders = topic("orders");
    let settings = TopicSettings::default().with_partitions(PARTITIONS);
    container.topics().create(&orders, settings).await.unwrap();
    let owner = |number: u16| cluster.owner_of(&namespace, number);
    // Partition 0 knows how many there are.
    let victim = owner(0);
    let (down, up): (Vec<u16>, Vec<u16>) = (0..PARTITIONS).partition(|one| owner(*one) == victim);
    assert!(!up.is_empty(), "{down:?}");

    let (gate, is_down) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (sender, mut seen) = mpsc::unbounded_channel();
    let names = ["shared", "own"];
    let mut subscriptions = Vec::new();
    for (name, reading) in names.into_iter().zip([Reading::Automatic, Reading::Own]) {
        let (sender, gate, is_down) = (sender.clone(), Arc::clone(&gate), Arc::clone(&is_down));
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let (sender, gate, is_down) = (sender.clone(), Arc::clone(&gate), Arc::clone(&is_down));
            async move {
                let partition = delivery.entry_id().partition();
                if !is_down.load(Ordering::SeqCst) {
                    let _ = sender.send((name, partition, n, "begun"));
                    let _ = gate.acquire().await.map(|permit| permit.forget());
                    let lost = delivery.is_cancelled();
                    let end = if lost { "lost" } else { "done" };
                    let _ = sender.send((name, partition, n, end));
                    return Outcome::Ack;
                }
                // Each way of settling.
                let _ = sender.send((name, partition, n, "done"));
                match (n % 4, delivery.attempt()) {
                    (1, 1) => Outcome::retry("held back"),
                    (2, 1) => Outcome::retry_after(Duration::from_secs(4), "stored"),
                    (3, _) => Outcome::dead_letter("no"),
                    _ => Outcome::Ack,
                }
            }
        };
        let options = SubscribeOptions::new().with_group(group(name));
        let options = options.with_reading(reading).with_lease(LEASE);
        let options = options.with_concurrency(64);
        let bus = container.bus();
        let made = bus.subscribe_with(&orders, options, handler);
        subscriptions.push(made.await.unwrap());
    }

    // A message of each partition is being handled when the primary goes down.
    let mut keys: BTreeMap<u16, u32> = BTreeMap::new();
    let mut first = 0;
    while keys.len() < usize::from(PARTITIONS) {
        let published = container
            .bus()
            .publish(&orders, &message(first, first))
            .await;
        keys.entry(published.unwrap().id.partition())
            .or_insert(first);
        first += 1;
    }
    for _ in 0..2 * first {
        assert_eq!(next(&mut seen).await.3, "begun");
    }
    cluster.nodes[victim].kill();
    is_down.store(true, Ordering::SeqCst);
    let killed = Instant::now();

    let mut wanted = BTreeSet::new();
    for n in 1000..1040 {
        for number in &up {
            let n = n * 10 + u32::from(*number);
            let published = container
                .bus()
                .publish(&orders, &message(keys[number], n))
                .await;
            assert_eq!(published.unwrap().id.partition(), *number);
            wanted.extend(names.map(|name| (name, *number, n, "done")));
        }
    }
    while !wanted.is_empty() {
        wanted.remove(&next(&mut seen).await);
    }
    // Their leases hold.
    tokio::time::sleep((killed + 3 * LEASE).saturating_duration_since(Instant::now())).await;
    gate.add_permits(2 * first as usize);
    let mut ended = 0;
    while ended < 2 * first {
        let (_, number, n, end) = next(&mut seen).await;
        if n < first {
            ended += 1;
            assert!(
                end == "done" || down.contains(&number),
                "{n} of {number}: {end}"
            );
        }
    }
    for name in names {
        for number in &up {
            until("the partition to be settled", async || {
                (open(&container, name, *number).await == 0).then_some(())
            })
            .await;
        }
    }
    println!("settled {:?} after the primary went down", killed.elapsed());
    let _ = container.shutdown(Duration::from_millis(100)).await;
}
