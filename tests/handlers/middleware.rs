//! Middleware around handlers of single messages.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redstart::handler::RouteOptions;
use redstart::middleware::{Middleware, Next};
use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{Delivery, Envelope, Message, Outcome, RetryPolicy, Router, SubscribeOptions};

use crate::{BILLING, Cancelled, ORDERS, Placed, Seen, letters};

async fn placed(_: Placed) {}

async fn cancelled(_: Cancelled) {}

/// Middleware that notes when it begins and how the delivery ends.
fn noting(seen: &Seen, name: &'static str) -> impl Middleware {
    struct Noting(Seen, &'static str);

    impl Middleware for Noting {
        async fn handle(&self, delivery: Delivery, next: Next) -> Outcome {
            let Self(seen, name) = self;
            let message_type = delivery.envelope().message_type().to_owned();
            seen.note(format!("{name} {message_type}"));
            let outcome = next.run(delivery).await;
            seen.note(format!("{name}: {outcome:?}"));
            outcome
        }
    }

    Noting(seen.clone(), name)
}

fn delivery() -> Delivery {
    DeliveryBuilder::new(&Placed { id: 1 }).unwrap().build()
}

fn at_most(attempts: u32) -> SubscribeOptions {
    let retry = RetryPolicy::fixed(Duration::from_secs(60)).with_max_attempts(attempts);
    SubscribeOptions::new().with_retry(retry)
}

#[tokio::test]
async fn middleware_runs_in_the_order_of_adding_wherever_it_stands() {
    let seen = Seen::default();
    let closure = {
        let seen = seen.clone();
        move |delivery: Delivery, next: Next| {
            seen.note("second");
            next.run(delivery)
        }
    };
    let router = Router::new()
        .with_middleware(noting(&seen, "first"))
        .on(placed)
        .with_middleware(closure)
        .on(cancelled)
        .with_middleware(Arc::new(noting(&seen, "third")));
    assert_eq!(call(router, delivery()).await, Outcome::Ack);
    assert_eq!(
        seen.in_order(),
        [
            "first order.placed",
            "second",
            "third order.placed",
            "third: Ack",
            "first: Ack"
        ]
    );
}

#[tokio::test]
async fn middleware_of_a_merged_router_runs_inside_and_around_its_own_routes_only() {
    let seen = Seen::default();
    let inner = Router::new()
        .on(cancelled)
        .with_middleware(noting(&seen, "inner"));
    let middle = Router::new()
        .with_middleware(noting(&seen, "middle"))
        .merge(inner);
    let router = || {
        Router::new()
            .on(placed)
            .with_middleware(noting(&seen, "outer"))
    };
    assert_eq!(call(router().merge(middle), delivery()).await, Outcome::Ack);
    assert_eq!(seen.in_order(), ["outer order.placed", "outer: Ack"]);

    let seen = Seen::default();
    let inner = Router::new()
        .on(cancelled)
        .with_middleware(noting(&seen, "inner"));
    let middle = Router::new()
        .merge(inner)
        .with_middleware(noting(&seen, "middle"));
    let outer = Router::new()
        .with_middleware(noting(&seen, "outer"))
        .merge(middle);
    let other = DeliveryBuilder::new(&Cancelled { id: 1 }).unwrap().build();
    assert_eq!(call(outer, other).await, Outcome::Ack);
    assert_eq!(
        seen.in_order(),
        [
            "outer order.cancelled",
            "middle order.cancelled",
            "inner order.cancelled",
            "inner: Ack",
            "middle: Ack",
            "outer: Ack"
        ]
    );
}

#[tokio::test]
async fn middleware_sees_where_a_delivery_comes_from_and_its_attempt() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let noting = {
        let seen = seen.clone();
        async move |delivery: Delivery, next: Next| -> Outcome {
            let (topic, group) = (delivery.topic(), delivery.group());
            let (attempt, tenant) = (delivery.attempt(), delivery.envelope().tenant());
            seen.note(format!("{topic}/{group} {attempt} {tenant:?}"));
            next.run(delivery).await
        }
    };
    let noting = {
        let noting = Arc::new(noting);
        move |delivery: Delivery, next: Next| {
            let noting = Arc::clone(&noting);
            async move { noting(delivery, next).await }
        }
    };
    let fails = |_: Placed| async { Err::<(), _>("jammed") };
    let router = Router::new().on(fails).with_middleware(noting);
    let bus = test.container().bus();
    bus.subscribe_with(&ORDERS, at_most(2), router)
        .await
        .unwrap();
    let envelope = Envelope::new(Placed::TYPE, &Placed { id: 1 }).unwrap();
    test.publish(&ORDERS, &envelope.with_tenant("acme")).await;
    test.run_to_end().await;
    assert_eq!(
        seen.in_order(),
        [
            "orders/billing 1 Some(\"acme\")",
            "orders/billing 2 Some(\"acme\")"
        ]
    );
}

