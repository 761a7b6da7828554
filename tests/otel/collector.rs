//! Collects the spans of a test.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::support::until;

/// The spans of this thread, as long as it lives.
pub(crate) struct Collector {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
    _guard: DefaultGuard,
}

impl Collector {
    pub(crate) fn up_to(level: LevelFilter) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(level).with(layer);
        Self {
            exporter,
            _provider: provider,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The spans that have ended, by their start.
    pub(crate) fn spans(&self) -> Vec<SpanData> {
        let mut spans = self.exporter.get_finished_spans().unwrap();
        spans.sort_by_key(|span| span.start_time);
        spans
    }

    /// The spans of a name that have ended.
    pub(crate) fn named(&self, name: &str) -> Vec<SpanData> {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        spans
    }

    /// Waits until so many spans of a name have ended.
    pub(crate) async fn wait(&self, name: &str, count: usize) -> Vec<SpanData> {
        until(&format!("{count} spans {name}"), async || {
            Some(self.named(name)).filter(|spans| spans.len() >= count)
        })
        .await
    }
}

/// The value of a span's attribute, as text; `None` without it.
///
/// # Panics
///
/// When the span has the attribute twice.
pub(crate) fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let all = span
        .attributes
        .iter()
        .filter(|one| one.key.as_str() == name);
    let values: Vec<String> = all.map(|one| one.value.to_string()).collect();
    assert!(values.len() <= 1, "{name}: {values:?}");
    values.into_iter().next()
}
