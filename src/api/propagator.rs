//! The port that joins the traces of publishers and handlers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use crate::domain::{Group, Topic};

/// Carries the trace of a publisher to the handlers of its messages, in the messages' headers.
///
/// [`ContainerBuilder::with_propagator`](crate::container::ContainerBuilder::with_propagator) sets
/// it. Feature `otel` has one for OpenTelemetry, `redstart::otel::W3c`. The methods run on the hot
/// path: they must neither block nor panic.
pub trait Propagator: Send + Sync + 'static {
    /// Adds the current span to the headers of new messages.
    ///
    /// The bus calls this once for each publish, within the span `publish`, with an empty map. It adds
    /// the result to each message that has no header `traceparent`.
    fn inject(&self, headers: &mut BTreeMap<String, String>);

    /// Makes the span of an attempt a part of the trace in the message's headers.
    ///
    /// The subscription calls this before anything enters the span `handle`.
    fn parent(&self, span: &Span, headers: &BTreeMap<String, String>);

    /// Links the span of a batch to the trace in the headers of one of its messages.
    ///
    /// The subscription calls this once for each message, before anything enters the span
    /// `handle_batch`. By default this does nothing.
    fn link(&self, span: &Span, headers: &BTreeMap<String, String>) {
        let _ = (span, headers);
    }

    /// Sees each operation when it has ended, within its span. By default this does nothing.
    fn record(&self, operation: &Operation<'_>) {
        let _ = operation;
    }
}

/// An operation on the messages of a topic that has ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation<'a> {
    /// What was done.
    pub kind: OperationKind,
    /// How the attribute `messaging.operation.name` calls it: `send`, `receive`, `process`, or how
    /// deliveries were settled.
    pub name: &'static str,
    /// The topic.
    pub topic: &'a Topic,
    /// The group; `None` for a publish.
    pub group: Option<&'a Group>,
    /// How many messages it was for.
    pub messages: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Why the first of them failed, as the attribute `error.type` has it.
    pub error_type: Option<&'static str>,
    /// How long it took.
    pub duration: Duration,
}

/// What an [`Operation`] does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OperationKind {
    /// A publish.
    Send,
    /// A read of new deliveries, including the wait for them.
    Receive,
    /// A call of a handler.
    Process,
    /// A call that tells the store how deliveries ended.
    Settle,
}

impl OperationKind {
    /// The attribute `messaging.operation.type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Process => "process",
            Self::Settle => "settle",
        }
    }
}

/// The propagator of a container, and the address of its server.
#[derive(Clone)]
pub(crate) struct Telemetry {
    pub(crate) propagator: Arc<dyn Propagator>,
    /// Host or path, and the port if it has one.
    pub(crate) server: Option<(String, Option<u16>)>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// The headers that join a new message to the current span; empty without a trace.
    pub(crate) fn headers(&self) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        self.propagator.inject(&mut headers);
        headers
    }

    pub(crate) fn server_address(&self) -> Option<&str> {
        self.server.as_ref().map(|(address, _)| address.as_str())
    }

    pub(crate) fn server_port(&self) -> Option<u64> {
        self.server.as_ref()?.1.map(u64::from)
    }
}