#[tokio::test]
async fn middleware_sees_every_outcome_and_each_keeps_its_reason() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let soon = RouteOptions::new().with_timeout(Duration::from_millis(20));
    let hangs = |_: Cancelled| std::future::pending::<()>();
    let panics = |order: Placed| async move { panic!("order {}", order.id) };
    let panics = move |order: Placed| async move {
        let () = panics(order).await;
    };
    let router = Router::new()
        .on(panics)
        .on_with(soon, hangs)
        .with_middleware(noting(&seen, "sees"));
    let options = at_most(1).with_concurrency(1);
    let bus = test.container().bus();
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.send(&ORDERS, &Placed { id: 7 }).await;
    test.send(&ORDERS, &Cancelled { id: 1 }).await;
    let wrong = Envelope::new(Placed::TYPE, "seven").unwrap();
    test.publish(&ORDERS, &wrong).await;
    let unknown = Envelope::new("order.viewed", &1).unwrap();
    test.publish(&ORDERS, &unknown).await;
    let lines = seen.in_order().join("\n");
    for outcome in [
        "Retry { error: \"the handler panicked: order 7\", delay: None }",
        "Retry { error: \"timed out after 20ms\", delay: None }",
        "DeadLetter { reason: Undecodable,",
        "DeadLetter { reason: Unhandled, error: \"no handler for type \\\"order.viewed\\\"",
    ] {
        assert!(lines.contains(outcome), "{outcome} in {lines}");
    }
    let mut reasons: Vec<_> = letters(&test).await.into_iter().map(|one| one.0).collect();
    reasons.sort();
    assert_eq!(
        reasons,
        ["exhausted", "exhausted", "undecodable", "unhandled"]
    );
}

#[tokio::test]
async fn middleware_may_end_a_delivery_by_itself_and_change_an_outcome() {
    let seen = Seen::default();
    let handler = {
        let seen = seen.clone();
        move |order: Placed| {
            seen.note(format!("handled {}", order.id));
            async { Err::<(), _>("jammed") }
        }
    };
    let forgiving = |delivery: Delivery, next: Next| async move {
        match delivery.envelope().tenant() {
            Some(tenant) => Outcome::dead_letter(format!("unknown tenant {tenant}")),
            None => match next.run(delivery).await {
                Outcome::Retry { error, .. } if error == "jammed" => {
                    Outcome::snooze(Duration::from_secs(5))
                }
                outcome => outcome,
            },
        }
    };
    let router = || Router::new().on(handler.clone()).with_middleware(forgiving);
    let envelope = Envelope::new(Placed::TYPE, &Placed { id: 1 }).unwrap();
    let refused = DeliveryBuilder::from_envelope(envelope.with_tenant("eve")).build();
    let outcome = call(router(), refused).await;
    assert_eq!(outcome, Outcome::dead_letter("unknown tenant eve"));
    assert!(seen.lines().is_empty(), "the handler did not run");
    let outcome = call(router(), delivery()).await;
    assert_eq!(outcome, Outcome::snooze(Duration::from_secs(5)));
    assert_eq!(seen.lines(), ["handled 1"]);
}

