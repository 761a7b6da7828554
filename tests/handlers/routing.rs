//! Which handler gets which message.

use redstart::extract::Payload;
use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{
    Bus, Delivery, Envelope, ErrorKind, Handler, Message, Outcome, Router, State, SubscribeOptions,
    Topic, dead_letters::Reason,
};
use std::sync::Arc;

use crate::{Cancelled, ORDERS, Placed, Seen, letters};

async fn placed(State(seen): State<Seen>, order: Placed) {
    seen.note(format!("placed {}", order.id));
}

async fn cancelled(State(seen): State<Seen>, order: Cancelled) {
    seen.note(format!("cancelled {}", order.id));
}

fn refunded() -> Envelope {
    Envelope::new("order.refunded", &Placed { id: 3 }).unwrap()
}

#[tokio::test]
async fn each_type_goes_to_its_handler_and_an_unknown_one_to_the_dead_letters() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let router = Router::with_state(seen.clone()).on(placed).on(cancelled);
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, router).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    test.send(&ORDERS, &Cancelled { id: 2 }).await;
    test.publish(&ORDERS, &refunded()).await;
    assert_eq!(seen.lines(), ["cancelled 2", "placed 1"]);
    let unhandled = "no handler for type \"order.refunded\"; \
                     handled here: order.cancelled, order.placed";
    let expected = ("unhandled", 1, "orders/billing", unhandled);
    let found = letters(&test).await;
    let (reason, attempts, handler, error) = &found[0];
    assert_eq!((&**reason, *attempts, &**handler, &**error), expected);
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn a_function_takes_its_own_type_only_and_a_payload_takes_every_type() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let noted = seen.clone();
    let handler = move |order: Placed| {
        noted.note(format!("placed {}", order.id));
        async {}
    };
    let bus = test.container().bus();
    let subscription = bus.subscribe(&ORDERS, handler).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    test.publish(&ORDERS, &refunded()).await;
    assert_eq!(letters(&test).await[0].0, "unhandled");
    assert!(subscription.unsubscribe(crate::PATIENCE).await.is_clean());

    let noted = seen.clone();
    let handler = move |Payload(order): Payload<Placed>, delivery: Delivery| {
        let message_type = delivery.envelope().message_type();
        noted.note(format!("{message_type} {}", order.id));
        async {}
    };
    bus.subscribe(&ORDERS, handler).await.unwrap();
    test.publish(&ORDERS, &refunded()).await;
    assert_eq!(seen.lines(), ["order.refunded 3", "placed 1"]);
}

#[tokio::test]
async fn the_other_types_can_have_a_handler_or_a_fixed_outcome() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let others = |State(seen): State<Seen>, envelope: Envelope| async move {
        seen.note(format!("other {}", envelope.message_type()));
    };
    let router = Router::with_state(seen.clone())
        .on(placed)
        .otherwise(others);
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, router).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    test.publish(&ORDERS, &refunded()).await;
    assert_eq!(seen.lines(), ["other order.refunded", "placed 1"]);

    let delivery = || DeliveryBuilder::from_envelope(refunded()).build();
    let acks = Router::with_state(Seen::default()).on(placed);
    assert_eq!(
        call(acks.otherwise(Outcome::Ack), delivery()).await,
        Outcome::Ack
    );
    let refuses = Router::with_state(Seen::default()).on(placed);
    let Outcome::DeadLetter { reason, .. } = call(refuses, delivery()).await else {
        panic!("not a dead letter");
    };
    assert_eq!(reason, Reason::Unhandled);
}

#[tokio::test]
async fn a_type_that_this_version_does_not_know_can_wait_for_another_version() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let bus = test.container().bus();
    let router = || Router::with_state(seen.clone()).on(placed);
    let options = SubscribeOptions::new().with_undecodable_retry(true);
    let subscription = bus.subscribe_with(&ORDERS, options, router()).await;
    test.send(&ORDERS, &Cancelled { id: 2 }).await;
    assert!(letters(&test).await.is_empty(), "it is tried again");
    let report = subscription.unwrap().unsubscribe(crate::PATIENCE).await;
    assert!(report.is_clean());
    let newer = router().on(cancelled);
    bus.subscribe(&ORDERS, newer).await.unwrap();
    test.advance(std::time::Duration::from_secs(3600)).await;
    assert_eq!(seen.lines(), ["cancelled 2"]);
}

