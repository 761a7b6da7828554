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
    Bus, Container, Delivery, Error, Group, Outcome, RetryPolicy, SubscribeOptions, Topic,
};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);

/// The handler under test: bills an order, and fails at the first attempt of a large one.
async fn bill(bus: Bus, cents: u64, delivery: Delivery) -> Result<Outcome, Error> {
    if cents == 0 {
        return Ok(Outcome::dead_letter("an empty order"));
    }
    if cents > 1000 && delivery.attempt() == 1 {
        return Ok(Outcome::retry("the printer is jammed"));
    }
    let bill = delivery.envelope().follow_up_as("bill.made", &cents)?;
    bus.publish(&Topic::new("bills")?, &bill).await?;
    Ok(Outcome::Ack)
}

/// What `main` of the service calls, and the tests too.
async fn subscribe(container: &Container) -> Result<(), Error> {
    let bus = container.bus();
    let handler = move |cents: u64, delivery: Delivery| bill(bus.clone(), cents, delivery);
    let options = SubscribeOptions::new().with_retry(RetryPolicy::fixed(HOUR));
    let orders = Topic::new("orders")?;
    let _subscription = container
        .bus()
        .subscribe_with(&orders, options, handler)
        .await?;
    Ok(())
}

async fn an_empty_order_is_rejected() -> Result<(), Error> {
    let bus = Container::in_memory().await?.bus();
    let handler = move |cents: u64, delivery: Delivery| bill(bus.clone(), cents, delivery);
    let outcome = call(handler, DeliveryBuilder::new(&0)?.build()).await?;
    assert_eq!(outcome, Outcome::dead_letter("an empty order"));
    Ok(())
}

async fn a_billed_order_publishes_a_bill() -> Result<(), Error> {
    let bus = TestBus::start("billing").await;
    subscribe(bus.container()).await?;
    let (orders, bills) = (Topic::new("orders")?, Topic::new("bills")?);
    bus.publish(&orders, "order.placed", &990).await;
    bus.settle(PATIENCE).await;
    assert_eq!(bus.published::<u64>(&bills), [990]);
    bus.stop(PATIENCE).await;
    Ok(())
}

async fn a_failed_order_comes_back_after_an_hour() -> Result<(), Error> {
    let bus = TestBus::start("billing").await;
    subscribe(bus.container()).await?;
    let (orders, billing) = (Topic::new("orders")?, Group::new("billing")?);
    bus.publish(&orders, "order.placed", &1250).await;
    bus.settle(PATIENCE).await;
    assert!(bus.acknowledged::<u64>(&orders, &billing).is_empty());
    bus.advance(HOUR);
    bus.settle(PATIENCE).await;
    assert_eq!(bus.acknowledged::<u64>(&orders, &billing), [1250]);
    bus.stop(PATIENCE).await;
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
