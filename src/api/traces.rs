//! The spans of Redstart, with the names and attributes of OpenTelemetry's conventions for messaging.
//!
//! Without a propagator the spans have only the few fields that make log lines useful. A macro of
//! `tracing` evaluates no field of a span that is off, so a field here must not be computed before.

use tracing::field::Empty;
use tracing::{Span, debug_span, info_span};

use crate::api::delivery::Delivery;
use crate::api::propagator::Telemetry;
use crate::domain::{Envelope, Outcome, Reason, Topic, Verdict};
use crate::store::Member;

/// The span of one publish, of one message or many.
pub(crate) fn publish(
    telemetry: Option<&Telemetry>,
    topic: &Topic,
    envelopes: &[Envelope],
) -> Span {
    let count = envelopes.len();
    let Some(telemetry) = telemetry else {
        return debug_span!("publish", %topic, messages = count);
    };
    let one = match envelopes {
        [one] => Some(one),
        _ => None,
    };
    info_span!(
        "publish",
        %topic,
        messages = count,
        otel.name = %format_args!("send {topic}"),
        otel.kind = "producer",
        otel.status_code = Empty,
        "messaging.operation.name" = "send",
        "messaging.operation.type" = "send",
        messaging.system = "redstart",
        messaging.destination.name = topic.as_str(),
        messaging.message.id = one.map(|one| tracing::field::display(one.id())),
        messaging.message.conversation_id = one.and_then(Envelope::correlation),
        messaging.message.body.size = one.map(body_size),
        messaging.batch.message_count = one.is_none().then_some(count),
        server.address = telemetry.server_address(),
        server.port = telemetry.server_port(),
        "redstart.message.type" = one.map(Envelope::message_type),
        "error.type" = Empty,
    )
}

/// The span of one attempt, in the trace of the message.
pub(crate) fn handle(telemetry: Option<&Telemetry>, member: &Member, delivery: &Delivery) -> Span {
    let envelope = delivery.envelope();
    let Some(telemetry) = telemetry else {
        return info_span!(
            "handle",
            topic = %member.topic(),
            group = %member.group(),
            id = %envelope.id(),
            "type" = envelope.message_type(),
            attempt = delivery.attempt(),
            traceparent = envelope.headers().get("traceparent"),
        );
    };
    let span = info_span!(
        parent: None,
        "handle",
        topic = %member.topic(),
        group = %member.group(),
        id = %envelope.id(),
        "type" = envelope.message_type(),
        attempt = delivery.attempt(),
        traceparent = envelope.headers().get("traceparent"),
        otel.name = %format_args!("process {}", member.topic()),
        otel.kind = "consumer",
        otel.status_code = Empty,
        "messaging.operation.name" = "process",
        "messaging.operation.type" = "process",
        messaging.system = "redstart",
        messaging.destination.name = member.topic().as_str(),
        messaging.consumer.group.name = member.group().as_str(),
        messaging.client.id = member.consumer.as_str(),
        messaging.message.id = %envelope.id(),
        messaging.message.conversation_id = envelope.correlation(),
        messaging.message.body.size = body_size(envelope),
        server.address = telemetry.server_address(),
        server.port = telemetry.server_port(),
        "redstart.message.type" = envelope.message_type(),
        redstart.attempt = delivery.attempt(),
        redstart.outcome = Empty,
        "error.type" = Empty,
    );
    if !span.is_disabled() {
        telemetry.propagator.parent(&span, envelope.headers());
    }
    span
}

/// The span of one call of a batch handler, with a link to the trace of each message.
pub(crate) fn handle_batch(
    telemetry: Option<&Telemetry>,
    member: &Member,
    deliveries: &[Delivery],
) -> Span {
    let count = deliveries.len();
    let Some(telemetry) = telemetry else {
        return info_span!(
            "handle_batch",
            topic = %member.topic(),
            group = %member.group(),
            messages = count,
        );
    };
    let span = info_span!(
        parent: None,
        "handle_batch",
        topic = %member.topic(),
        group = %member.group(),
        messages = count,
        otel.name = %format_args!("process {}", member.topic()),
        otel.kind = "consumer",
        otel.status_code = Empty,
        "messaging.operation.name" = "process",
        "messaging.operation.type" = "process",
        messaging.system = "redstart",
        messaging.destination.name = member.topic().as_str(),
        messaging.consumer.group.name = member.group().as_str(),
        messaging.client.id = member.consumer.as_str(),
        messaging.batch.message_count = count,
        server.address = telemetry.server_address(),
        server.port = telemetry.server_port(),
        "error.type" = Empty,
    );
    if !span.is_disabled() {
        for delivery in deliveries {
            let headers = delivery.envelope().headers();
            telemetry.propagator.link(&span, headers);
        }
    }
    span
}