async fn refused<S: Send + Sync + 'static>(bus: &Bus, router: Router<S>) -> String {
    let error = bus.subscribe(&ORDERS, router).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.to_string()
}

#[tokio::test]
async fn a_mistake_in_a_router_fails_the_subscription_and_names_itself() {
    let test = TestBus::start("billing").await;
    let bus = test.container().bus();
    let router = || Router::with_state(Seen::default()).on(placed);
    let found = refused(&bus, router().on(cancelled).on(placed)).await;
    let rule = "the router has two handlers for type \"order.placed\"";
    assert!(found.ends_with(rule), "{found}");
    assert!(found.contains("\"orders\""), "{found}");
    let found = refused(&bus, router().merge(router())).await;
    assert!(found.ends_with(rule), "{found}");
    let others = || Router::new().otherwise(Outcome::Ack);
    let found = refused(&bus, others().otherwise(Outcome::Ack)).await;
    assert!(
        found.ends_with("two handlers for all other types"),
        "{found}"
    );
    let found = refused(&bus, router().merge(others().merge(others()))).await;
    assert!(
        found.ends_with("two handlers for all other types"),
        "{found}"
    );
    let found = refused(&bus, Router::new()).await;
    assert!(found.ends_with("the router has no handlers"), "{found}");
    // The name is free: nothing has been subscribed.
    bus.subscribe(&ORDERS, router()).await.unwrap();
}

#[tokio::test]
async fn a_merged_router_keeps_its_state_and_its_rules() {
    let (test, ours, theirs) = (
        TestBus::start("billing").await,
        Seen::default(),
        Seen::default(),
    );
    async fn failing(_: Cancelled) -> Result<(), &'static str> {
        Err("no")
    }
    let rejects = |text: &&'static str| Some(Outcome::dead_letter(*text));
    let merged = Router::with_state(theirs.clone()).on(placed);
    let router = Router::with_state(ours.clone())
        .on(failing)
        .on_error(rejects)
        .merge(merged.on_error(|_: &&'static str| Some(Outcome::Ack)));
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, router).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    test.send(&ORDERS, &Cancelled { id: 2 }).await;
    assert!(ours.lines().is_empty());
    assert_eq!(theirs.lines(), ["placed 1"]);
    assert_eq!(letters(&test).await[0].0, "rejected");

    let failing_inside = Router::new().on(failing).on_error(rejects);
    let outer = Router::new()
        .merge(failing_inside)
        .on_error(|_: &&'static str| Some(Outcome::Ack));
    let delivery = DeliveryBuilder::new(&Cancelled { id: 3 }).unwrap().build();
    assert_eq!(call(outer, delivery).await, Outcome::dead_letter("no"));
}

struct Billing {
    seen: Seen,
}

impl Handler for Billing {
    type Message = Placed;
    type Output = ();

    async fn handle(&self, order: Placed, delivery: Delivery) {
        self.seen.note(format!("{} {}", delivery.topic(), order.id));
    }
}

#[tokio::test]
async fn one_handler_with_state_serves_two_topics_alone_and_in_a_router() {
    const RETURNS: Topic = Topic::from_static("returns");
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let billing = Arc::new(Billing { seen: seen.clone() });
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, Arc::clone(&billing)).await.unwrap();
    let router = Router::new().on(billing).otherwise(Outcome::Ack);
    bus.subscribe(&RETURNS, router).await.unwrap();
    bus.send(&ORDERS, &Placed { id: 1 }).await.unwrap();
    bus.send(&RETURNS, &Placed { id: 2 }).await.unwrap();
    test.settle().await;
    assert_eq!(seen.lines(), ["orders 1", "returns 2"]);
    let other = Envelope::new(Cancelled::TYPE, &1).unwrap();
    let delivery = DeliveryBuilder::from_envelope(other).build();
    let outcome = call(Billing { seen }, delivery).await;
    assert!(matches!(
        outcome,
        Outcome::DeadLetter {
            reason: Reason::Unhandled,
            ..
        }
    ));
}
