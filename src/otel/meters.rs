//! The metrics of OpenTelemetry's conventions for messaging.

use std::fmt;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use crate::api::{Operation, OperationKind};

/// The bounds that the conventions recommend, in seconds.
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

#[derive(Clone)]
pub(super) struct Meters {
    sent: Counter<u64>,
    consumed: Counter<u64>,
    operation: Histogram<f64>,
    process: Histogram<f64>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    pub(super) fn of(meter: &Meter) -> Self {
        let counter = |name, description| {
            let counter = meter.u64_counter(name).with_unit("{message}");
            counter.with_description(description).build()
        };
        let histogram = |name, description| {
            let histogram = meter.f64_histogram(name).with_unit("s");
            let histogram = histogram.with_description(description);
            histogram.with_boundaries(BOUNDS.to_vec()).build()
        };
        Self {
            sent: counter(
                "messaging.client.sent.messages",
                "Messages that the bus tried to publish.",
            ),
            consumed: counter(
                "messaging.client.consumed.messages",
                "Messages that reads returned.",
            ),
            operation: histogram(
                "messaging.client.operation.duration",
                "Duration of publishes, reads and settlements.",
            ),
            process: histogram(
                "messaging.process.duration",
                "Duration of calls of handlers.",
            ),
        }
    }

    pub(super) fn record(&self, operation: &Operation<'_>) {
        let plain = attributes(operation, None);
        let failed = attributes(operation, operation.error_type);
        let seconds = operation.duration.as_secs_f64();
        match operation.kind {
            OperationKind::Send => {
                let done = operation.messages.saturating_sub(operation.failed);
                add(&self.sent, done, &plain);
                add(&self.sent, operation.failed, &failed);
            }
            OperationKind::Receive => add(&self.consumed, operation.messages, &plain),
            OperationKind::Process => return self.process.record(seconds, &failed),
            OperationKind::Settle => {}
        }
        self.operation.record(seconds, &failed);
    }
}

/// Adds to a counter. A count of zero would make a series of its own.
fn add(counter: &Counter<u64>, count: u64, attributes: &[KeyValue]) {
    if count > 0 {
        counter.add(count, attributes);
    }
}

fn attributes(operation: &Operation<'_>, error_type: Option<&'static str>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "redstart"),
        KeyValue::new("messaging.operation.name", operation.name),
        KeyValue::new("messaging.operation.type", operation.kind.as_str()),
        KeyValue::new("messaging.destination.name", operation.topic.to_string()),
    ];
    if let Some(group) = operation.group {
        attributes.push(KeyValue::new(
            "messaging.consumer.group.name",
            group.to_string(),
        ));
    }
    if let Some(error_type) = error_type {
        attributes.push(KeyValue::new("error.type", error_type));
    }
    attributes
}
