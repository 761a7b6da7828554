//! Traces and metrics through OpenTelemetry: [`W3c`].
//!
//! The crates `opentelemetry` 0.33 and `tracing-opentelemetry` 0.34 are part of this module's
//! interface: the layer that the process installs must be of the same versions. The page
//! [observability](crate::docs::observability) shows the setup.

mod meters;
mod trace_context;

use std::collections::BTreeMap;

use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry::{Context, global};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::api::{Operation, Propagator};
use meters::Meters;

/// Carries traces in the headers `traceparent` and `tracestate`, as W3C Trace Context defines them.
///
/// A publish adds the current span to the message. Each attempt becomes a child of it, in the same
/// trace; [`linked`](Self::linked) begins a trace for each attempt instead. A batch always begins its
/// own trace, with a link to each of its messages. Without a layer of `tracing-opentelemetry` in the
/// process, this does nothing.
///
/// # Example
///
/// ```
/// use redstart::{Container, memory::MemoryStore, otel::W3c};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), redstart::Error> {
/// let container = Container::builder()
///     .with_memory(MemoryStore::new())
///     .with_propagator(W3c::new())
///     .connect()
///     .await?;
/// # container.shutdown(std::time::Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct W3c {
    linked: bool,
    meters: Option<Meters>,
}

impl W3c {
    /// Each attempt is a child of its publish, in the same trace.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each attempt begins a trace, with a link to its publish. For topics whose messages wait for
    /// hours: a trace that stays open so long is hard to sample and to read.
    pub fn linked() -> Self {
        Self {
            linked: true,
            meters: None,
        }
    }

    /// Sends the metrics of OpenTelemetry's conventions for messaging to the global meter provider
    /// that is installed now; by default they are off.
    ///
    /// | Metric | Kind | Measures |
    /// |---|---|---|
    /// | `messaging.client.sent.messages` | counter | published messages; `error.type` marks those that failed |
    /// | `messaging.client.consumed.messages` | counter | messages that reads returned |
    /// | `messaging.client.operation.duration` | histogram, seconds | publishes, reads with their waits, settlements |
    /// | `messaging.process.duration` | histogram, seconds | calls of handlers |
    ///
    /// The conventions are still in development, so names and attributes may change in any release. The
    /// metrics of the page [metrics and traces](crate::docs::metrics) do not.
    pub fn with_semantic_metrics(mut self) -> Self {
        self.meters = Some(Meters::of(&global::meter("redstart")));
        self
    }
}

/// The span that a publish belongs to.
fn current() -> SpanContext {
    let of_tracing = Span::current().context().span().span_context().clone();
    match of_tracing.is_valid() {
        true => of_tracing,
        false => Context::current().span().span_context().clone(),
    }
}

impl Propagator for W3c {
    fn inject(&self, headers: &mut BTreeMap<String, String>) {
        trace_context::write(&current(), headers);
    }

    fn parent(&self, span: &Span, headers: &BTreeMap<String, String>) {
        if self.linked {
            return self.link(span, headers);
        }
        if let Some(publish) = trace_context::read(headers) {
            // An error says that no layer takes part, or not for this span: it is in no trace then.
            let _ = span.set_parent(Context::new().with_remote_span_context(publish));
        }
    }

    fn link(&self, span: &Span, headers: &BTreeMap<String, String>) {
        if let Some(publish) = trace_context::read(headers) {
            span.add_link(publish);
        }
    }

    fn record(&self, operation: &Operation<'_>) {
        if let Some(meters) = &self.meters {
            meters.record(operation);
        }
    }
}
