//! Which spans share a trace.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanId, TraceContextExt as _, TraceId};
use opentelemetry_sdk::trace::SpanData;
use redstart::container::ContainerBuilder;
use redstart::extract::{Attempt, Payload, Publisher};
use redstart::otel::W3c;
use redstart::{
    Batch, Bus, Container, Effects, Envelope, Message, Outcome, RetryPolicy, Router, State,
    SubscribeOptions,
};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::LevelFilter;

use crate::collector::{Collector, attribute};
use crate::support::{drained, finish, group, letters, topic, until};
use crate::{in_memory, on_redis};

#[derive(Deserialize, Serialize)]
struct Placed(u32);

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

/// Fails twice, so that the message dies; succeeds after a redrive, and publishes then.
#[derive(Clone)]
struct Shop {
    bus: Bus,
    is_open: Arc<AtomicBool>,
}

async fn bill(State(shop): State<Shop>, order: Placed) -> Result<(), String> {
    if !shop.is_open.load(Ordering::Relaxed) {
        return Err("closed".to_owned());
    }
    let sent = shop.bus.send(&topic("receipts"), &order).await;
    sent.map(drop).map_err(|error| error.to_string())
}

/// Publishes in a span of the application. Returns its trace and its id.
async fn publish_in_a_request(container: &Container) -> (TraceId, SpanId) {
    let request = tracing::info_span!("request");
    let bus = container.bus();
    async { bus.send(&topic("orders"), &Placed(1)).await }
        .instrument(request.clone())
        .await
        .unwrap();
    let context = request.context();
    let span = context.span();
    let context = span.span_context();
    (context.trace_id(), context.span_id())
}

fn twice() -> SubscribeOptions {
    let retry = RetryPolicy::fixed(Duration::from_millis(1)).with_max_attempts(2);
    SubscribeOptions::new().with_retry(retry)
}

fn traces(spans: &[SpanData]) -> HashSet<TraceId> {
    let traces = spans.iter().map(|span| span.span_context.trace_id());
    traces.collect()
}

/// publish → two failed attempts → dead letter → redrive → attempt → the handler's publish → attempt.
async fn one_trace(builder: ContainerBuilder) {
    let collector = Collector::up_to(LevelFilter::INFO);
    let container = builder.with_propagator(W3c::new()).connect().await.unwrap();
    let (orders, receipts, billing) = (topic("orders"), topic("receipts"), group("billing"));
    let is_open = Arc::default();
    let shop = Shop {
        bus: container.bus(),
        is_open: Arc::clone(&is_open),
    };
    let bus = container.bus();
    let router = Router::with_state(shop).on(bill);
    bus.subscribe_with(&orders, twice(), router).await.unwrap();
    bus.subscribe(&receipts, async |_: Placed| {})
        .await
        .unwrap();

    let (trace, request) = publish_in_a_request(&container).await;
    let dead = until("the dead letter", async || {
        letters(&container, &orders, &billing).await.pop()
    })
    .await;
    let envelope = dead.envelope().unwrap();
    let header = &envelope.headers()["traceparent"];
    let publish = collector.wait("send orders", 1).await.remove(0);
    let expected = format!("00-{trace}-{}-01", publish.span_context.span_id());
    assert_eq!(header, &expected, "the dead letter keeps the trace");

    is_open.store(true, Ordering::Relaxed);
    let redrive = container.dead_letters();
    redrive
        .redrive(&orders, &billing, &[dead.id])
        .await
        .unwrap();
    drained(&container, &orders, &billing).await;
    let receipt = collector.wait("process receipts", 1).await.remove(0);

    assert_eq!(publish.parent_span_id, request);
    let attempts = collector.wait("process orders", 3).await;
    let outcomes: Vec<_> = attempts
        .iter()
        .map(|span| attribute(span, "redstart.outcome").unwrap())
        .collect();
    assert_eq!(outcomes, ["retry", "dead_letter", "ack"]);
    for attempt in &attempts {
        let parent = (attempt.parent_span_id, attempt.parent_span_is_remote);
        assert_eq!(parent, (publish.span_context.span_id(), true));
    }
    let follow_up = collector.wait("send receipts", 1).await.remove(0);
    let last = attempts[2].span_context.span_id();
    assert_eq!(follow_up.parent_span_id, last);
    assert_eq!(receipt.parent_span_id, follow_up.span_context.span_id());
    finish(container).await;
    assert_eq!(traces(&collector.spans()), HashSet::from([trace]));
}

