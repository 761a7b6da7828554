//! Time limits and retry policies, of subscriptions and of routes.

use std::future::pending;
use std::time::Duration;

use redstart::extract::Attempt;
use redstart::handler::RouteOptions;
use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{
    Batch, Delivery, ErrorKind, Handler, Outcome, RetryPolicy, Router, SubscribeOptions,
};

use crate::{Cancelled, ORDERS, PATIENCE, Placed, Seen, letters};

const SOON: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);

async fn hangs(_: Placed) {
    pending().await
}

async fn cancelled(_: Cancelled) {}

/// One attempt, and one handler at a time.
fn options() -> SubscribeOptions {
    let retry = RetryPolicy::fixed(HOUR).with_max_attempts(1);
    SubscribeOptions::new()
        .with_retry(retry)
        .with_concurrency(1)
}

#[tokio::test]
async fn an_attempt_that_hangs_fails_at_its_limit_and_frees_its_slot() {
    let test = TestBus::start("billing").await;
    let bus = test.container().bus();
    let router = Router::new().on(hangs).on(cancelled);
    let options = options().with_handler_timeout(SOON);
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    // The only slot is free.
    test.send(&ORDERS, &Cancelled { id: 2 }).await;
    let (reason, attempts, handler, error) = letters(&test).await.remove(0);
    assert_eq!((&*reason, attempts), ("exhausted", 1));
    assert_eq!(error, "timed out after 20ms");
    assert_eq!(handler, "handlers::timeouts::hangs");
    let report = test.container().shutdown(PATIENCE).await;
    assert!(report.is_clean(), "{report:?}");
}

struct Hanging;

impl Handler for Hanging {
    type Message = Placed;
    type Output = ();

    async fn handle(&self, _: Placed, _: Delivery) {
        pending().await
    }
}

#[tokio::test]
async fn every_kind_of_handler_has_a_limit() {
    let delivery = || DeliveryBuilder::new(&Placed { id: 1 }).unwrap().build();
    let options = || RouteOptions::new().with_timeout(SOON);
    let timed_out = Outcome::retry("timed out after 20ms");
    let many = |_: Batch<Placed>| pending::<()>();
    for router in [
        Router::new().on_with(options(), hangs),
        Router::new().on_with(options(), Hanging),
        Router::new().on_batch_with(options(), many),
    ] {
        let ended = tokio::time::timeout(PATIENCE, call(router, delivery())).await;
        assert_eq!(ended.expect("the limit ends it"), timed_out);
    }
}

#[tokio::test]
async fn a_route_has_a_limit_and_a_retry_policy_of_its_own() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let bus = test.container().bus();
    let retry = RetryPolicy::fixed(HOUR).with_max_attempts(2);
    let own = RouteOptions::new().with_timeout(HOUR).with_retry(retry);
    let noted = seen.clone();
    let patient = move |order: Placed, Attempt(attempt): Attempt| {
        let noted = noted.clone();
        async move {
            // Longer than the subscription allows.
            tokio::time::sleep(5 * SOON).await;
            noted.note(format!("{} {attempt}", order.id));
            Err::<(), _>("no")
        }
    };
    let hangs = |_: Cancelled| pending::<()>();
    let router = Router::new().on_with(own, patient).on(hangs);
    let options = options().with_handler_timeout(SOON);
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    test.send(&ORDERS, &Cancelled { id: 2 }).await;
    let heads = |letters: Vec<(String, u32, String, String)>| -> Vec<(u32, String)> {
        letters.into_iter().map(|one| (one.1, one.3)).collect()
    };
    let limit = (1, "timed out after 20ms".to_owned());
    assert_eq!(heads(letters(&test).await), std::slice::from_ref(&limit));
    test.advance(HOUR).await;
    assert_eq!(heads(letters(&test).await), [limit, (2, "no".to_owned())]);
    assert_eq!(seen.lines(), ["1 1", "1 2"]);
}

#[tokio::test]
async fn a_limit_is_at_least_a_millisecond() {
    let test = TestBus::start("billing").await;
    let bus = test.container().bus();
    let never = SubscribeOptions::new().with_handler_timeout(Duration::ZERO);
    let error = bus.subscribe_with(&ORDERS, never, hangs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let never = RouteOptions::new().with_timeout(Duration::ZERO);
    let router = Router::new().on_with(never, hangs);
    let error = bus.subscribe(&ORDERS, router).await.unwrap_err();
    let rule = "the timeout of a route must be at least 1 millisecond";
    assert!(error.to_string().ends_with(rule), "{error}");
}
