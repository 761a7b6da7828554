//! Names, kinds, attributes and states of the spans.

use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;
use redstart::extract::Payload;
use redstart::handler::RouteOptions;
use redstart::otel::W3c;
use redstart::{Container, Envelope, Message, Outcome, RetryPolicy, Router, SubscribeOptions};
use serde::{Deserialize, Deserializer};
use tracing_subscriber::filter::LevelFilter;

use crate::collector::{Collector, attribute};
use crate::support::{finish, group, letters, topic, until};
use crate::{in_memory, on_redis};

fn expect(span: &SpanData, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(attribute(span, name).as_deref(), Some(*value), "{name}");
    }
}

#[tokio::test]
async fn spans_have_the_names_kinds_and_attributes_of_the_conventions() {
    let collector = Collector::up_to(LevelFilter::DEBUG);
    let (server, builder) = on_redis();
    let builder = builder.with_propagator(W3c::new());
    let container = builder.connect().await.unwrap();
    let (bus, orders) = (container.bus(), topic("orders"));
    let handler = async |_: Payload<String>| Outcome::Ack;
    let subscription = bus.subscribe(&orders, handler).await.unwrap();
    let envelope = Envelope::new("order.placed", "ten bytes!").unwrap();
    let envelope = envelope.with_correlation("conversation");
    bus.publish(&orders, &envelope).await.unwrap();
    let settle = collector.wait("settle orders", 1).await.remove(0);
    let process = collector.wait("process orders", 1).await.remove(0);
    let publish = collector.wait("send orders", 1).await.remove(0);
    let received =
        |span: &SpanData| attribute(span, "messaging.batch.message_count").as_deref() == Some("1");
    let receive = until("the read to end", async || {
        collector.named("receive orders").into_iter().find(received)
    })
    .await;

    let (id, port) = (envelope.id().to_string(), server.port().to_string());
    let size = envelope.raw_payload().as_bytes().len().to_string();
    let everywhere = [
        ("messaging.system", "redstart"),
        ("messaging.destination.name", "orders"),
        ("server.address", "127.0.0.1"),
        ("server.port", &*port),
    ];
    let of_the_message = [
        ("messaging.message.id", &*id),
        ("messaging.message.conversation_id", "conversation"),
        ("messaging.message.body.size", &*size),
        ("redstart.message.type", "order.placed"),
    ];
    let consumer = subscription.consumer().to_string();
    let of_the_group = [
        ("messaging.consumer.group.name", "billing"),
        ("messaging.client.id", &*consumer),
    ];
    for (span, kind, name, operation) in [
        (&publish, SpanKind::Producer, "send", "send"),
        (&receive, SpanKind::Consumer, "receive", "receive"),
        (&process, SpanKind::Consumer, "process", "process"),
        (&settle, SpanKind::Client, "ack", "settle"),
    ] {
        assert_eq!(span.span_kind, kind, "{operation}");
        assert_eq!(span.status, Status::Unset, "{operation}");
        assert_eq!(attribute(span, "error.type"), None);
        expect(span, &everywhere);
        let names = ["messaging.operation.name", "messaging.operation.type"];
        expect(span, &[(names[0], name), (names[1], operation)]);
        if operation != "send" {
            expect(span, &of_the_group);
        }
    }
    expect(&publish, &of_the_message);
    expect(&process, &of_the_message);
    let own = [("redstart.attempt", "1"), ("redstart.outcome", "ack")];
    expect(&process, &own);
    // The names of before stay for a while.
    let former = [("topic", "orders"), ("group", "billing"), ("id", &*id)];
    expect(&process, &former);
    expect(&process, &[("type", "order.placed"), ("attempt", "1")]);
    let batch = attribute(&publish, "messaging.batch.message_count");
    assert_eq!(batch, None);
    finish(container).await;
}

macro_rules! messages {
    ($($name:ident($payload:ty) = $type:literal,)*) => {$(
        struct $name;

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <$payload>::deserialize(from).map(|_| Self)
            }
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
        }
    )*};
}

messages! {
    Retry(u32) = "retry",
    Panic(u32) = "panic",
    Hang(u32) = "timeout",
    Undecodable(String) = "undecodable",
    Rejected(u32) = "rejected",
    Snooze(u32) = "snooze",
}

/// Publishes a message of a type and returns the span of its only attempt.
async fn attempt(collector: &Collector, container: &Container, message_type: &str) -> SpanData {
    let envelope = Envelope::new(message_type, &1).unwrap();
    let orders = topic("orders");
    container.bus().publish(&orders, &envelope).await.unwrap();
    until("the attempt", async || {
        let spans = collector.named("process orders").into_iter();
        let mut of_type = spans.filter(|span| {
            attribute(span, "redstart.message.type").as_deref() == Some(message_type)
        });
        of_type.next()
    })
    .await
}

#[tokio::test]
async fn the_span_of_a_failed_attempt_says_why() {
    let collector = Collector::up_to(LevelFilter::INFO);
    let builder = in_memory().with_propagator(W3c::new());
    let container = builder.connect().await.unwrap();
    let hour = RetryPolicy::fixed(Duration::from_secs(3600)).with_max_attempts(2);
    let short = RouteOptions::new().with_timeout(Duration::from_millis(1));
    let router = Router::new()
        .on(async |_: Retry| Outcome::retry("no"))
        .on(async |_: Panic| -> Outcome { panic!("no") })
        .on_with(short, async |_: Hang| std::future::pending::<()>().await)
        .on(async |_: Undecodable| {})
        .on(async |_: Rejected| Outcome::dead_letter("no"))
        .on(async |_: Snooze| Outcome::snooze(Duration::from_secs(3600)));
    let options = SubscribeOptions::new().with_retry(hour);
    let bus = container.bus();
    bus.subscribe_with(&topic("orders"), options, router)
        .await
        .unwrap();
    for (kind, outcome) in [
        ("retry", "retry"),
        ("panic", "retry"),
        ("timeout", "retry"),
        ("undecodable", "dead_letter"),
        ("rejected", "dead_letter"),
        ("unhandled", "dead_letter"),
    ] {
        let span = attempt(&collector, &container, kind).await;
        assert_eq!(span.status, Status::error(""), "{kind}");
        expect(
            &span,
            &[("error.type", kind), ("redstart.outcome", outcome)],
        );
    }
    let snoozed = attempt(&collector, &container, "snooze").await;
    assert_eq!(snoozed.status, Status::Unset);
    assert_eq!(attribute(&snoozed, "error.type"), None);
    expect(&snoozed, &[("redstart.outcome", "snooze")]);
    let dead = letters(&container, &topic("orders"), &group("billing")).await;
    assert_eq!(dead.len(), 3);
    finish(container).await;
}

#[tokio::test]
async fn the_span_of_a_failed_publish_says_why() {
    let collector = Collector::up_to(LevelFilter::INFO);
    let builder = in_memory().with_propagator(W3c::new());
    let container = builder.with_max_message_bytes(500).connect().await.unwrap();
    let large = Envelope::new("n", &"x".repeat(600)).unwrap();
    let small = Envelope::new("n", &1).unwrap();
    let results = container
        .bus()
        .publish_all(&topic("orders"), &[small, large])
        .await;
    assert!(results[0].is_ok() && results[1].is_err());
    let span = collector.wait("send orders", 1).await.remove(0);
    assert_eq!(span.status, Status::error(""));
    let batch = ("messaging.batch.message_count", "2");
    expect(&span, &[("error.type", "too-large"), batch]);
    finish(container).await;
}
