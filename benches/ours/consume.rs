//! Consuming with handlers that do nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::{Batch, Container, Delivery, Group, Router, SubscribeOptions, Topic};

use super::publish::envelope;
use super::{drained, finish, publish};
use crate::meter::{Meter, Spent};
use crate::server::Server;
use crate::work::{Order, SIZE};

/// Subscribes a handler that counts.
pub(crate) async fn counting(
    container: &Container,
    topic: &Topic,
    concurrency: usize,
    handled: &Arc<AtomicU64>,
) {
    let count = Arc::clone(handled);
    let options = SubscribeOptions::new().with_concurrency(concurrency);
    let _subscription = container
        .bus()
        .subscribe_with(topic, options, move |_: Payload<Order>, _: Delivery| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        })
        .await
        .expect("subscribed");
}

/// Subscribes a handler that counts, with default options, as another group.
pub(crate) async fn counting_as(
    container: &Container,
    topic: &Topic,
    group: &str,
    handled: &Arc<AtomicU64>,
) {
    let count = Arc::clone(handled);
    let options = SubscribeOptions::new().with_group(Group::new(group).expect("a name"));
    let _subscription = container
        .bus()
        .subscribe_with(topic, options, move |_: Payload<Order>, _: Delivery| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        })
        .await
        .expect("subscribed");
}

/// Waits until `count` messages were handled.
pub(crate) async fn wait_for(handled: &AtomicU64, count: u64) {
    while handled.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Consumes the `count` messages of a topic.
pub(crate) async fn consume(
    server: &Server,
    topic: &Topic,
    count: u64,
    concurrency: usize,
) -> Spent {
    let container = server.container(topic).await;
    let handled = Arc::default();
    let meter = Meter::start(server);
    counting(&container, topic, concurrency, &handled).await;
    wait_for(&handled, count).await;
    drained(&container, topic, 0).await;
    let spent = meter.stop();
    finish(container).await;
    assert_eq!(handled.load(Ordering::Relaxed), count);
    spent
}

/// Consumes the messages of a topic in batches of up to 500, one batch at a time.
pub(crate) async fn consume_batches(server: &Server, topic: &Topic, count: u64) -> Spent {
    let container = server.container(topic).await;
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    let options = SubscribeOptions::new()
        .with_batch(500, Duration::from_millis(10))
        .with_concurrency(1);
    let handler = move |batch: Batch<Order>| {
        counted.fetch_add(batch.len() as u64, Ordering::Relaxed);
        std::future::ready(())
    };
    let meter = Meter::start(server);
    let _subscription = container
        .bus()
        .subscribe_with(topic, options, Router::new().on_batch(handler))
        .await
        .expect("subscribed");
    wait_for(&handled, count).await;
    drained(&container, topic, 0).await;
    let spent = meter.stop();
    finish(container).await;
    assert_eq!(handled.load(Ordering::Relaxed), count);
    spent
}

/// Publishes and consumes at once.
pub(crate) async fn both(server: &Server, topic: &Topic, count: u64) -> Spent {
    let container = server.container(topic).await;
    let handled = Arc::default();
    counting(&container, topic, 64, &handled).await;
    let meter = Meter::start(server);
    publish(&container, topic, count, SIZE).await;
    wait_for(&handled, count).await;
    drained(&container, topic, 0).await;
    let spent = meter.stop();
    finish(container).await;
    spent
}

/// From before a publish until the handler begins, at 1,000 messages a second.
pub(crate) async fn latencies(server: &Server, topic: &Topic, duration: Duration) -> Vec<Duration> {
    let container = server.container(topic).await;
    let seen = latencies_in(&container, topic, duration).await;
    finish(container).await;
    seen
}

/// The same in a container that does other work, too.
pub(crate) async fn latencies_in(
    container: &Container,
    topic: &Topic,
    duration: Duration,
) -> Vec<Duration> {
    let count = duration.as_millis() as u64;
    let epoch = Instant::now();
    let seen = Arc::new(Mutex::new(Vec::with_capacity(count as usize)));
    let all = Arc::clone(&seen);
    let subscription = container
        .bus()
        .subscribe(topic, move |Payload(order): Payload<Order>, _: Delivery| {
            let taken = epoch.elapsed() - Duration::from_nanos(order.id);
            all.lock().expect("not poisoned").push(taken);
            std::future::ready(())
        })
        .await
        .expect("subscribed");
    let bus = container.bus();
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    for _ in 0..count {
        ticks.tick().await;
        let order = envelope(epoch.elapsed().as_nanos() as u64, SIZE);
        bus.publish(topic, &order).await.expect("published");
    }
    drained(container, topic, 0).await;
    let _ = subscription.unsubscribe(Duration::from_secs(10)).await;
    let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
    assert_eq!(seen.len() as u64, count);
    seen
}
