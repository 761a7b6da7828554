//! Background tasks that panic: each starts again, health names it until it works, and every
//! message is handled.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::memory::MemoryStore;
use redstart::ports::BoxFuture;
use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::testing::Faults;
use redstart::{Container, Delivery, Error, Outcome, RetryPolicy, SubscribeOptions, Subscription};
use support::{drained, group, next, publish, topic, until};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Panics in the calls of one operation, after the store has done it.
#[derive(Debug)]
struct Panics {
    operation: &'static str,
    left: AtomicU32,
}

impl Decorator for Panics {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let answer = next.run(op).await;
            let take = |left: u32| left.checked_sub(1);
            let counts = op.name() == self.operation && answer.is_ok();
            if counts
                && self
                    .left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                    .is_ok()
            {
                panic!("{} on purpose", self.operation);
            }
            answer
        })
    }
}

/// A container whose store panics in some calls of an operation, from when `left` says so.
async fn panicking(operation: &'static str) -> (Container, Arc<Panics>) {
    let left = AtomicU32::new(0);
    let panics = Arc::new(Panics { operation, left });
    let store = MemoryStore::new().store(None);
    let decorator = Arc::clone(&panics) as Arc<dyn Decorator>;
    let store = Decorated::new(decorator, store);
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_store(Arc::new(store)).connect().await;
    (container.unwrap(), panics)
}

/// Fails every fifth message once, and sends each message to the test when it is done.
async fn subscribe(
    container: &Container,
    options: SubscribeOptions,
) -> (Subscription, UnboundedReceiver<u32>) {
    let (sender, received) = unbounded_channel();
    let options = options
        .with_retry(RetryPolicy::fixed(Duration::from_millis(5)))
        .with_lease(Duration::from_secs(1));
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let again = n.is_multiple_of(5) && delivery.attempt() == 1;
        if !again {
            let _ = sender.send(n);
        }
        async move {
            match again {
                true => Outcome::retry("once"),
                false => Outcome::Ack,
            }
        }
    };
    let bus = container.bus();
    let subscribed = bus.subscribe_with(&topic("orders"), options, handler).await;
    (subscribed.unwrap(), received)
}

/// Receives until each number up to 60 has come at least once.
async fn all(received: &mut UnboundedReceiver<u32>) {
    let mut missing: std::collections::BTreeSet<u32> = (0..60).collect();
    while !missing.is_empty() {
        missing.remove(&next(received).await);
    }
}

async fn a_panic_of(operation: &'static str, named: &str) {
    let (container, panics) = panicking(operation).await;
    let (subscription, mut received) = subscribe(&container, SubscribeOptions::new()).await;
    let orders = topic("orders");
    // The fetcher also claims, but only at its start.
    publish(&container, &orders, 61..62).await;
    assert_eq!(next(&mut received).await, 61);
    panics.left.store(2, Ordering::SeqCst);
    publish(&container, &orders, 0..60).await;
    let problem = until("health to name the task", async || {
        let health = container.health().await;
        assert_eq!(health.ok, subscription.problem().is_none(), "{health:?}");
        subscription.problem().filter(|text| text.contains(named))
    })
    .await;
    assert!(problem.contains("on purpose"), "{problem}");
    all(&mut received).await;
    drained(&container, &orders, &group("billing")).await;
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    assert_eq!(panics.left.load(Ordering::SeqCst), 0);
    support::finish(container).await;
}

#[tokio::test]
async fn the_fetcher_starts_again_and_the_entries_of_its_read_are_released() {
    a_panic_of("fetch", "the fetcher").await;
}

#[tokio::test]
async fn the_reclaimer_starts_again_and_what_it_claimed_is_released() {
    a_panic_of("deliveries.claim_expired", "the reclaimer").await;
}

#[tokio::test]
async fn the_settlers_start_again_and_commit_their_batch_again() {
    a_panic_of("deliveries.commit", "the settler of").await;
}

