//! The rules of batch subscriptions, on a container of either adapter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Batch, Container, Delivery, Envelope, Message, Outcome, RetryPolicy, Router, SubscribeOptions,
    dead_letters::Reason,
};
use serde::Deserialize;
use tokio::sync::{Barrier, mpsc};

use super::{
    PATIENCE, drained, group, letters, next, publish, some, status, steadily, topic, until,
};

/// Longer than any test: a batch is handled when it is full, and not before.
const NEVER: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::ZERO;

/// A message of the type that the tests publish.
#[derive(Deserialize)]
struct Number(u32);

impl Message for Number {
    const TYPE: &'static str = "n";
}

fn options(messages: usize, wait: Duration) -> SubscribeOptions {
    SubscribeOptions::new()
        .with_batch(messages, wait)
        .with_concurrency(1)
        .with_retry(RetryPolicy::fixed(Duration::from_millis(1)).with_max_attempts(2))
}

/// Every batch's numbers, and its attempts.
type Seen = (Vec<u32>, Vec<u32>);

fn seen(batch: &Batch<Number>) -> Seen {
    batch
        .iter()
        .map(|(number, delivery)| (number.0, delivery.attempt()))
        .unzip()
}

/// Full batches come in order; an incomplete batch waits for more messages up to its time limit.
pub(crate) async fn are_full_or_have_waited(container: &Container) {
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel();
    publish(container, &orders, 0..6).await;
    let handler = {
        let sender = sender.clone();
        move |batch: Batch<Number>| {
            let _ = sender.send(seen(&batch));
            std::future::ready(())
        }
    };
    let full = bus.subscribe_with(&orders, options(4, NEVER), Router::new().on_batch(handler));
    let full = full.await.unwrap();
    assert_eq!(next(&mut received).await, (vec![0, 1, 2, 3], vec![1; 4]));
    publish(container, &orders, 6..8).await;
    assert_eq!(next(&mut received).await, (vec![4, 5, 6, 7], vec![1; 4]));
    assert!(full.unsubscribe(PATIENCE).await.is_clean());

    let handler = move |batch: Batch<Number>| {
        let _ = sender.send(seen(&batch));
        std::future::ready(())
    };
    let hasty = bus.subscribe_with(
        &orders,
        options(1000, AT_ONCE),
        Router::new().on_batch(handler),
    );
    let _hasty = hasty.await.unwrap();
    publish(container, &orders, 8..9).await;
    assert_eq!(next(&mut received).await, (vec![8], vec![1]));
    drained(container, &orders, &group("billing")).await;
}

/// Each message gets its own outcome; an undecodable payload does not stop the others.
pub(crate) async fn settle_each_message_by_itself(container: &Container) {
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel();
    publish(container, &orders, 0..3).await;
    let text = Envelope::new("n", "no number").unwrap();
    container.bus().publish(&orders, &text).await.unwrap();
    let handler = move |batch: Batch<Number>| {
        let outcome =
            |(number, delivery): (&Number, &Delivery)| match (number.0, delivery.attempt()) {
                (1, 1) => Outcome::retry("once"),
                (2, _) => Outcome::dead_letter("never"),
                _ => Outcome::Ack,
            };
        let _ = sender.send(seen(&batch));
        std::future::ready(batch.iter().map(outcome).collect::<Vec<_>>())
    };
    // Four messages fill the batch; the undecodable one counts.
    let options = options(4, Duration::from_millis(50));
    let subscription = bus.subscribe_with(&orders, options, Router::new().on_batch(handler));
    let _subscription = subscription.await.unwrap();
    let mut all = Vec::new();
    while all.len() < 4 {
        let (numbers, attempts) = next(&mut received).await;
        all.extend(numbers.into_iter().zip(attempts));
    }
    all.sort();
    assert_eq!(all, [(0, 1), (1, 1), (1, 2), (2, 1)]);
    let left = drained(container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 2);
    let mut reasons: Vec<Reason> = letters(container, &orders, &group("billing"))
        .await
        .iter()
        .map(|letter| letter.reason)
        .collect();
    reasons.sort_by_key(|reason| reason.to_string());
    assert_eq!(reasons, [Reason::Rejected, Reason::Undecodable]);
}

/// How the first call ends with every message's failure.
#[derive(Clone, Copy, Debug)]
enum Failing {
    Panic,
    Error,
    WrongNumber,
}

/// An error, a panic and a wrong number of outcomes are every message's failure.
pub(crate) async fn fail_as_a_whole(container: &Container) {
    for (failing, text) in [
        (Failing::Panic, "the handler panicked: out of paper"),
        (Failing::Error, "the sink is away"),
        (Failing::WrongNumber, "1 outcomes for 2 messages"),
    ] {
        let orders = topic(&format!("{failing:?}"));
        let (sender, mut received) = mpsc::unbounded_channel();
        publish(container, &orders, 0..2).await;
        let handler = move |batch: Batch<Number>| {
            let sender = sender.clone();
            async move {
                let first = batch.iter().all(|(_, delivery)| delivery.attempt() == 1);
                match failing {
                    Failing::Panic if first => panic!("out of paper"),
                    Failing::Error if first => Err("the sink is away"),
                    Failing::WrongNumber if first => Ok(vec![Outcome::Ack]),
                    _ => {
                        for (number, delivery) in &batch {
                            let last = delivery.envelope().last_error().map(str::to_owned);
                            let _ = sender.send((number.0, last));
                        }
                        Ok(vec![Outcome::Ack; batch.len()])
                    }
                }
            }
        };
        // Only both together fill a batch.
        let subscription = container
            .bus()
            .subscribe_with(&orders, options(2, NEVER), Router::new().on_batch(handler))
            .await
            .unwrap();
        let expected = [0, 1].map(|number| (number, Some(text.to_owned())));
        assert_eq!(some(&mut received, 2).await, expected);
        let left = drained(container, &orders, &group("billing")).await;
        assert_eq!(left.dead, 0);
        assert!(subscription.unsubscribe(PATIENCE).await.is_clean());
    }
}

