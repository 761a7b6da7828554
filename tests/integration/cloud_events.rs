//! A container that publishes CloudEvents, in memory and on a server.

use std::time::Duration;

use redstart::container::ContainerBuilder;
use redstart::extract::{Attempt, Payload};
use redstart::memory::MemoryStore;
use redstart::{Container, Envelope, ErrorKind, Outcome, PublishOptions, RetryPolicy};
use redstart::{Message, SubscribeOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::support::{Server, builder, drained, finish, group, letters, next, topic};

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
struct Placed(u32);

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

/// publish → failed attempt → retry → dead letter → redrive → handled; the second process publishes
/// envelopes itself.
async fn whole_way(publisher: ContainerBuilder, consumer: ContainerBuilder) -> Container {
    let events = publisher.with_cloud_events("/shop/orders");
    let container = events.connect().await.unwrap();
    let billing = consumer.connect().await.unwrap();
    let orders = topic("orders");
    let (sender, mut handled) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, envelope: Envelope, Attempt(attempt): Attempt| {
        let _ = sender.send((n, envelope.id(), attempt));
        async move {
            match attempt {
                1 => Outcome::retry("first"),
                2 if envelope.headers().contains_key("poison") => Outcome::dead_letter("poison"),
                _ => Outcome::Ack,
            }
        }
    };
    let retry = RetryPolicy::fixed(Duration::from_millis(1)).with_max_attempts(3);
    let options = SubscribeOptions::new().with_retry(retry);
    let bus = billing.bus();
    bus.subscribe_with(&orders, options, handler).await.unwrap();

    let envelope = Envelope::new("order.placed", &7).unwrap();
    let envelope = envelope.with_key("order-7").with_header("poison", "yes");
    let once = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    let bus = container.bus();
    let first = bus.publish_with(&orders, &envelope, once).await.unwrap();
    let again = bus.publish_with(&orders, &envelope, once).await.unwrap();
    assert!(again.duplicate && again.id == first.id);
    for attempt in [1, 2] {
        assert_eq!(next(&mut handled).await, (7, envelope.id(), attempt));
    }
    drained(&billing, &orders, &group("billing")).await;
    let dead = letters(&billing, &orders, &group("billing")).await.pop();
    let dead = dead.unwrap();
    let kept = dead.envelope().unwrap();
    assert_eq!((kept.id(), kept.key()), (envelope.id(), Some("order-7")));
    assert_eq!(kept.headers()["ce-source"], "/shop/orders");
    let operator = billing.dead_letters();
    operator
        .redrive(&orders, &group("billing"), &[dead.id])
        .await
        .unwrap();
    assert_eq!(next(&mut handled).await, (7, envelope.id(), 1));
    finish(billing).await;
    container
}

#[tokio::test]
async fn events_are_handled_as_envelopes_are_in_memory() {
    let store = MemoryStore::new();
    let process = || {
        Container::builder()
            .with_memory(store.clone())
            .with_service("billing")
    };
    finish(whole_way(process(), process()).await).await;
}

#[tokio::test]
async fn events_are_handled_as_envelopes_are_on_a_server() {
    let server = Server::start();
    let container = whole_way(builder(&server), builder(&server)).await;
    let receipts = topic("receipts");
    container.bus().send(&receipts, &Placed(8)).await.unwrap();
    let entries: redis::Value = server.command(&["XRANGE", "{shop:receipts}:log", "-", "+"]);
    let entry = format!("{entries:?}");
    assert!(entry.contains("cloudevents"), "{entry}");
    assert!(
        entry.contains("specversion") && entry.contains("/shop/orders"),
        "{entry}"
    );
    finish(container).await;
}

#[tokio::test]
async fn an_empty_source_is_refused_by_connect() {
    let builder = Container::builder().with_memory(MemoryStore::new());
    let error = builder.with_cloud_events("").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("source"), "{error}");
}
