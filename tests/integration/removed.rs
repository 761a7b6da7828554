//! Entries, pending records and streams that something other than Redstart removes while a consumer
//! holds messages.

use std::sync::Arc;
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Batch, Container, Delivery, Message, Outcome, RetryPolicy, Router, SubscribeOptions,
    Subscription,
};
use tokio::sync::{Semaphore, mpsc};

use crate::support::{
    Server, container, drained, finish, group, letters, next, publish, some, status, topic, until,
};

const LOG: &str = "{shop:orders}:log";
const REDELIVERY: &str = "{shop:orders}:group:billing:redo";

/// A subscription whose handler waits for a permit, and then ends 0 as a failure, 1 as a dead letter
/// and every other message by success. Reports each call that got its permit.
struct Held {
    _subscription: Subscription,
    permits: Arc<Semaphore>,
    calls: mpsc::UnboundedReceiver<(u32, u32)>,
}

impl Held {
    async fn new(container: &Container, lease: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let (sender, calls) = mpsc::unbounded_channel();
        let waiting = Arc::clone(&permits);
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let (waiting, sender) = (Arc::clone(&waiting), sender.clone());
            async move {
                tokio::select! {
                    permit = waiting.acquire() => permit.unwrap().forget(),
                    () = delivery.cancelled() => return Outcome::retry("cancelled"),
                }
                let _ = sender.send((n, delivery.attempt()));
                match n {
                    0 if delivery.attempt() == 1 => Outcome::retry("not now"),
                    1 => Outcome::dead_letter("never"),
                    _ => Outcome::Ack,
                }
            }
        };
        let options = SubscribeOptions::new()
            .with_concurrency(1)
            .with_prefetch(8)
            .with_lease(lease)
            .with_retry(RetryPolicy::fixed(Duration::from_millis(20)));
        let bus = container.bus();
        let made = bus.subscribe_with(&topic("orders"), options, handler).await;
        Self {
            _subscription: made.unwrap(),
            permits,
            calls,
        }
    }

    /// Waits until the consumer holds as many messages.
    async fn holds(&self, container: &Container, count: u64) {
        until("the consumer to hold the messages", async || {
            let status = status(container, &topic("orders"), &group("billing")).await;
            (status.in_flight == count).then_some(())
        })
        .await;
    }

    /// Lets the handlers go on. The first message runs twice, the second one dies.
    async fn expect_all(&mut self, container: &Container, count: u32) {
        self.permits.add_permits(100);
        let mut expected: Vec<_> = (0..count).map(|n| (n, 1)).collect();
        expected.push((0, 2));
        expected.sort_unstable();
        assert_eq!(
            some(&mut self.calls, expected.len()).await,
            expected,
            "every message, and the retry"
        );
        let dead = until("the dead letter", async || {
            let found = letters(container, &topic("orders"), &group("billing")).await;
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].error, "never");
    }
}

/// Another process gets the messages, all at their first attempt.
async fn expect_elsewhere(server: &Server, numbers: std::ops::Range<u32>) {
    let second = container(server).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((n, delivery.attempt()));
        async {}
    };
    let _subscription = second.bus().subscribe(&topic("orders"), handler).await;
    let expected: Vec<_> = numbers.map(|n| (n, 1)).collect();
    assert_eq!(some(&mut received, expected.len()).await, expected);
    drained(&second, &topic("orders"), &group("billing")).await;
    finish(second).await;
}

