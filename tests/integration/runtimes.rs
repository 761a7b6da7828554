//! A container whose runtime has ended, or lives and is not driven, and a link whose task panics.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use redstart::extract::Payload;
use redstart::{Container, Delivery, Envelope};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{Server, container, drained, finish, group, next, publish, topic, until};

/// A runtime that works only while `block_on` lasts.
fn single() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

async fn fill_the_pool(container: &Container) {
    let kv = container.kv();
    let calls = (0..64).map(|n| {
        let kv = kv.clone();
        async move { kv.set(&format!("k{n}"), &n).await.unwrap() }
    });
    futures_util::future::join_all(calls).await;
}

#[test]
fn a_subscription_whose_runtime_has_ended_is_named_and_replaced() {
    let server = Server::start();
    let orders = topic("orders");
    let first = Runtime::new().unwrap();
    let (sender, mut began) = unbounded_channel();
    let container = first.block_on(async {
        let container = container(&server).await;
        let handler = move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            std::future::pending::<()>()
        };
        let _subscription = container.bus().subscribe(&orders, handler).await.unwrap();
        publish(&container, &orders, 0..3).await;
        next(&mut began).await;
        assert!(container.health().await.ok);
        container
    });
    drop(first);
    Runtime::new().unwrap().block_on(async {
        let health = container.health().await;
        assert!(!health.ok, "{health:?}");
        let reason = &health.bus.reasons[0];
        assert!(
            reason.contains("orders/billing: its runtime has ended"),
            "{reason}"
        );
        let (sender, mut received) = unbounded_channel();
        let handler = move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        };
        let subscription = container.bus().subscribe(&orders, handler).await.unwrap();
        // Their lease of 30 seconds lasts: the dead subscription was ended, so it released them.
        for _ in 0..3 {
            next(&mut received).await;
        }
        drained(&container, &orders, &group("billing")).await;
        until("health to come back", async || {
            container.health().await.ok.then_some(())
        })
        .await;
        assert_eq!(subscription.problem(), None);
        finish(container).await;
    });
}

#[test]
fn calls_end_and_work_where_nobody_drives_the_runtime_of_the_connections() {
    let server = Server::start();
    let orders = topic("orders");
    let first = single();
    let container = first.block_on(async {
        let container = container(&server).await;
        publish(&container, &orders, 0..1).await;
        fill_the_pool(&container).await;
        container
    });
    let second = single();
    second.block_on(async {
        let envelope = Envelope::new("n", &1).unwrap();
        let limited = async {
            // Two at once: the second job must not be lost when the first takes the link over.
            let bus = container.bus();
            let both = tokio::join!(
                bus.publish(&orders, &envelope),
                bus.publish(&orders, &envelope)
            );
            both.0.unwrap();
            both.1.unwrap();
            bus.publish(&orders, &envelope).await.unwrap();
            container.kv().incr("n", 1).await.unwrap();
            container.health().await
        };
        let health = tokio::time::timeout(Duration::from_secs(30), limited).await;
        assert!(health.expect("the calls end").ok);
    });
    // Back on the first runtime everything works, too.
    first.block_on(async {
        publish(&container, &orders, 0..1).await;
        container.kv().incr("n", 1).await.unwrap();
        let status = container.topics().list().await.unwrap();
        assert_eq!(status.len(), 1);
    });
    let length: u64 = server.command(&["XLEN", "{shop:orders}:log"]);
    assert_eq!(length, 5, "nothing is published twice");
}

#[test]
fn publishes_go_on_where_nobody_drives_the_task_that_repeats_them() {
    let server = Server::start();
    let orders = topic("orders");
    let envelope = Envelope::new("n", &1).unwrap();
    let first = single();
    let container = first.block_on(async {
        let container = container(&server).await;
        publish(&container, &orders, 0..1).await;
        let () = server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        let bus = container.bus();
        let repeated = bus.publish(&orders, &envelope);
        // The caller gives up while the server refuses, and the runtime stands still.
        let given_up = tokio::time::timeout(Duration::from_secs(1), repeated).await;
        assert!(given_up.is_err());
        container
    });
    let () = server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    single().block_on(async {
        let bus = container.bus();
        let publishing = async {
            // The first ones find out that nobody repeats them.
            let mut results = Vec::new();
            while results.last() != Some(&true) {
                let result = bus.publish(&orders, &envelope).await;
                results.push(result.is_ok());
            }
            results.len()
        };
        let tries = tokio::time::timeout(Duration::from_secs(90), publishing).await;
        assert!(tries.expect("a publish that is done") <= 3);
    });
}

/// Panics when a reconnect is counted.
#[derive(Debug)]
struct Broken;

impl metrics::Recorder for Broken {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        assert_ne!(key.name(), "redstart_reconnects_total", "no counter");
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn a_link_whose_task_panics_is_named_and_starts_again() {
    // This test and all its tasks run on one thread.
    let _guard = metrics::set_default_local_recorder(&Broken);
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 0..1).await;
    let _: redis::Value = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let envelope = Envelope::new("n", &1).unwrap();
    let error = container.bus().publish(&orders, &envelope).await;
    let error = format!("{:?}", error.unwrap_err());
    assert!(error.contains("the link panicked"), "{error}");
    container.bus().publish(&orders, &envelope).await.unwrap();
    assert!(container.health().await.ok);
}
