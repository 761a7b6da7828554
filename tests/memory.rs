//! The memory adapter with its own clock and its own way to fail.

mod support;

use std::time::Duration;

use redstart::extract::Payload;
use redstart::store::Partition;
use redstart::{
    Container, Delivery, Envelope, Outcome, Placement, RetryPolicy, SubscribeOptions, Subscription,
    container::Coordinator,
    dead_letters::{DeadLetterRetention, Sweep},
    envelope::Timestamp,
    kv::{Once, OnceOptions, once_with},
    memory::{Clock as _, ManualClock, MemoryStore},
    ownership::Ownership,
    ports::BoxFuture,
    topics::{Retention, TopicSettings},
};
use support::{batches, drained, finish, group, letters, next, some, status, topic, until};
use tokio::sync::mpsc;

const HOUR: Duration = Duration::from_secs(3600);

async fn on_a_clock() -> (Container, ManualClock) {
    let clock = ManualClock::new(Timestamp::from_millis(1_762_957_200_000).unwrap());
    let store = MemoryStore::with_clock(clock.clone());
    let builder = Container::builder().with_service(group("billing"));
    (builder.with_memory(store).connect().await.unwrap(), clock)
}

#[tokio::test]
async fn hours_of_backoff_pass_in_no_time() {
    let (container, clock) = on_a_clock().await;
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let retry = RetryPolicy::fixed(HOUR).with_max_attempts(24);
    let options = SubscribeOptions::new().with_retry(retry);
    let _subscription = container
        .bus()
        .subscribe_with(
            &orders,
            options,
            move |_: Payload<u32>, delivery: Delivery| {
                let _ = sender.send(delivery.attempt());
                async { Err::<(), _>("not today") }
            },
        )
        .await
        .unwrap();
    let envelope = Envelope::new("n", &7).unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    for attempt in 1..=24 {
        assert_eq!(next(&mut received).await, attempt);
        until("the retry to be scheduled", async || {
            let status = status(&container, &orders, &group("billing")).await;
            (status.in_flight == 0).then_some(())
        })
        .await;
        clock.advance(HOUR);
    }
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 1);
    let letters = letters(&container, &orders, &group("billing")).await;
    let lasted =
        letters[0].last_failure.as_millis() - letters[0].history.first_failure.unwrap().as_millis();
    assert_eq!(lasted, 23 * 3_600_000);
    finish(container).await;
}

#[tokio::test]
async fn setting_the_clock_takes_no_message_from_a_living_handler() {
    let (container, clock) = on_a_clock().await;
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let (door, mut open) = mpsc::unbounded_channel::<()>();
    let (handler_clock, lease) = (clock.clone(), Duration::from_secs(30));
    let _subscription = container
        .bus()
        .subscribe_with(
            &orders,
            SubscribeOptions::new().with_lease(lease),
            move |_: Payload<u32>, delivery: Delivery| {
                handler_clock.advance(HOUR);
                let (sender, door) = (sender.clone(), door.clone());
                async move {
                    delivery.extend_lease().await.unwrap();
                    let _ = (sender.send(delivery.attempt()), door.send(()));
                    Outcome::Ack
                }
            },
        )
        .await
        .unwrap();
    let envelope = Envelope::new("n", &7).unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    assert_eq!(next(&mut received).await, 1);
    next(&mut open).await;
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn ages_use_the_stores_clock() {
    let (container, clock) = on_a_clock().await;
    let orders = topic("orders");
    let settings = TopicSettings::default().with_retention(Retention::Age(HOUR));
    let admin = container.topics();
    admin.create(&orders, settings).await.unwrap();
    let envelope = Envelope::new("n", &7).unwrap();
    let first = container.bus().publish(&orders, &envelope).await.unwrap();
    assert_eq!(first.id.time(), Some(clock.now()));
    clock.advance(HOUR * 2);
    container.bus().publish(&orders, &envelope).await.unwrap();
    container
        .store()
        .topics()
        .trim(&Partition::of(&orders))
        .await
        .unwrap();
    let left = admin.entries_after(&orders, None, 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].id.time(), Some(clock.now()));
    finish(container).await;
}

#[tokio::test]
async fn an_emptied_store_gets_its_groups_back() {
    let store = MemoryStore::new();
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_memory(store.clone()).connect().await.unwrap();
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    for n in 0..3 {
        let envelope = Envelope::new("n", &n).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap();
        assert_eq!(next(&mut received).await, n);
        store.clear();
    }
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    finish(container).await;
}