#[tokio::test]
async fn a_message_stays_in_the_trace_of_its_publish_in_memory() {
    one_trace(in_memory()).await;
}

#[tokio::test]
async fn a_message_stays_in_the_trace_of_its_publish_on_redis() {
    let (_server, builder) = on_redis();
    one_trace(builder).await;
}

/// Three publishes in three traces, one batch.
async fn batch_links(builder: ContainerBuilder) {
    let collector = Collector::up_to(LevelFilter::INFO);
    let container = builder.with_propagator(W3c::new()).connect().await.unwrap();
    let orders = topic("orders");
    for _ in 0..3 {
        publish_in_a_request(&container).await;
    }
    // A message from elsewhere has no trace to link to.
    let foreign = Envelope::new(Placed::TYPE, &4).unwrap();
    let foreign = foreign.with_header("traceparent", "00-1-2-01");
    let bus = container.bus();
    bus.publish(&orders, &foreign).await.unwrap();
    let options = SubscribeOptions::new().with_batch(4, Duration::from_secs(20));
    let router = Router::new().on_batch(async |_: Batch<Placed>| {});
    bus.subscribe_with(&orders, options, router).await.unwrap();
    let batch = collector.wait("process orders", 1).await.remove(0);
    let publishes = collector.named("send orders");
    assert_eq!(publishes.len(), 4);
    let sent: HashSet<_> = publishes[..3]
        .iter()
        .map(|span| (span.span_context.trace_id(), span.span_context.span_id()))
        .collect();
    assert_eq!(sent.len(), 3);
    let links = batch.links.iter().map(|link| &link.span_context);
    let linked: HashSet<_> = links.map(|to| (to.trace_id(), to.span_id())).collect();
    assert_eq!(linked, sent);
    assert_eq!(batch.parent_span_id, SpanId::INVALID);
    assert!(!traces(&publishes).contains(&batch.span_context.trace_id()));
    let count = attribute(&batch, "messaging.batch.message_count");
    assert_eq!(count.as_deref(), Some("4"));
    finish(container).await;
}

#[tokio::test]
async fn a_batch_has_a_link_to_each_of_its_messages_in_memory() {
    batch_links(in_memory()).await;
}

#[tokio::test]
async fn a_batch_has_a_link_to_each_of_its_messages_on_redis() {
    let (_server, builder) = on_redis();
    batch_links(builder).await;
}

#[tokio::test]
async fn a_linked_attempt_begins_a_trace_of_its_own() {
    let collector = Collector::up_to(LevelFilter::INFO);
    let builder = in_memory().with_propagator(W3c::linked());
    let container = builder.connect().await.unwrap();
    let bus = container.bus();
    let handler = async |_: Placed, Attempt(attempt): Attempt| match attempt {
        1 => Outcome::retry("again"),
        _ => Outcome::Ack,
    };
    bus.subscribe_with(&topic("orders"), twice(), handler)
        .await
        .unwrap();
    publish_in_a_request(&container).await;
    let attempts = collector.wait("process orders", 2).await;
    let publish = collector.named("send orders").remove(0).span_context;
    assert_eq!(traces(&attempts).len(), 2);
    assert!(!traces(&attempts).contains(&publish.trace_id()));
    for attempt in attempts {
        assert_eq!(attempt.parent_span_id, SpanId::INVALID);
        let links: Vec<_> = attempt
            .links
            .iter()
            .map(|link| &link.span_context)
            .collect();
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].span_id(), publish.span_id());
    }
    finish(container).await;
}