/// A message of the type that the tests publish.
#[derive(serde::Deserialize)]
struct Number(#[expect(dead_code, reason = "only its type matters")] u32);

impl Message for Number {
    const TYPE: &'static str = "n";
}

fn pending(server: &Server) -> u64 {
    let (count, ..): (u64, redis::Value, redis::Value, redis::Value) =
        server.command(&["XPENDING", LOG, "billing"]);
    count
}

#[tokio::test]
async fn messages_that_are_trimmed_while_held_go_on_from_memory() {
    let server = Server::start();
    let container = container(&server).await;
    let mut held = Held::new(&container, Duration::from_millis(900)).await;
    publish(&container, &topic("orders"), 0..4).await;
    held.holds(&container, 4).await;
    let removed: u64 = server.command(&["XTRIM", LOG, "MAXLEN", "0"]);
    assert_eq!(removed, 4);
    until("an extension to find the entries gone", async || {
        (pending(&server) == 0).then_some(())
    })
    .await;
    held.expect_all(&container, 4).await;
    finish(container).await;
}

#[tokio::test]
async fn messages_of_a_consumer_that_is_deleted_go_on_from_memory() {
    // The consumer notices at its next extension, or when it settles.
    for lease in [Duration::from_secs(3), Duration::from_secs(600)] {
        let server = Server::start();
        let container = container(&server).await;
        let mut held = Held::new(&container, lease).await;
        publish(&container, &topic("orders"), 0..4).await;
        held.holds(&container, 4).await;
        let consumer = held._subscription.consumer().to_string();
        let deleted: u64 = server.command(&["XGROUP", "DELCONSUMER", LOG, "billing", &consumer]);
        assert_eq!(deleted, 4);
        if lease < Duration::from_secs(60) {
            // Longer than a third of the lease: the consumer extends meanwhile, on a slow machine
            // perhaps later, and the result is the same.
            tokio::time::sleep(lease / 2).await;
        }
        held.expect_all(&container, 4).await;
        finish(container).await;
    }
}

#[tokio::test]
async fn a_shutdown_gives_back_messages_that_were_trimmed_while_held() {
    let server = Server::start();
    let first = container(&server).await;
    let held = Held::new(&first, Duration::from_millis(900)).await;
    publish(&first, &topic("orders"), 2..6).await;
    held.holds(&first, 4).await;
    let _: u64 = server.command(&["XTRIM", LOG, "MAXLEN", "0"]);
    until("an extension to find the entries gone", async || {
        (pending(&server) == 0).then_some(())
    })
    .await;
    first.shutdown(Duration::from_millis(100)).await;

    expect_elsewhere(&server, 2..6).await;
}

#[tokio::test]
async fn a_shutdown_gives_back_a_gathered_batch_that_was_trimmed() {
    let server = Server::start();
    let first = container(&server).await;
    publish(&first, &topic("orders"), 0..3).await;
    let handler = |_: Batch<Number>| async { Err::<(), _>("the batch is never full") };
    let options = SubscribeOptions::new()
        .with_batch(10, Duration::from_secs(60))
        .with_lease(Duration::from_secs(60));
    let (bus, orders) = (first.bus(), topic("orders"));
    let router = Router::new().on_batch(handler);
    let _subscription = bus.subscribe_with(&orders, options, router).await.unwrap();
    until("the batch to be gathered", async || {
        let status = status(&first, &orders, &group("billing")).await;
        (status.in_flight == 3).then_some(())
    })
    .await;
    let _: u64 = server.command(&["XTRIM", LOG, "MAXLEN", "0"]);
    first.shutdown(Duration::from_millis(500)).await;
    expect_elsewhere(&server, 0..3).await;
}

#[tokio::test]
async fn a_deleted_redelivery_stream_loses_no_message_in_hand() {
    let server = Server::start();
    let container = container(&server).await;
    let mut held = Held::new(&container, Duration::from_secs(2)).await;
    publish(&container, &topic("orders"), 0..1).await;
    held.permits.add_permits(1);
    assert_eq!(next(&mut held.calls).await, (0, 1));
    // Its retry is held now, from the redelivery stream.
    held.holds(&container, 1).await;
    publish(&container, &topic("orders"), 2..4).await;
    held.holds(&container, 3).await;
    let removed: u64 = server.command(&["DEL", REDELIVERY]);
    assert_eq!(removed, 1, "the key of the redelivery stream");
    held.permits.add_permits(100);
    assert_eq!(some(&mut held.calls, 3).await, [(0, 2), (2, 1), (3, 1)]);
    drained(&container, &topic("orders"), &group("billing")).await;
    finish(container).await;
}