#[tokio::test]
async fn error_rules_see_the_error_of_a_handler_and_of_middleware() {
    let fails = |_: Placed| async { Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)) };
    let passes = |delivery: Delivery, next: Next| next.run(delivery);
    let rule = |error: &io::Error| Some(Outcome::dead_letter(format!("{:?}", error.kind())));
    let inner = Router::new()
        .on(fails)
        .on_cause(rule)
        .with_middleware(passes);
    let router = Router::new().with_middleware(passes).merge(inner);
    let outcome = call(router, delivery()).await;
    assert_eq!(outcome, Outcome::dead_letter("NotFound"));

    let asks = |_: Delivery, _: Next| async {
        Err::<Outcome, _>(io::Error::from(io::ErrorKind::TimedOut))
    };
    let router = || Router::new().on(placed).with_middleware(asks);
    let outcome = call(router().on_cause(rule), delivery()).await;
    assert_eq!(outcome, Outcome::dead_letter("TimedOut"));
    let outcome = call(router(), delivery()).await;
    assert_eq!(outcome, Outcome::retry("timed out"));
}

#[tokio::test]
async fn a_panic_of_middleware_is_a_failed_attempt_that_outer_middleware_sees() {
    let seen = Seen::default();
    let panics = |delivery: Delivery, _: Next| async move {
        assert!(delivery.attempt() > 1, "too early");
        Outcome::Ack
    };
    let router = Router::new()
        .on(placed)
        .with_middleware(noting(&seen, "outer"))
        .with_middleware(panics);
    let outcome = call(router, delivery()).await;
    assert_eq!(outcome, Outcome::retry("middleware panicked: too early"));
    let ended = "outer: Retry { error: \"middleware panicked: too early\", delay: None }";
    assert_eq!(seen.in_order(), ["outer order.placed", ended]);
}

/// Middleware that turns messages of the type `sealed` into the message that they hold.
async fn unseal(delivery: Delivery, next: Next) -> Outcome {
    let envelope = delivery.envelope();
    if envelope.message_type() != "sealed" {
        return Outcome::dead_letter("not sealed");
    }
    let Ok(text) = envelope.payload::<String>() else {
        return Outcome::dead_letter("not a text");
    };
    let order = Placed {
        id: u32::try_from(text.len()).unwrap_or(0),
    };
    match envelope.follow_up(&order) {
        Ok(opened) => next.run(delivery.with_envelope(opened)).await,
        Err(error) => Outcome::retry(error),
    }
}

#[tokio::test]
async fn another_envelope_reaches_the_handler_and_the_store_keeps_the_original() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let handler = {
        let seen = seen.clone();
        move |order: Placed, delivery: Delivery| {
            seen.note(format!("{} at attempt {}", order.id, delivery.attempt()));
            async { Err::<(), _>("jammed") }
        }
    };
    let router = Router::new().on(handler).with_middleware(unseal);
    let bus = test.container().bus();
    bus.subscribe_with(&ORDERS, at_most(2), router)
        .await
        .unwrap();
    let sealed = Envelope::new("sealed", "seven..").unwrap();
    test.publish(&ORDERS, &sealed.clone()).await;
    test.run_to_end().await;
    // The second attempt also began with a sealed message.
    assert_eq!(seen.in_order(), ["7 at attempt 1", "7 at attempt 2"]);
    let dead = test.dead_letters(&ORDERS, &BILLING).await;
    let dead = dead.assert_once();
    let letter = &dead.letters()[0];
    assert_eq!(letter.error, "jammed");
    let stored = letter.envelope().unwrap();
    assert_eq!(stored.message_type(), "sealed");
    assert_eq!(stored.id(), sealed.id());
    assert_eq!(stored.payload::<String>().unwrap(), "seven..");
}
