//! The clock of the store in memory.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::store::Partition;
use redstart::{
    Container, Delivery, Envelope, Outcome, RetryPolicy, SubscribeOptions,
    dead_letters::DeadLetterRetention,
    envelope::Timestamp,
    memory::{Clock as _, ManualClock, MemoryStore},
    ownership::Ownership,
    topics::{Retention, TopicSettings},
};
use tokio::sync::mpsc;

use crate::HOUR;
use crate::support::{drained, finish, group, letters, next, status, topic, until};

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