/// An undecodable message becomes a dead letter at once, also when the call for the others panics.
pub(crate) async fn panic_without_the_undecodable(container: &Container) {
    let orders = topic("odd");
    publish(container, &orders, 0..1).await;
    let odd = Envelope::new("n", "no number").unwrap();
    container.bus().publish(&orders, &odd).await.unwrap();
    let handler = move |batch: Batch<Number>| async move {
        let failing = batch
            .iter()
            .any(|(number, one)| number.0 == 0 && one.attempt() == 1);
        assert!(!failing, "out of paper");
    };
    let subscription = container
        .bus()
        .subscribe_with(&orders, options(2, NEVER), Router::new().on_batch(handler))
        .await
        .unwrap();
    let letter = until("it to die", async || {
        letters(container, &orders, &group("billing")).await.pop()
    })
    .await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Undecodable, 1));
    // The other one waits until these fill its batch.
    publish(container, &orders, 1..2).await;
    let left = drained(container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 1);
    assert!(subscription.unsubscribe(PATIENCE).await.is_clean());
}

/// Gathered messages are released uncounted when the subscription ends.
pub(crate) async fn give_back_what_was_gathered(container: &Container) {
    let (bus, orders) = (container.bus(), topic("orders"));
    publish(container, &orders, 0..3).await;
    let called = Arc::new(AtomicBool::new(false));
    let handler = {
        let called = Arc::clone(&called);
        move |_: Batch<Number>| {
            called.store(true, Ordering::SeqCst);
            std::future::ready(())
        }
    };
    let subscription =
        bus.subscribe_with(&orders, options(10, NEVER), Router::new().on_batch(handler));
    let subscription = subscription.await.unwrap();
    until("all to be gathered", async || {
        let status = status(container, &orders, &group("billing")).await;
        (status.in_flight == 3).then_some(())
    })
    .await;
    let report = subscription.unsubscribe(PATIENCE).await;
    assert!(report.is_clean() && report.released == 3, "{report:?}");
    assert!(!called.load(Ordering::SeqCst));

    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(number): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((number, delivery.attempt()));
        std::future::ready(())
    };
    let _subscription = bus.subscribe(&orders, handler).await.unwrap();
    assert_eq!(some(&mut received, 3).await, [(0, 1), (1, 1), (2, 1)]);
    drained(container, &orders, &group("billing")).await;
}

/// The concurrency bounds the batches that run at once.
pub(crate) async fn run_at_once(container: &Container) {
    let (bus, orders) = (container.bus(), topic("orders"));
    publish(container, &orders, 0..8).await;
    let both = Arc::new(Barrier::new(2));
    let handler = move |batch: Batch<Number>| {
        let both = Arc::clone(&both);
        async move {
            assert_eq!(batch.len(), 2);
            both.wait().await;
        }
    };
    let options = options(2, NEVER).with_concurrency(2);
    let subscription = bus.subscribe_with(&orders, options, Router::new().on_batch(handler));
    let _subscription = subscription.await.unwrap();
    let left = drained(container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 0);
}

/// Neither gathering nor handling lets the leases end: `other` shares the group and gets nothing.
pub(crate) async fn keep_their_leases(container: &Container, other: &Container) {
    let (bus, orders) = (container.bus(), topic("orders"));
    let lease = Duration::from_secs(1);
    let once = async || {
        publish(container, &orders, 0..2).await;
        let (sender, mut received) = mpsc::unbounded_channel();
        let handler = move |batch: Batch<Number>| {
            let sender = sender.clone();
            async move {
                tokio::time::sleep(2 * lease).await;
                let is_lost = batch.iter().any(|(_, one)| one.is_cancelled());
                let _ = sender.send((seen(&batch), is_lost));
            }
        };
        let options = options(10, 2 * lease).with_lease(lease);
        let subscription =
            bus.subscribe_with(&orders, options.clone(), Router::new().on_batch(handler));
        let subscription = subscription.await.unwrap();
        until("both to be held", async || {
            let status = status(container, &orders, &group("billing")).await;
            (status.in_flight == 2).then_some(())
        })
        .await;
        let (stolen, mut theirs) = mpsc::unbounded_channel();
        let thief = move |Payload(number): Payload<u32>, _: Delivery| {
            let _ = stolen.send(number);
            std::future::ready(())
        };
        let thief = other.bus().subscribe_with(&orders, options, thief).await;
        let first = next(&mut received).await;
        drained(container, &orders, &group("billing")).await;
        subscription.unsubscribe(PATIENCE).await;
        thief.unwrap().unsubscribe(PATIENCE).await;
        match (&first, theirs.try_recv()) {
            (((numbers, attempts), false), Err(_)) if *numbers == [0, 1] && *attempts == [1; 2] => {
                Ok(())
            }
            (first, stolen) => Err(format!("{first:?}, the other got {stolen:?}")),
        }
    };
    steadily(container, lease, "a batch that keeps its leases", once).await;
}