/// The span of one read.
pub(crate) fn receive(telemetry: &Telemetry, member: &Member) -> Span {
    debug_span!(
        parent: None,
        "fetch",
        topic = %member.topic(),
        group = %member.group(),
        otel.name = %format_args!("receive {}", member.topic()),
        otel.kind = "consumer",
        otel.status_code = Empty,
        "messaging.operation.name" = "receive",
        "messaging.operation.type" = "receive",
        messaging.system = "redstart",
        messaging.destination.name = member.topic().as_str(),
        messaging.consumer.group.name = member.group().as_str(),
        messaging.client.id = member.consumer.as_str(),
        messaging.batch.message_count = Empty,
        server.address = telemetry.server_address(),
        server.port = telemetry.server_port(),
        "error.type" = Empty,
    )
}

/// The span of one call that settles deliveries. `name` says how all of them ended, or `settle`.
pub(crate) fn settle(telemetry: &Telemetry, member: &Member, name: &str, count: usize) -> Span {
    debug_span!(
        parent: None,
        "settle",
        topic = %member.topic(),
        group = %member.group(),
        messages = count,
        otel.name = %format_args!("settle {}", member.topic()),
        otel.kind = "client",
        otel.status_code = Empty,
        "messaging.operation.name" = name,
        "messaging.operation.type" = "settle",
        messaging.system = "redstart",
        messaging.destination.name = member.topic().as_str(),
        messaging.consumer.group.name = member.group().as_str(),
        messaging.client.id = member.consumer.as_str(),
        messaging.batch.message_count = count,
        server.address = telemetry.server_address(),
        server.port = telemetry.server_port(),
        "error.type" = Empty,
    )
}

/// Notes a failure on a span of this file.
pub(crate) fn fail(span: &Span, error_type: &'static str) {
    span.record("error.type", error_type);
    span.record("otel.status_code", "ERROR");
}

/// Notes on the span of an attempt how its delivery ends.
pub(crate) fn end(span: &Span, outcome: &'static str) {
    if !span.is_disabled() {
        span.record("redstart.outcome", outcome);
    }
}

/// Why an attempt failed; `None` for one that did not.
pub(crate) fn error_type(outcome: &Outcome, timed_out: bool) -> Option<&'static str> {
    match outcome {
        Outcome::Ack | Outcome::Commit(_) | Outcome::Snooze { .. } | Outcome::BackOff { .. } => {
            None
        }
        Outcome::Retry { .. } if timed_out => Some("timeout"),
        Outcome::Retry { .. } => Some("retry"),
        Outcome::DeadLetter { reason, .. } => Some(Reason::as_str(*reason)),
    }
}

/// How a delivery ends, as the attribute `redstart.outcome` and the names of settlements have it.
pub(crate) fn outcome_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Ack => "ack",
        Verdict::Reschedule { error: Some(_), .. } => "retry",
        Verdict::Reschedule { error: None, .. } => "snooze",
        Verdict::DeadLetter { .. } => "dead_letter",
    }
}

fn body_size(envelope: &Envelope) -> usize {
    envelope.raw_payload().as_bytes().len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_failed_attempt_has_an_error_type() {
        let of = |outcome: Outcome, timed_out| error_type(&outcome, timed_out);
        assert_eq!(of(Outcome::Ack, false), None);
        assert_eq!(of(Outcome::snooze(Duration::ZERO), false), None);
        assert_eq!(of(Outcome::back_off("busy"), false), None);
        assert_eq!(of(Outcome::retry("no"), false), Some("retry"));
        assert_eq!(of(Outcome::retry("no"), true), Some("timeout"));
        assert_eq!(of(Outcome::dead_letter("no"), false), Some("rejected"));
        let unhandled = Outcome::dead_letter_as(Reason::Unhandled, "no");
        assert_eq!(of(unhandled, false), Some("unhandled"));
    }
}
