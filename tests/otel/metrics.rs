//! The metrics of the conventions, where they are on.

use opentelemetry::Value;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use redstart::extract::Payload;
use redstart::otel::W3c;
use redstart::{Envelope, Outcome};

use crate::in_memory;
use crate::support::{drained, finish, group, topic};

/// The sum of a counter, or the number of a histogram's samples, over the points with an attribute.
fn total(metrics: &[ResourceMetrics], name: &str, attribute: (&str, &str)) -> u64 {
    let last = metrics.last().expect("a collection");
    let all = last.scope_metrics().flat_map(|scope| scope.metrics());
    let metric = all.filter(|one| one.name() == name).last();
    let metric = metric.unwrap_or_else(|| panic!("no metric {name}"));
    let has = |key: &str, value: &Value| key == attribute.0 && value.as_str() == attribute.1;
    match metric.data() {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => sum
            .data_points()
            .filter(|point| {
                point
                    .attributes()
                    .any(|one| has(one.key.as_str(), &one.value))
            })
            .map(|point| point.value())
            .sum(),
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => histogram
            .data_points()
            .filter(|point| {
                point
                    .attributes()
                    .any(|one| has(one.key.as_str(), &one.value))
            })
            .map(|point| point.count())
            .sum(),
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test]
async fn the_metrics_of_the_conventions_are_sent_where_they_are_on() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    opentelemetry::global::set_meter_provider(provider.clone());

    let quiet = in_memory().with_propagator(W3c::new());
    let quiet = quiet.connect().await.unwrap();
    let silent = topic("silent");
    let envelope = Envelope::new("n", &1).unwrap();
    quiet.bus().publish(&silent, &envelope).await.unwrap();
    finish(quiet).await;

    let propagator = W3c::new().with_semantic_metrics();
    let builder = in_memory().with_propagator(propagator);
    let container = builder.with_max_message_bytes(500).connect().await.unwrap();
    let (bus, orders) = (container.bus(), topic("orders"));
    bus.subscribe(
        &orders,
        async |Payload(number): Payload<u32>| match number {
            0 => Outcome::dead_letter("no"),
            _ => Outcome::Ack,
        },
    )
    .await
    .unwrap();
    let mut all: Vec<Envelope> = (0..3).map(|n| Envelope::new("n", &n).unwrap()).collect();
    all.push(Envelope::new("n", &"x".repeat(600)).unwrap());
    bus.publish_all(&orders, &all).await;
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
    provider.force_flush().unwrap();
    let metrics = exporter.get_finished_metrics().unwrap();

    let (here, failed) = (
        ("messaging.destination.name", "orders"),
        ("error.type", "too-large"),
    );
    let sent = "messaging.client.sent.messages";
    assert_eq!(total(&metrics, sent, here), 4);
    assert_eq!(total(&metrics, sent, failed), 1);
    let consumed = "messaging.client.consumed.messages";
    assert_eq!(total(&metrics, consumed, here), 3);
    let process = "messaging.process.duration";
    assert_eq!(total(&metrics, process, here), 3);
    assert_eq!(total(&metrics, process, ("error.type", "rejected")), 1);
    let duration = "messaging.client.operation.duration";
    let send = ("messaging.operation.type", "send");
    assert_eq!(total(&metrics, duration, send), 1);
    let dead = ("messaging.operation.name", "dead_letter");
    assert_eq!(total(&metrics, duration, dead), 1);
    let elsewhere = ("messaging.destination.name", "silent");
    assert_eq!(
        total(&metrics, sent, elsewhere),
        0,
        "they are off by default"
    );
}
