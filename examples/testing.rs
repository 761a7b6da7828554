//! Shows tests of a handler: called directly, on a bus in memory, and through a retry that is due in an hour.
//!
//! In a project of your own the three functions are tests. They need feature `testing` of this
//! crate, no server, and no waiting.
//!
//! Output:
//!
//! ```text
//! an empty order is rejected
//! a billed order publishes a bill
//! a failed order comes back after an hour
//! ```

use std::time::Duration;

use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{
    Bus, Container, Delivery, Error, Message, Outcome, RetryPolicy, Router, State,
    SubscribeOptions, Topic,
};
use serde::{Deserialize, Serialize};

const ORDERS: Topic = Topic::from_static("orders");
const BILLS: Topic = Topic::from_static("bills");

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Placed {
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Bill {
    cents: u64,
}

impl Message for Bill {
    const TYPE: &'static str = "bill.made";
}

const HOUR: Duration = Duration::from_secs(3600);

/// The handler under test: bills an order, and fails at the first attempt of a large one.
async fn bill(State(bus): State<Bus>, order: Placed, delivery: Delivery) -> Result<Outcome, Error> {
    let cents = order.cents;
    if cents == 0 {
        return Ok(Outcome::dead_letter("an empty order"));
    }
    if cents > 1000 && delivery.attempt() == 1 {
        return Ok(Outcome::retry("the printer is jammed"));
    }
    let bill = delivery.envelope().follow_up(&Bill { cents })?;
    bus.publish(&BILLS, &bill).await?;
    Ok(Outcome::Ack)
}

fn router(bus: Bus) -> Router<Bus> {
    Router::with_state(bus).on(bill)
}

/// What `main` of the service calls, and the tests too.
async fn subscribe(container: &Container) -> Result<(), Error> {
    let options = SubscribeOptions::new().with_retry(RetryPolicy::fixed(HOUR));
    let bus = container.bus();
    bus.subscribe_with(&ORDERS, options, router(bus.clone()))
        .await?;
    Ok(())
}

async fn an_empty_order_is_rejected() -> Result<(), Error> {
    let bus = Container::in_memory().await?.bus();
    let delivery = DeliveryBuilder::new(&Placed { cents: 0 })?.build();
    let outcome = call(router(bus), delivery).await;
    assert_eq!(outcome, Outcome::dead_letter("an empty order"));
    Ok(())
}

async fn a_billed_order_publishes_a_bill() -> Result<(), Error> {
    let test = TestBus::start("billing").await;
    subscribe(test.container()).await?;
    // Returns when every group has done its work.
    test.send(&ORDERS, &Placed { cents: 990 }).await;
    let bill = Bill { cents: 990 };
    test.published(&BILLS).assert_once().with(&bill);
    test.stop().await;
    Ok(())
}

async fn a_failed_order_comes_back_after_an_hour() -> Result<(), Error> {
    let test = TestBus::start("billing").await;
    subscribe(test.container()).await?;
    let order = Placed { cents: 1250 };
    test.send(&ORDERS, &order).await;
    let jammed = Outcome::retry("the printer is jammed");
    test.handled(&ORDERS, "billing")
        .assert_once()
        .with(&order)
        .ended(jammed);
    test.advance(HOUR).await;
    test.handled(&ORDERS, "billing")
        .assert_count(2)
        .attempt(2)
        .ended(Outcome::Ack);
    test.dead_letters(&ORDERS, "billing").await.assert_none();
    test.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    an_empty_order_is_rejected().await?;
    println!("an empty order is rejected");
    a_billed_order_publishes_a_bill().await?;
    println!("a billed order publishes a bill");
    a_failed_order_comes_back_after_an_hour().await?;
    println!("a failed order comes back after an hour");
    Ok(())
}