/// Publishes two messages that follow from the handled one, and expects them in the attempt's trace, as
/// children of the attempt.
async fn follow_ups(propagator: W3c) {
    let collector = Collector::up_to(LevelFilter::INFO);
    let builder = in_memory().with_propagator(propagator);
    let container = builder.connect().await.unwrap();
    let (bus, receipts) = (container.bus(), topic("receipts"));
    let handler =
        async |placed: Placed, envelope: Envelope, publisher: Publisher, bus: State<Bus>| {
            let receipts = topic("receipts");
            let written = envelope.follow_up(&placed).unwrap();
            bus.0.publish(&receipts, &written).await.unwrap();
            publisher.send(&receipts, &placed).await.unwrap();
        };
    let router = Router::with_state(bus.clone()).on(handler);
    bus.subscribe(&topic("orders"), router).await.unwrap();
    publish_in_a_request(&container).await;
    let sent = collector.wait("send receipts", 2).await;
    let attempt = collector.wait("process orders", 1).await.remove(0);
    let entries = container.topics().entries_after(&receipts, None, 10).await;
    let headers = entries.unwrap().into_iter().map(|entry| {
        let envelope = entry.envelope.unwrap();
        envelope.headers()["traceparent"].clone()
    });
    let expected = sent.iter().map(|span| {
        assert_eq!(span.parent_span_id, attempt.span_context.span_id());
        let (trace, id) = (attempt.span_context.trace_id(), span.span_context.span_id());
        format!("00-{trace}-{id}-01")
    });
    assert_eq!(headers.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    finish(container).await;
}

#[tokio::test]
async fn messages_that_follow_are_children_of_the_attempt() {
    follow_ups(W3c::new()).await;
}

#[tokio::test]
async fn messages_that_follow_from_a_linked_attempt_are_in_its_trace() {
    follow_ups(W3c::linked()).await;
}

fn receipt(placed: &Placed) -> Effects {
    let mut effects = Effects::new();
    effects.send(&topic("receipts"), placed);
    effects
}

/// Handles a message whose handler returns effects with another one.
async fn effects_follow(router: Router) {
    let collector = Collector::up_to(LevelFilter::INFO);
    let builder = in_memory().with_propagator(W3c::new());
    let container = builder.connect().await.unwrap();
    let subscribed = container.bus().subscribe(&topic("orders"), router).await;
    subscribed.unwrap();
    publish_in_a_request(&container).await;
    let attempt = collector.wait("process orders", 1).await.remove(0);
    let receipts = topic("receipts");
    let entries = container.topics().entries_after(&receipts, None, 10).await;
    let entry = entries.unwrap().remove(0);
    let context = &attempt.span_context;
    let expected = format!("00-{}-{}-01", context.trace_id(), context.span_id());
    assert_eq!(
        entry.envelope.unwrap().headers().get("traceparent"),
        Some(&expected)
    );
    finish(container).await;
}

#[tokio::test]
async fn messages_of_effects_are_children_of_the_attempt() {
    let bill = async |placed: Placed| receipt(&placed);
    effects_follow(Router::new().on(bill)).await;
}

#[tokio::test]
async fn messages_of_effects_of_a_batch_are_children_of_its_call() {
    let bill = async |placed: Batch<Placed>| -> Vec<Effects> {
        placed.messages().iter().map(receipt).collect()
    };
    effects_follow(Router::new().on_batch(bill)).await;
}

#[tokio::test]
async fn a_message_that_has_a_trace_keeps_it() {
    let collector = Collector::up_to(LevelFilter::INFO);
    let builder = in_memory().with_propagator(W3c::new());
    let container = builder.connect().await.unwrap();
    let (bus, orders) = (container.bus(), topic("orders"));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = format!("00-{trace}-00f067aa0ba902b7-01");
    let with = Envelope::new("n", &1).unwrap();
    let with = with.with_header("traceparent", header.clone());
    let without = Envelope::new("n", &2).unwrap();
    for published in bus.publish_all(&orders, &[with, without]).await {
        published.unwrap();
    }
    let publish = collector.wait("send orders", 1).await.remove(0);
    let own = publish.span_context.trace_id().to_string();
    let entries = container.topics().entries_after(&orders, None, 10).await;
    let headers: Vec<String> = entries
        .unwrap()
        .iter()
        .map(|entry| entry.envelope.as_ref().unwrap().headers()["traceparent"].clone())
        .collect();
    assert_eq!(headers[0], header);
    assert!(headers[1].contains(&own), "{headers:?}");
    bus.subscribe(&orders, async |_: Payload<u32>| {})
        .await
        .unwrap();
    let attempts = collector.wait("process orders", 2).await;
    let of: Vec<String> = attempts
        .iter()
        .map(|span| span.span_context.trace_id().to_string())
        .collect();
    assert_eq!(of, [trace, &own]);
    finish(container).await;
}

#[tokio::test]
async fn without_a_propagator_messages_have_no_trace() {
    let collector = Collector::up_to(LevelFilter::INFO);
    let container = in_memory().connect().await.unwrap();
    let (bus, orders) = (container.bus(), topic("orders"));
    bus.subscribe(&orders, async |_: Placed| {}).await.unwrap();
    publish_in_a_request(&container).await;
    collector.wait("handle", 1).await;
    let entries = container.topics().entries_after(&orders, None, 10).await;
    for entry in entries.unwrap() {
        assert!(entry.envelope.unwrap().headers().is_empty());
    }
    assert_eq!(collector.named("send orders").len(), 0);
    finish(container).await;
}
