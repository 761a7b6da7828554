//! A slot that moves at once, with all its keys (`CLUSTER MIGRATESLOTS` of Valkey 9).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, SubscribeOptions};
use tokio::sync::mpsc;

use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, drained, finish, group, next, topic};

/// Set by `tests/servers` where the server must know the command.
const REQUIRED: &str = "REDSTART_TEST_MIGRATESLOTS";
const MOVES: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_and_readers_follow_a_slot_that_moves_at_once() {
    let cluster = Arc::new(Cluster::start(3, 0));
    if !cluster.moves_at_once() {
        let required = std::env::var_os(REQUIRED).is_some();
        assert!(!required, "this server has no CLUSTER MIGRATESLOTS");
        return;
    }
    let namespace = cluster.namespace();
    let container = cluster.builder(&namespace).connect().await.unwrap();
    let (orders, bus) = (topic("orders"), container.bus());
    let slot = cluster.slot(&format!("{{{namespace}:orders}}:log"));
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new()
        .with_concurrency(1)
        .with_lease(PATIENCE);
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let _ = sender.send(n);
        async {}
    };
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let moving = {
        let (cluster, done) = (Arc::clone(&cluster), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            for _ in 0..MOVES {
                let from = cluster.owner(0, slot);
                cluster.move_slot_at_once(slot, from, (from + 1) % 3);
            }
            done.store(true, Ordering::Release);
        })
    };
    let mut published = 0;
    while !done.load(Ordering::Acquire) && !moving.is_finished() {
        let envelope = Envelope::new("n", &published).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
        published += 1;
    }
    moving.await.unwrap();
    assert!(published > MOVES, "{published}");
    for n in 0..published {
        assert_eq!(next(&mut received).await, n);
    }
    drained(&container, &orders, &group("billing")).await;
    assert!(received.try_recv().is_err(), "nothing arrives twice");
    finish(container).await;
}
