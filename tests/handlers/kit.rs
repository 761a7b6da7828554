//! The test bus: what it records, and its assertions.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use redstart::extract::Attempt;
use redstart::testing::TestBus;
use redstart::{
    Batch, Bus, Delivery, Effects, Error, Message, Outcome, RetryPolicy, Router, State,
    SubscribeOptions, Topic, dead_letters::Reason,
};
use serde::{Deserialize, Serialize};

use crate::{Cancelled, ORDERS, Placed};

const BILLS: Topic = Topic::from_static("bills");
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Bill {
    order: u32,
}

impl Message for Bill {
    const TYPE: &'static str = "bill.made";
}

/// Bills an order at its second attempt; order 13 never.
async fn bill(
    State(bus): State<Bus>,
    order: Placed,
    Attempt(attempt): Attempt,
    delivery: Delivery,
) -> Result<Outcome, Error> {
    if order.id == 13 || attempt == 1 {
        return Ok(Outcome::retry("printer jammed"));
    }
    let bill = delivery.envelope().follow_up(&Bill { order: order.id })?;
    bus.publish(&BILLS, &bill.with_header("region", "eu"))
        .await?;
    Ok(Outcome::Ack)
}

async fn wire(bus: &Bus) {
    let retry = RetryPolicy::fixed(HOUR).with_max_attempts(3);
    let options = SubscribeOptions::new().with_retry(retry);
    let router = Router::with_state(bus.clone()).on(bill);
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
}

/// The text with which a test fails.
async fn failure(test: impl Future<Output = ()>) -> String {
    let failed = AssertUnwindSafe(test).catch_unwind().await.unwrap_err();
    failed.downcast_ref::<String>().expect("a text").clone()
}

#[tokio::test]
async fn a_message_is_followed_through_its_retries_to_its_end() {
    let test = TestBus::start("billing").await;
    wire(&test.container().bus()).await;
    test.send(&ORDERS, &Placed { id: 7 }).await;
    let jammed = Outcome::retry("printer jammed");
    let calls = test.handled(&ORDERS, "billing").assert_once();
    calls
        .with(&Placed { id: 7 })
        .attempt(1)
        .ended(jammed.clone());
    test.published(&BILLS).assert_none();
    test.run_to_end().await;
    let calls = test.handled(&ORDERS, "billing").assert_count(2);
    calls.attempt(2).ended(Outcome::Ack);
    let bills = test.published(&BILLS).assert_once();
    bills.with(&Bill { order: 7 }).with_header("region", "eu");
    test.dead_letters(&ORDERS, "billing").await.assert_none();

    test.send(&ORDERS, &Placed { id: 13 }).await;
    test.run_to_end().await;
    test.handled(&ORDERS, "billing")
        .assert_count(5)
        .ended(jammed);
    let dead = test.dead_letters(&ORDERS, "billing").await.assert_once();
    let dead = dead.with_reason(Reason::Exhausted).with_attempts(3);
    dead.with_error("jammed");
    test.handled(&ORDERS, "shipping").assert_none();
    test.stop().await;
}

#[tokio::test]
async fn a_failed_assertion_shows_what_was_there() {
    let test = TestBus::start("billing").await;
    wire(&test.container().bus()).await;
    test.send(&ORDERS, &Placed { id: 13 }).await;
    let wrong = failure(async { test.handled(&ORDERS, "billing").assert_none() }).await;
    let call = "1 calls in place of 0: handled by orders/billing:\n  \
                order.placed, attempt 1: Retry { error: \"printer jammed\", delay: None }";
    assert_eq!(wrong, call);
    let other = async { drop(test.handled(&ORDERS, "billing").with(&Placed { id: 1 })) };
    assert!(
        failure(other)
            .await
            .contains(call.split_once(": ").unwrap().1)
    );
    let other = async { drop(test.handled(&ORDERS, "billing").with(&Cancelled { id: 13 })) };
    assert!(failure(other).await.contains("order.cancelled"));
    let none = async { drop(test.published(&BILLS).with(&Bill { order: 1 })) };
    assert_eq!(
        failure(none).await,
        "no published messages: published to bills:"
    );
    test.run_to_end().await;
    let dead = test.dead_letters(&ORDERS, "billing").await;
    let wrong = async { drop(dead.with_reason(Reason::Rejected)) };
    let shown =
        "dead letters of orders/billing:\n  order.placed, attempts 3: exhausted, printer jammed";
    assert!(failure(wrong).await.contains(shown));
}

#[tokio::test]
async fn batches_and_panics_are_recorded_message_by_message() {
    let test = TestBus::start("billing").await;
    let store = |orders: Batch<Placed>| async move {
        let outcome = |order: &Placed| match order.id {
            13 => Outcome::dead_letter("unlucky"),
            _ => Outcome::Ack,
        };
        orders.messages().iter().map(outcome).collect::<Vec<_>>()
    };
    let panics = |order: Cancelled| async move { assert!(order.id > 100, "out of paper") };
    let router = Router::new().on_batch(store).on(panics);
    let retry = RetryPolicy::fixed(HOUR).with_max_attempts(1);
    let options = SubscribeOptions::new()
        .with_retry(retry)
        .with_concurrency(1)
        .with_batch(3, Duration::from_millis(10));
    let bus = test.container().bus();
    let sent = [1, 13, 3].map(|id| Placed { id });
    for sent in bus.send_all(&ORDERS, &sent).await {
        sent.unwrap();
    }
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.settle().await;
    test.send(&ORDERS, &Cancelled { id: 4 }).await;
    let calls = test.handled(&ORDERS, "billing").assert_count(4);
    let outcomes: Vec<_> = calls.clone().of::<Placed>().calls().to_vec();
    let outcomes: Vec<_> = outcomes.into_iter().map(|call| call.outcome).collect();
    let rejected = Outcome::dead_letter("unlucky");
    assert_eq!(outcomes, [Outcome::Ack, rejected, Outcome::Ack]);
    let panicked = Outcome::retry("the handler panicked: out of paper");
    calls.of::<Cancelled>().assert_once().ended(panicked);
}

#[tokio::test]
async fn a_message_that_is_snoozed_for_ever_has_no_end() {
    let test = TestBus::start("billing").await;
    let bus = test.container().bus();
    let snoozes = |_: Placed| async { Outcome::snooze(HOUR) };
    bus.subscribe(&ORDERS, snoozes).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    let endless = failure(test.run_to_end()).await;
    assert_eq!(endless, "messages are still scheduled after 1000 steps");
}

fn billing(order: u32) -> Effects {
    let mut effects = Effects::new();
    effects.send(&BILLS, &Bill { order });
    effects
}

#[tokio::test]
async fn effects_publish_their_messages_and_acknowledge_the_handled_one() {
    let test = TestBus::start("billing").await;
    let bill = async |order: Placed, delivery: Delivery| -> Result<Effects, Error> {
        delivery.checkpoint(billing(order.id)).await?;
        Ok(billing(order.id + 1))
    };
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, bill).await.unwrap();
    test.send(&ORDERS, &Placed { id: 7 }).await;
    let ids = |test: &TestBus| -> Vec<u32> {
        let bills = test.published(&BILLS).payloads::<Bill>();
        bills.iter().map(|bill| bill.order).collect()
    };
    assert_eq!(ids(&test), [7, 8]);
    let acknowledged = test.acknowledged::<Placed>(&ORDERS, "billing");
    assert_eq!(acknowledged, [Placed { id: 7 }]);

    test.container().commit(billing(9)).await.unwrap();
    assert_eq!(ids(&test), [7, 8, 9]);
}
