//! Batch handlers beside handlers of single messages.

use std::time::Duration;

use redstart::testing::TestBus;
use redstart::{Batch, Envelope, Message, Outcome, RetryPolicy, Router, State, SubscribeOptions};

use crate::{Cancelled, ORDERS, PATIENCE, Placed, Seen, letters};

async fn store(State(seen): State<Seen>, orders: Batch<Placed>) -> Vec<Outcome> {
    let ids: Vec<u32> = orders.messages().iter().map(|order| order.id).collect();
    seen.note(format!("batch {ids:?}"));
    let outcome = |order: &Placed| match order.id {
        13 => Outcome::dead_letter("unlucky"),
        _ => Outcome::Ack,
    };
    orders.messages().iter().map(outcome).collect()
}

async fn cancelled(State(seen): State<Seen>, order: Cancelled) {
    assert_ne!(order.id, 66, "a panic of a single handler");
    seen.note(format!("cancelled {}", order.id));
}

fn placed(id: u32) -> Envelope {
    Envelope::new(Placed::TYPE, &Placed { id }).unwrap()
}

fn cancellation(id: u32) -> Envelope {
    Envelope::new(Cancelled::TYPE, &Cancelled { id }).unwrap()
}

#[tokio::test]
async fn one_gathered_batch_is_split_by_type_and_each_message_ends_by_itself() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let bus = test.container().bus();
    let wrong = Envelope::new(Placed::TYPE, "seven").unwrap();
    let unknown = Envelope::new("order.refunded", &1).unwrap();
    let sent = [
        placed(1),
        cancellation(2),
        placed(13),
        wrong,
        cancellation(66),
        unknown,
        placed(7),
        cancellation(8),
    ];
    for published in bus.publish_all(&ORDERS, &sent).await {
        published.unwrap();
    }
    let router = Router::with_state(seen.clone())
        .on_batch(store)
        .on(cancelled);
    let retry = RetryPolicy::fixed(Duration::from_secs(3600)).with_max_attempts(1);
    let options = SubscribeOptions::new()
        .with_batch(sent.len(), PATIENCE)
        .with_concurrency(1)
        .with_retry(retry);
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.settle().await;
    assert_eq!(
        seen.lines(),
        ["batch [1, 13, 7]", "cancelled 2", "cancelled 8"]
    );
    let mut found: Vec<_> = letters(&test)
        .await
        .into_iter()
        .map(|(reason, _, handler, _)| (reason, handler))
        .collect();
    found.sort();
    let expected = [
        ("exhausted", "handlers::batches::cancelled"),
        ("rejected", "handlers::batches::store"),
        ("undecodable", "handlers::batches::store"),
        ("unhandled", "orders/billing"),
    ];
    assert_eq!(
        found,
        expected.map(|(reason, name)| (reason.to_owned(), name.to_owned()))
    );
}

#[tokio::test]
async fn a_batch_that_panics_fails_its_own_messages_only() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let bus = test.container().bus();
    let sent = [placed(1), cancellation(2)];
    for published in bus.publish_all(&ORDERS, &sent).await {
        published.unwrap();
    }
    async fn panics(orders: Batch<Placed>) {
        assert!(orders.is_empty(), "out of paper");
    }
    let single = Router::with_state(seen.clone()).on(cancelled);
    let router = Router::new().on_batch(panics).merge(single);
    let retry = RetryPolicy::fixed(Duration::from_secs(3600)).with_max_attempts(1);
    let options = SubscribeOptions::new()
        .with_batch(2, PATIENCE)
        .with_concurrency(1)
        .with_retry(retry);
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.settle().await;
    assert_eq!(seen.lines(), ["cancelled 2"]);
    let (reason, _, _, error) = letters(&test).await.remove(0);
    assert_eq!(
        (&*reason, &*error),
        ("exhausted", "the handler panicked: out of paper")
    );
}
