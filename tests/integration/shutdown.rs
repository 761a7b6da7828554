//! Subscriptions that are shut down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redstart::{Container, Delivery, Envelope, MessageBusExt, SubscribeOptions};
use tokio::sync::{Semaphore, mpsc};

use crate::support::{
    PATIENCE, Server, container, drained, finish, group, next, publish, some, status, topic, until,
};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn shutdown_gives_back_what_was_not_begun_uncounted_and_claimable_at_once() {
    let server = Server::start();
    let first = container(&server).await;
    let orders = topic("orders");
    publish(&first, &orders, 0..10).await;
    let begun = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&begun);
    let options = SubscribeOptions::new()
        .with_concurrency(1)
        .with_prefetch(9)
        .with_lease(DAY);
    let _subscription = first
        .bus()
        .subscribe_with(&orders, options, move |_: u32, _: Delivery| {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>()
        })
        .await
        .unwrap();
    until("some to wait behind the first", async || {
        let held = status(&first, &orders, &group("billing")).await.in_flight;
        (held > 2 && begun.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let report = first.shutdown(Duration::from_millis(20)).await;
    let report = &report.subscriptions[0];
    assert!(report.released >= 2, "{report:?}");
    assert_eq!((report.cancelled, report.unsettled), (1, 0), "{report:?}");
    assert_eq!(
        begun.load(Ordering::SeqCst),
        1,
        "nothing is begun after the stop"
    );

    let second = container(&server).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_lease(DAY);
    let _subscription = second
        .bus()
        .subscribe_with(&orders, options, move |n: u32, delivery: Delivery| {
            let _ = sender.send((n, delivery.attempt()));
            async {}
        })
        .await
        .unwrap();
    let seen = some(&mut received, 10).await;
    assert_eq!(seen, (0..10).map(|n| (n, 1)).collect::<Vec<_>>());
    drained(&second, &orders, &group("billing")).await;
    finish(second).await;
}

#[tokio::test]
async fn shutdown_lets_running_handlers_finish_and_settles_them() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut received) = mpsc::unbounded_channel();
    let door = Arc::clone(&gate);
    let (bus, next_topic) = (container.bus(), topic("next"));
    let _subscription = container
        .bus()
        .subscribe(&orders, move |n: u32, _: Delivery| {
            let (door, sender) = (Arc::clone(&door), sender.clone());
            let (bus, next_topic) = (Arc::clone(&bus), next_topic.clone());
            async move {
                let _ = sender.send(n);
                door.acquire().await?.forget();
                // A handler that finishes may still publish.
                bus.publish(&next_topic, &Envelope::new("n", &n)?).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            }
        })
        .await
        .unwrap();
    publish(&container, &orders, 0..3).await;
    some(&mut received, 3).await;
    let stopping = tokio::spawn({
        let container = container.clone();
        async move { container.shutdown(PATIENCE).await }
    });
    until("reading to stop", async || {
        let (sender, _keep) = mpsc::unbounded_channel::<u32>();
        let handler = move |n: u32, _: Delivery| {
            let _ = sender.send(n);
            async {}
        };
        container.bus().subscribe(&orders, handler).await.err()
    })
    .await;
    gate.add_permits(3);
    let report = stopping.await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.subscriptions[0].released, 0);
    let left = status(&container, &orders, &group("billing")).await;
    assert_eq!((left.in_flight, left.scheduled, left.dead), (0, 0, 0));
    let published = container
        .admin()
        .topic(&topic("next"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(published.length, 3);
}

#[tokio::test]
async fn a_handler_that_blocks_its_thread_cannot_hold_up_the_shutdown() {
    let server = Server::start();
    let (url, mut raw) = (server.url(), server.raw());
    let ended = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let report = runtime.block_on(async {
            let container = Container::builder()
                .with_redis_url(url)
                .with_service(group("billing"))
                .connect()
                .await
                .unwrap();
            // Before: while a handler blocks its thread the runtime may not look for replies.
            publish(&container, &topic("orders"), 0..1).await;
            let (begun, mut told) = mpsc::unbounded_channel();
            let options = SubscribeOptions::new().with_concurrency(1);
            let _subscription = container
                .bus()
                .subscribe_with(&topic("orders"), options, move |_: u32, _: Delivery| {
                    let _ = begun.send(());
                    async { std::thread::sleep(PATIENCE * 2) }
                })
                .await
                .unwrap();
            // From outside of the runtime: the handler's thread may be the one that watches the
            // sockets, and then nothing here is answered any more until a task is woken.
            redis::cmd("XADD")
                .arg(&["{orders}:log", "*", "json", r#"{"type":"n","payload":0}"#])
                .exec(&mut raw)
                .unwrap();
            next(&mut told).await;
            container.shutdown(Duration::from_millis(50)).await
        });
        // Its thread is left behind.
        runtime.shutdown_background();
        report
    });
    let report = tokio::time::timeout(PATIENCE, ended)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(report.subscriptions[0].cancelled, 1, "{report:?}");
}
