//! Shows one trace over a request, the publish in it, each attempt at the message, and the message that
//! its handler publishes, as an exporter of OpenTelemetry gets it.
//!
//! Output:
//!
//! ```text
//! POST /orders
//!   send orders
//!     process orders: attempt 1, retry
//!     process orders: attempt 2, ack
//!       send receipts
//!         process receipts: attempt 1, ack
//! ```

use std::time::Duration;

use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use redstart::extract::Attempt;
use redstart::memory::MemoryStore;
use redstart::otel::W3c;
use redstart::{Bus, Container, Message, RetryPolicy, Router, State, SubscribeOptions, Topic};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::Instrument as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

const ORDERS: Topic = Topic::from_static("orders");
const RECEIPTS: Topic = Topic::from_static("receipts");

#[derive(Deserialize, Serialize)]
struct Placed {
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Deserialize, Serialize)]
struct Billed {
    cents: u64,
}

impl Message for Billed {
    const TYPE: &'static str = "order.billed";
}

/// The span of this attempt is current, so the publish is a child of it.
async fn bill(
    State(bus): State<Bus>,
    order: Placed,
    Attempt(attempt): Attempt,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if attempt == 1 {
        return Err("the printer is off".into());
    }
    let billed = Billed { cents: order.cents };
    bus.send(&RECEIPTS, &billed).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A service exports to a collector instead, with the crate opentelemetry-otlp.
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO);
    tracing::subscriber::set_global_default(subscriber.with(layer))?;

    let container = Container::builder()
        .with_memory(MemoryStore::new())
        .with_propagator(W3c::new())
        .connect()
        .await?;
    let bus = container.bus();
    let retry = RetryPolicy::fixed(Duration::from_millis(10));
    let options = SubscribeOptions::new().with_retry(retry);
    let router = Router::with_state(bus.clone()).on(bill);
    bus.subscribe_with(&ORDERS, options, router).await?;
    let (done, mut billed) = mpsc::unbounded_channel();
    let print = move |receipt: Billed| {
        let _ = done.send(receipt.cents);
        async {}
    };
    bus.subscribe(&RECEIPTS, print).await?;

    let request = tracing::info_span!("POST /orders");
    let order = Placed { cents: 1250 };
    async { bus.send(&ORDERS, &order).await }
        .instrument(request)
        .await?;
    billed.recv().await;
    // Every span has ended when the container has.
    container.shutdown(Duration::from_secs(10)).await;
    let mut spans = exporter.get_finished_spans()?;
    spans.sort_by_key(|span| span.start_time);
    print_below(&spans, SpanId::INVALID, "");
    provider.shutdown()?;
    Ok(())
}

/// Prints the children of a span, each with its own below it.
fn print_below(spans: &[SpanData], parent: SpanId, indent: &str) {
    for span in spans.iter().filter(|span| span.parent_span_id == parent) {
        let text = |name| {
            let mut all = span.attributes.iter();
            all.find(|attribute| attribute.key.as_str() == name)
                .map(|attribute| attribute.value.to_string())
        };
        let end = match (text("redstart.attempt"), text("redstart.outcome")) {
            (Some(attempt), Some(outcome)) => format!(": attempt {attempt}, {outcome}"),
            _ => String::new(),
        };
        println!("{indent}{}{end}", span.name);
        print_below(spans, span.span_context.span_id(), &format!("{indent}  "));
    }
}
