//! The names of handlers in dead letters.

use redstart::handler::RouteOptions;
use redstart::testing::TestBus;
use redstart::{Delivery, Handler, Outcome, Router, SubscribeOptions};

use crate::{Cancelled, ORDERS, Placed, letters};

async fn bill(_: Placed) -> Outcome {
    Outcome::dead_letter("no")
}

async fn refund(_: Cancelled) -> Outcome {
    Outcome::dead_letter("no")
}

struct Billing;

impl Handler for Billing {
    type Message = Placed;
    type Output = Outcome;

    async fn handle(&self, _: Placed, _: Delivery) -> Outcome {
        Outcome::dead_letter("no")
    }
}

async fn name_of<M, H: redstart::handler::IntoRouter<M>>(
    options: SubscribeOptions,
    handler: H,
) -> String {
    let test = TestBus::start("billing").await;
    let bus = test.container().bus();
    bus.subscribe_with(&ORDERS, options, handler).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    letters(&test).await.remove(0).2
}

#[tokio::test]
async fn a_handler_is_named_by_choice_by_itself_or_by_its_subscription() {
    let options = SubscribeOptions::new();
    let closure = |_: Placed| async { Outcome::dead_letter("no") };
    async fn inner(_: Placed) -> Outcome {
        Outcome::dead_letter("no")
    }
    assert_eq!(
        name_of(options.clone(), bill).await,
        "handlers::names::bill"
    );
    assert_eq!(
        name_of(options.clone(), Billing).await,
        "handlers::names::Billing"
    );
    let shared = std::sync::Arc::new(Billing);
    assert_eq!(
        name_of(options.clone(), shared).await,
        "handlers::names::Billing"
    );
    assert_eq!(name_of(options.clone(), inner).await, "inner");
    assert_eq!(name_of(options.clone(), closure).await, "orders/billing");
    let named = options.with_handler_name("bills");
    assert_eq!(name_of(named, bill).await, "bills");
}

#[tokio::test]
async fn a_route_is_named_by_choice_by_its_subscription_or_by_itself() {
    let router = || Router::new().on(refund);
    let options = SubscribeOptions::new();
    let route = RouteOptions::new().with_name("printing bills");
    let named = || router().on_with(route.clone(), bill);
    assert_eq!(name_of(options.clone(), named()).await, "printing bills");
    let own = router().on(bill);
    assert_eq!(name_of(options.clone(), own).await, "handlers::names::bill");
    let closure = |_: Placed| async { Outcome::dead_letter("no") };
    assert_eq!(
        name_of(options.clone(), router().on(closure)).await,
        "orders/billing"
    );
    let of_all = options.with_handler_name("bills");
    assert_eq!(name_of(of_all.clone(), router().on(bill)).await, "bills");
    assert_eq!(name_of(of_all, named()).await, "printing bills");
}
