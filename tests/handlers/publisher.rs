//! Publishing from a handler.

use redstart::extract::Publisher;
use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{Envelope, Error, Message, Outcome, PublishOptions, Topic};

use std::time::Duration;

use crate::{Cancelled, ORDERS, Placed};

const BILLS: Topic = Topic::from_static("bills");

async fn placed(order: Placed, publisher: Publisher) -> Result<(), Error> {
    publisher.send(&BILLS, &Cancelled { id: order.id }).await?;
    let own = Envelope::new("note", "own")?
        .with_tenant("other")
        .with_header("traceparent", "own");
    let options = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    publisher.publish_with(&BILLS, &own, options).await?;
    assert!(
        publisher
            .publish_with(&BILLS, &own, options)
            .await?
            .duplicate
    );
    Ok(())
}

fn cause() -> Envelope {
    Envelope::new(Placed::TYPE, &Placed { id: 7 })
        .unwrap()
        .with_correlation("cart-3")
        .with_tenant("acme")
        .with_header("traceparent", "00-1")
        .with_header("tracestate", "a=1")
        .with_header("private", "stays")
}

/// What a published message says about its cause.
fn causes(test: &TestBus) -> Vec<String> {
    let published = test.published(&BILLS);
    let envelopes = published.envelopes().iter();
    let line = |one: &Envelope| {
        let (correlation, tenant) = (one.correlation(), one.tenant());
        let headers = one.headers();
        format!(
            "{} {correlation:?} {tenant:?} {headers:?}",
            one.message_type()
        )
    };
    envelopes.map(line).collect()
}

const CAUSES: [&str; 2] = [
    "order.cancelled Some(\"cart-3\") Some(\"acme\") {\"traceparent\": \"00-1\", \"tracestate\": \"a=1\"}",
    "note Some(\"cart-3\") Some(\"other\") {\"traceparent\": \"own\"}",
];

#[tokio::test]
async fn a_handler_publishes_with_the_metadata_of_its_delivery() {
    let test = TestBus::start("billing").await;
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, placed).await.unwrap();
    test.publish(&ORDERS, &cause()).await;
    assert_eq!(causes(&test), CAUSES);
    test.handled(&ORDERS, "billing")
        .assert_once()
        .ended(Outcome::Ack);
}

#[tokio::test]
async fn a_delivery_that_was_built_by_hand_publishes_on_the_bus_that_it_is_given() {
    let test = TestBus::start("billing").await;
    let delivery = DeliveryBuilder::from_envelope(cause());
    let outcome = call(placed, delivery.clone().build()).await;
    assert_eq!(outcome, Outcome::Ack, "it has a bus of its own");
    assert!(causes(&test).is_empty());
    let delivery = delivery.with_bus(test.container().bus()).build();
    assert_eq!(call(placed, delivery).await, Outcome::Ack);
    assert_eq!(causes(&test), CAUSES);
}