#[tokio::test]
async fn the_promoter_starts_again() {
    a_panic_of("schedule.promote", "the promoter").await;
}

#[tokio::test]
async fn the_janitor_starts_again() {
    a_panic_of("topics.trim_in_turn", "the janitor").await;
}

#[tokio::test]
async fn the_lease_keeper_starts_again_before_the_lease_is_lost() {
    let (container, panics) = panicking("deliveries.extend").await;
    let (sender, mut received) = unbounded_channel();
    let options = SubscribeOptions::new().with_lease(Duration::from_secs(3));
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let sender = sender.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let _ = sender.send((n, delivery.is_cancelled()));
        }
    };
    let bus = container.bus();
    let subscribed = bus.subscribe_with(&topic("orders"), options, handler).await;
    let subscription = subscribed.unwrap();
    panics.left.store(2, Ordering::SeqCst);
    publish(&container, &topic("orders"), 0..1).await;
    until("health to name the task", async || {
        let problem = subscription.problem()?;
        problem.contains("the lease keeper").then_some(())
    })
    .await;
    assert_eq!(next(&mut received).await, (0, false));
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_panics_outside_of_its_handler_gives_the_message_back() {
    // Where one attempt is allowed, each is marked before the handler is called.
    let (container, panics) = panicking("deliveries.begin").await;
    let (sender, mut received) = unbounded_channel();
    let retry = RetryPolicy::fixed(Duration::ZERO).with_max_attempts(1);
    let options = SubscribeOptions::new().with_concurrency(2);
    let options = options.with_retry(retry);
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let _ = sender.send(n);
        async {}
    };
    let bus = container.bus();
    let subscribed = bus.subscribe_with(&topic("orders"), options, handler).await;
    let subscription = subscribed.unwrap();
    panics.left.store(4, Ordering::SeqCst);
    publish(&container, &topic("orders"), 0..60).await;
    until("health to name the task", async || {
        subscription
            .problem()
            .filter(|text| text.contains("a worker"))
    })
    .await;
    let status = drained(&container, &topic("orders"), &group("billing")).await;
    // The mark says that the attempt has begun, so a message of a panic can be a dead letter.
    let mut handled = 0;
    while received.try_recv().is_ok() {
        handled += 1;
    }
    assert_eq!(handled + status.dead, 60, "{status:?}");
    assert!(status.dead <= 4, "{status:?}");
}

/// A subscriber like one whose standard error is closed: it panics at each line it should write.
struct Closed;

impl tracing::Subscriber for Closed {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        panic!("cannot write {}", event.metadata().name());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_log_that_cannot_be_written_costs_no_message() {
    let faults = Faults::on(MemoryStore::new().store(None));
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_store(faults.store()).connect().await.unwrap();
    let _default = tracing::subscriber::set_default(Closed);
    let (subscription, mut received) = subscribe(&container, SubscribeOptions::new()).await;
    let orders = topic("orders");
    publish(&container, &orders, 0..30).await;
    for round in 0..3 {
        faults.disconnect();
        until("the fetcher to notice", async || subscription.problem()).await;
        faults.reconnect();
        publish(&container, &orders, 30 + 10 * round..40 + 10 * round).await;
    }
    all(&mut received).await;
    drained(&container, &orders, &group("billing")).await;
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    support::finish(container).await;
}

#[tokio::test]
async fn a_shutdown_that_panics_is_not_clean_and_ends_the_subscription() {
    let (container, panics) = panicking("deliveries.pending_of").await;
    let (subscription, _received) = subscribe(&container, SubscribeOptions::new()).await;
    panics.left.store(1, Ordering::SeqCst);
    let report = subscription.unsubscribe(support::PATIENCE).await;
    assert!(!report.is_clean(), "{report:?}");
    assert_eq!(panics.left.load(Ordering::SeqCst), 0);
    let (_again, mut received) = subscribe(&container, SubscribeOptions::new()).await;
    publish(&container, &topic("orders"), 0..60).await;
    all(&mut received).await;
    support::finish(container).await;
}