/// A loop that never has to wait would keep its thread from the consumers.
#[tokio::test]
async fn a_publisher_in_a_loop_lets_consumers_work_on_the_same_thread() {
    let container = Container::in_memory().await.unwrap();
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    let mut published = 0;
    while received.is_empty() {
        let envelope = Envelope::new("n", &published).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap();
        published += 1;
        assert!(published < 1_000_000, "the consumer had no turn");
    }
    some(&mut received, published as usize).await;
    finish(container).await;
}

#[tokio::test]
async fn namespaces_share_nothing_and_containers_of_one_share_all() {
    let store = MemoryStore::new();
    let connect = async |name: &str| {
        let namespace = redstart::Namespace::new(name).unwrap();
        let builder = Container::builder().with_namespace(namespace);
        builder.with_memory(store.clone()).connect().await.unwrap()
    };
    let (one, two, other) = (
        connect("shop").await,
        connect("shop").await,
        connect("bank").await,
    );
    let envelope = Envelope::new("n", &7).unwrap();
    let orders = topic("orders");
    one.bus().publish(&orders, &envelope).await.unwrap();
    one.kv()
        .port()
        .set_bytes(vec![("k", "1".into())], None)
        .await
        .unwrap();
    assert_eq!(two.topics().get(&orders).await.unwrap().unwrap().entries, 1);
    assert!(two.kv().exists("k").await.unwrap());
    assert_eq!(other.topics().get(&orders).await.unwrap(), None);
    assert!(!other.kv().exists("k").await.unwrap());
}

#[tokio::test]
async fn dead_letters_are_removed_when_the_clock_says_so() {
    let (container, clock) = on_a_clock().await;
    let (bus, orders, billing) = (container.bus(), topic("orders"), group("billing"));
    let retention = DeadLetterRetention::forever().with_max_age(24 * HOUR);
    let options = SubscribeOptions::new().with_dead_letter_retention(retention);
    let handler = |_: Payload<u32>, _: Delivery| async { Outcome::dead_letter("never") };
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    for n in 0..2_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
        let dead = u64::from(n) + 1;
        until("it to die", async || {
            let status = status(&container, &orders, &billing).await;
            (status.dead == dead).then_some(())
        })
        .await;
        clock.advance(20 * HOUR);
    }
    let kept = until("the older one to be removed", async || {
        let letters = letters(&container, &orders, &billing).await;
        (letters.len() < 2).then_some(letters)
    })
    .await;
    assert_eq!(kept[0].envelope().unwrap().payload::<u32>().unwrap(), 1);
    finish(container).await;
}

/// Two containers on one store.
async fn on_one_store() -> [Container; 2] {
    let store = MemoryStore::new();
    let container = async || {
        let builder = Container::builder().with_service(group("billing"));
        builder.with_memory(store.clone()).connect().await.unwrap()
    };
    [container().await, container().await]
}

