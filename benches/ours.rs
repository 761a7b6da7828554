//! The same work through Redstart's public interface.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redstart::{
    Container, Delivery, Envelope, Outcome, PublishOptions, RedisKv, RetryPolicy, SubscribeOptions,
    Topic, prelude::*,
};

use crate::Order;
use crate::raw::{Work, batch_of};
use crate::server::Server;

fn envelope(id: u64, size: usize) -> Envelope {
    Envelope::new("order.placed", &Order::new(id, size)).expect("encodes")
}

pub(crate) async fn publish_all(
    server: &Server,
    topic: &Topic,
    count: u64,
    size: usize,
) -> Duration {
    let container = server.container(topic).await;
    let began = Instant::now();
    publish(&container, topic, count, size).await;
    began.elapsed()
}

/// Publishes with deduplication or without it.
pub(crate) async fn publish_once(server: &Server, topic: &Topic, count: u64, once: bool) {
    let container = server.container(topic).await;
    let options = match once {
        true => PublishOptions::new().with_deduplication(Duration::from_secs(600)),
        false => PublishOptions::new(),
    };
    let (bus, batch) = (container.bus(), batch_of(200));
    let mut next = 0;
    while next < count {
        let end = (next + batch).min(count);
        let all: Vec<Envelope> = (next..end).map(|id| envelope(id, 200)).collect();
        for result in bus.publish_all_with(topic, &all, options).await {
            assert!(!result.expect("published").duplicate);
        }
        next = end;
    }
}

async fn publish(container: &Container, topic: &Topic, count: u64, size: usize) {
    let (bus, batch) = (container.bus(), batch_of(size));
    let mut next = 0;
    while next < count {
        let end = (next + batch).min(count);
        let all: Vec<Envelope> = (next..end).map(|id| envelope(id, size)).collect();
        for result in bus.publish_all(topic, &all).await {
            result.expect("published");
        }
        next = end;
    }
}

pub(crate) async fn publish_tasks(
    server: &Server,
    topic: &Topic,
    count: u64,
    tasks: u64,
) -> Duration {
    let container = server.container(topic).await;
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (bus, topic) = (container.bus(), topic.clone());
        running.spawn(async move {
            for id in 0..count / tasks {
                bus.publish(&topic, &envelope(id, 200))
                    .await
                    .expect("published");
            }
        });
    }
    running.join_all().await;
    began.elapsed()
}

/// Waits until nothing of the topic is left to do.
async fn drained(container: &Container, topic: &Topic, dead: u64) {
    loop {
        let groups = container.admin().groups(topic).await.expect("the topic");
        let group = &groups[0];
        if group.lag + group.in_flight + group.scheduled == 0 {
            assert_eq!(group.dead, dead, "a fast run that loses one is a failure");
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn counting(
    container: &Container,
    topic: &Topic,
    concurrency: usize,
) -> (Arc<AtomicU64>, redstart::Subscription) {
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let options = SubscribeOptions::new().with_concurrency(concurrency);
    let subscription = container
        .bus()
        .subscribe_with(topic, options, move |_: Order, _: Delivery| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        })
        .await
        .expect("subscribed");
    (handled, subscription)
}

async fn finish(container: Container) {
    let report = container.shutdown(Duration::from_secs(30)).await;
    assert!(report.is_clean(), "{report:?}");
}

pub(crate) async fn consume(
    server: &Server,
    topic: &Topic,
    count: u64,
    concurrency: usize,
) -> Duration {
    let container = server.container(topic).await;
    let began = Instant::now();
    let (handled, _subscription) = counting(&container, topic, concurrency).await;
    while handled.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drained(&container, topic, 0).await;
    let taken = began.elapsed();
    finish(container).await;
    assert_eq!(handled.load(Ordering::Relaxed), count);
    taken
}

pub(crate) async fn both(server: &Server, topic: &Topic, count: u64) -> Duration {
    let container = server.container(topic).await;
    let (handled, _subscription) = counting(&container, topic, 64).await;
    let began = Instant::now();
    publish(&container, topic, count, 200).await;
    while handled.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drained(&container, topic, 0).await;
    let taken = began.elapsed();
    finish(container).await;
    taken
}

/// Every `share`th message fails once.
pub(crate) async fn consume_failing(
    server: &Server,
    topic: &Topic,
    count: u64,
    share: u64,
) -> Duration {
    let container = server.container(topic).await;
    let handled = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&handled);
    let retry = RetryPolicy::fixed(Duration::from_millis(1));
    let options = SubscribeOptions::new()
        .with_concurrency(64)
        .with_retry(retry);
    let began = Instant::now();
    let _subscription = container
        .bus()
        .subscribe_with(topic, options, move |order: Order, delivery: Delivery| {
            let fails =
                order.id.is_multiple_of(share) && delivery.attempt() == 1 && share != u64::MAX;
            if !fails {
                done.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(if fails {
                Outcome::retry("once")
            } else {
                Outcome::Ack
            })
        })
        .await
        .expect("subscribed");
    while handled.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drained(&container, topic, 0).await;
    let taken = began.elapsed();
    finish(container).await;
    taken
}

pub(crate) async fn latencies(server: &Server, topic: &Topic, span: Duration) -> Vec<Duration> {
    let container = server.container(topic).await;
    let count = span.as_millis() as u64;
    let epoch = Instant::now();
    let seen = Arc::new(Mutex::new(Vec::with_capacity(count as usize)));
    let all = Arc::clone(&seen);
    let _subscription = container
        .bus()
        .subscribe(topic, move |order: Order, _: Delivery| {
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
        let order = envelope(epoch.elapsed().as_nanos() as u64, 200);
        bus.publish(topic, &order).await.expect("published");
    }
    drained(&container, topic, 0).await;
    finish(container).await;
    let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
    assert_eq!(seen.len() as u64, count);
    seen
}

pub(crate) async fn kv(server: &Server, work: Work, count: u64, tasks: u64) -> Duration {
    let kv = RedisKv::new(&server.url, None).expect("the URL is ours");
    let order = Order::new(1, 200);
    for task in 0..tasks {
        let key = format!("ours-{task}");
        kv.delete(&key).await.expect("deleted");
        if !matches!(work, Work::Incr) {
            kv.set(&key, &order, None).await.expect("set");
        }
    }
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let (kv, order) = (kv.clone(), order.clone());
        running.spawn(async move {
            let key = format!("ours-{task}");
            for _ in 0..count / tasks {
                match work {
                    Work::Get => {
                        let found: Option<Order> = kv.get(&key).await.expect("get");
                        assert!(found.is_some());
                    }
                    Work::Set => kv.set(&key, &order, None).await.expect("set"),
                    Work::Incr => {
                        kv.incr(&key, 1).await.expect("incr");
                    }
                    Work::Cas => {
                        let swapped = kv.cas(&key, Some(&order), &order, None).await.expect("cas");
                        assert!(swapped);
                    }
                }
            }
        });
    }
    running.join_all().await;
    began.elapsed()
}