#[tokio::test]
async fn batches_are_full_or_have_waited() {
    let [container, _] = on_one_store().await;
    batches::are_full_or_have_waited(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_settle_each_message_separately() {
    let [container, _] = on_one_store().await;
    batches::settle_each_message_by_itself(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_fail_as_a_whole() {
    let [container, _] = on_one_store().await;
    batches::fail_as_a_whole(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_panic_without_the_undecodable() {
    let [container, _] = on_one_store().await;
    batches::panic_without_the_undecodable(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_release_what_they_gathered() {
    let [container, _] = on_one_store().await;
    batches::give_back_what_was_gathered(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_run_at_once() {
    let [container, _] = on_one_store().await;
    batches::run_at_once(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_keep_their_leases() {
    let [one, other] = on_one_store().await;
    batches::keep_their_leases(&one, &other).await;
    finish(one).await;
    finish(other).await;
}

#[tokio::test]
async fn a_message_that_a_sweep_publishes_is_never_a_duplicate() {
    let container = Container::builder()
        .with_service(group("billing"))
        .with_deduplication(HOUR)
        .with_memory(MemoryStore::new())
        .connect()
        .await
        .unwrap();
    let (bus, orders, billing) = (container.bus(), topic("orders"), group("billing"));
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let came = sender.send(n);
        async move {
            came.unwrap();
            Outcome::dead_letter("never")
        }
    };
    let _subscription = bus.subscribe(&orders, handler).await.unwrap();
    bus.publish(&orders, &Envelope::new("n", &7).unwrap())
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(next(&mut received).await, 7);
        let letter = until("it to die", async || {
            letters(&container, &orders, &billing).await.pop()
        })
        .await;
        // Back to the topic that it came from, which has seen its id before.
        let sweep = Sweep::publish(orders.clone(), letter.id);
        let dead = container.dead_letters();
        let swept = dead.sweep(&orders, &billing, sweep, &|_| {}).await.unwrap();
        assert_eq!(swept.progress.taken, 1);
    }
    assert_eq!(next(&mut received).await, 7);
    finish(container).await;
}

/// A function that blocks its thread keeps its claim: another thread extends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_function_that_blocks_its_thread_keeps_its_claim() {
    let kv = MemoryStore::new().kv(None);
    let lease = Duration::from_millis(400);
    let options = OnceOptions::new(Duration::from_secs(60)).with_lease(lease);
    let blocking = tokio::spawn({
        let kv = kv.clone();
        async move {
            let function = async || {
                std::thread::sleep(lease * 4);
                tokio::time::sleep(lease / 10).await;
                std::thread::sleep(lease * 4);
                Ok::<_, std::io::Error>(1)
            };
            once_with(&kv, "charge", options, function).await
        }
    });
    for _ in 0..2 {
        tokio::time::sleep(lease * 3).await;
        let looked = once_with(&kv, "charge", options, async || Ok::<_, std::io::Error>(2)).await;
        assert_eq!(looked.unwrap(), Once::InProgress);
    }
    assert_eq!(blocking.await.unwrap().unwrap(), Once::Executed(1));
}

#[tokio::test]
async fn a_handler_that_shuts_its_container_down_does_not_wait_for_itself() {
    let container = Container::in_memory().await.unwrap();
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let inner = container.clone();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |_: Payload<u32>, _: Delivery| {
            let (container, sender) = (inner.clone(), sender.clone());
            async move {
                let report = container.shutdown(HOUR).await;
                let _ = sender.send(report);
            }
        })
        .await
        .unwrap();
    let envelope = Envelope::new("n", &7).unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    assert!(next(&mut received).await.subscriptions.is_empty());
    // The handler has finished, so its delivery is acknowledged.
    assert!(container.shutdown(HOUR).await.is_clean());
    let error = container.bus().publish(&orders, &envelope).await;
    assert_eq!(error.unwrap_err().kind(), redstart::ErrorKind::Closed);
    let group = container.topics().groups(&orders).await.unwrap().remove(0);
    assert_eq!((group.in_flight, group.lag), (0, 0), "{group:?}");
}

#[tokio::test]
async fn a_handler_that_shuts_another_container_down_waits_for_it_and_gets_its_report() {
    let container = Container::in_memory().await.unwrap();
    let other = Container::in_memory().await.unwrap();
    let orders = topic("orders");
    let envelope = Envelope::new("n", &7).unwrap();
    let (began, mut begun) = mpsc::unbounded_channel();
    let until_cancelled = move |_: Payload<u32>, delivery: Delivery| {
        let _ = began.send(());
        async move { delivery.cancelled().await }
    };
    let subscribed = other.bus().subscribe(&orders, until_cancelled).await;
    subscribed.unwrap();
    other.bus().publish(&orders, &envelope).await.unwrap();
    next(&mut begun).await;

    let (sender, mut received) = mpsc::unbounded_channel();
    let shuts_down = move |_: Payload<u32>| {
        let (other, sender) = (other.clone(), sender.clone());
        async move {
            let report = other.shutdown(Duration::from_millis(10)).await;
            let _ = sender.send(report);
        }
    };
    let subscribed = container.bus().subscribe(&orders, shuts_down).await;
    subscribed.unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    let report = next(&mut received).await;
    assert_eq!(report.subscriptions.len(), 1, "{report}");
    assert!(!report.is_clean(), "its handler still ran");
    assert!(container.shutdown(HOUR).await.is_clean());
}

/// A coordinator that panics in one of its functions.
struct Part {
    name: &'static str,
    panics: &'static str,
}

impl Coordinator for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn start<'a>(
        &'a self,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, Box<dyn std::error::Error + Send + Sync>>> {
        assert_ne!(self.panics, "start", "no table");
        Box::pin(async move {
            let handler = |_: Payload<u32>, _: Delivery| async {};
            let bus = container.bus();
            Ok(vec![bus.subscribe(&topic(self.name), handler).await?])
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { assert_ne!(self.panics, "stop", "no table") })
    }
}

fn part(name: &'static str, panics: &'static str) -> Part {
    Part { name, panics }
}

/// How many consumers the group of a topic has.
async fn consumers(store: &MemoryStore, on: &str) -> u64 {
    let builder = Container::builder().with_memory(store.clone());
    let look = builder.connect().await.unwrap();
    status(&look, &topic(on), &group("redstart"))
        .await
        .consumers as u64
}

#[tokio::test]
async fn a_coordinator_that_panics_in_stop_keeps_no_other_from_stopping() {
    let store = MemoryStore::new();
    let container = Container::builder()
        .with_memory(store.clone())
        .with_coordinator(part("first", "never"))
        .with_coordinator(part("second", "stop"))
        .connect()
        .await
        .unwrap();
    let free = topic("free");
    let _free = container
        .bus()
        .subscribe(&free, |_: Payload<u32>, _: Delivery| async {})
        .await
        .unwrap();
    let report = container.shutdown(HOUR).await;
    assert!(!report.is_clean());
    assert_eq!(report.subscriptions.len(), 3);
    let failed = report.failed_coordinators.join("; ");
    assert!(
        failed.starts_with("coordinator second: it panicked"),
        "{failed}"
    );
    for name in ["first", "second", "free"] {
        assert_eq!(consumers(&store, name).await, 0, "{name}");
    }
}

#[tokio::test]
async fn a_coordinator_that_panics_in_start_is_an_error_and_the_others_are_stopped() {
    let store = MemoryStore::new();
    let connecting = Container::builder()
        .with_memory(store.clone())
        .with_coordinator(part("first", "never"))
        .with_coordinator(part("second", "start"))
        .connect();
    let error = connecting.await.unwrap_err();
    assert_eq!(error.kind(), redstart::ErrorKind::Coordinator);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("panicked"), "{cause}");
    assert_eq!(consumers(&store, "first").await, 0);
}

/// The clock of this machine, set back by some milliseconds.
#[derive(Debug, Default)]
struct Wall(std::sync::atomic::AtomicI64);

impl redstart::memory::Clock for Wall {
    fn now(&self) -> Timestamp {
        let back = self.0.load(std::sync::atomic::Ordering::SeqCst);
        let now = redstart::memory::SystemClock.now().as_millis();
        Timestamp::from_millis(now - back).unwrap()
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_delays_no_retry() {
    let wall = std::sync::Arc::new(Wall::default());
    let store = MemoryStore::with_clock(wall.clone());
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_memory(store).connect().await.unwrap();
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new()
        .with_hold_back(Duration::ZERO)
        .with_retry(RetryPolicy::fixed(Duration::from_secs(1)).with_max_attempts(3));
    let _subscription = container
        .bus()
        .subscribe_with(
            &orders,
            options,
            move |_: Payload<u32>, delivery: Delivery| {
                let _ = sender.send(delivery.attempt());
                async { Err::<(), _>("not today") }
            },
        )
        .await
        .unwrap();
    let envelope = Envelope::new("n", &7).unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    assert_eq!(next(&mut received).await, 1);
    until("the retry to be scheduled", async || {
        let status = status(&container, &orders, &group("billing")).await;
        (status.scheduled == 1).then_some(())
    })
    .await;
    wall.0
        .store(86_400_000, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(next(&mut received).await, 2);
    finish(container).await;
}

#[tokio::test]
async fn the_other_placement_is_refused() {
    let store = MemoryStore::new();
    let builder = || Container::builder().with_memory(store.clone());
    let shop = || builder().with_namespace("shop");
    let together = |builder: redstart::container::ContainerBuilder| {
        builder.with_placement(Placement::Together).connect()
    };
    let first = together(shop()).await.unwrap();
    let placement = first.store().inspect().placement().await.unwrap();
    assert_eq!(placement, Some(Placement::Together));
    shop().connect().await.unwrap();
    let spread = shop().with_placement(Placement::Spread).connect().await;
    assert_eq!(
        spread.unwrap_err().to_string(),
        "setup: namespace \"shop\" was set up with placement together, not spread; choose another \
         namespace or leave the placement out"
    );
    // A namespace that is set up without one is spread, and one without a name is never together.
    let office = || builder().with_namespace("office");
    office().connect().await.unwrap();
    assert!(together(office()).await.is_err());
    assert!(together(builder()).await.is_err());
    store.clear();
    together(office()).await.unwrap();
}

#[tokio::test]
async fn tokens_grow_over_stores_while_the_clock_goes_on() {
    let clock = ManualClock::new(Timestamp::from_millis(1_762_957_200_000).unwrap());
    let mut last = 0;
    for n in 0..2_u32 {
        let store = MemoryStore::with_clock(clock.clone());
        let builder = Container::builder().with_service(group("billing"));
        let container = builder.with_memory(store).connect().await.unwrap();
        let (orders, (sender, mut tokens)) = (topic("orders"), mpsc::unbounded_channel());
        let envelope = Envelope::new("n", &n).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap();
        let handler = move |delivery: Delivery| {
            let _ = sender.send(delivery.fence().unwrap().token);
            async { Outcome::Ack }
        };
        let options = SubscribeOptions::new().with_ownership(Ownership::new());
        let bus = container.bus();
        let made = bus.subscribe_with(&orders, options, handler).await;
        let _subscription = made.unwrap();
        let token = next(&mut tokens).await;
        assert!(token > last, "{token} after {last}");
        last = token;
        finish(container).await;
        clock.advance(HOUR);
    }
}
