//! Call: runs the handler, times it, and turns a panic into a failed attempt.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span};

use crate::api::delivery::Delivery;
use crate::api::handler::{RawBatchHandler, RawHandler};
use crate::api::propagator::{Operation, OperationKind, Telemetry};
use crate::api::traces;
use crate::domain::{Outcome, panic_text};
use crate::worker::core::Core;
use crate::worker::scope;

/// Calls a handler with one delivery. Also returns the span of the attempt, which ends when it is
/// dropped.
pub(super) async fn call(
    core: &Core,
    handler: &dyn RawHandler,
    delivery: &Delivery,
) -> (Outcome, Span) {
    let span = traces::handle(core.telemetry.as_deref(), &core.member, delivery);
    let (called, began) = (delivery.clone(), Instant::now());
    let handling = async { handler.handle(called).await }.instrument(span.clone());
    let result = timed(core, handling, began).await;
    let panicked = result.is_err();
    let outcome = result.unwrap_or_else(Outcome::retry);
    if let Some(telemetry) = &core.telemetry {
        let error_type = match panicked {
            true => Some("panic"),
            false => traces::error_type(&outcome, delivery.has_timed_out()),
        };
        let failed = u64::from(error_type.is_some());
        record(core, telemetry, &span, (1, failed, error_type), began);
    }
    (outcome, span)
}

/// Calls a batch handler. Returns one outcome for each delivery, in their order, and the span of the
/// call, which ends when it is dropped.
pub(super) async fn call_batch(
    core: &Core,
    handler: &dyn RawBatchHandler,
    deliveries: Vec<Delivery>,
) -> (Vec<Outcome>, Span) {
    let count = deliveries.len();
    let span = traces::handle_batch(core.telemetry.as_deref(), &core.member, &deliveries);
    let telemetry = core.telemetry.as_deref();
    let traced = telemetry.map(|telemetry| (telemetry, deliveries.clone()));
    let began = Instant::now();
    let handling = async { handler.handle(deliveries).await }.instrument(span.clone());
    let result = timed(core, handling, began).await;
    let panicked = result.is_err();
    let outcomes = match result {
        Ok(outcomes) => one_each(outcomes, count),
        Err(panic) => all_failed(&panic, count),
    };
    if let Some((telemetry, deliveries)) = &traced {
        let types = outcomes.iter().zip(deliveries);
        let mut types = types.filter_map(|(outcome, delivery)| match panicked {
            true => Some("panic"),
            false => traces::error_type(outcome, delivery.has_timed_out()),
        });
        let error_type = types.next();
        let failed = u64::from(error_type.is_some()) + types.count() as u64;
        record(
            core,
            telemetry,
            &span,
            (count as u64, failed, error_type),
            began,
        );
    }
    (outcomes, span)
}

/// Tells the propagator how a call ended, and marks the span of a failed one. Takes how many messages
/// there were, how many of them failed, and why the first did.
fn record(
    core: &Core,
    telemetry: &Telemetry,
    span: &Span,
    (messages, failed, error_type): (u64, u64, Option<&'static str>),
    began: Instant,
) {
    if let Some(error_type) = error_type {
        traces::fail(span, error_type);
    }
    let operation = Operation {
        kind: OperationKind::Process,
        name: "process",
        topic: core.member.topic(),
        group: Some(core.member.group()),
        messages,
        failed,
        error_type,
        duration: began.elapsed(),
    };
    span.in_scope(|| telemetry.propagator.record(&operation));
}

/// Runs the future of a handler and records how long it took. `Err` holds the text of a panic.
async fn timed<T>(
    core: &Core,
    handling: impl Future<Output = T>,
    started: Instant,
) -> Result<T, String> {
    let _busy = Busy::of(&core.busy);
    let handling = AssertUnwindSafe(handling).catch_unwind();
    let handling = scope::of_handler(&core.effects.publishing, handling);
    let result = core.queue.run(handling).await;
    core.meters
        .handler_duration
        .record(started.elapsed().as_secs_f64());
    result.map_err(panic_text)
}

/// A running call; counted until it is dropped.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Fails every message if the handler returned a wrong number of outcomes: no outcome can be matched
/// to its message.
fn one_each(outcomes: Vec<Outcome>, count: usize) -> Vec<Outcome> {
    if outcomes.len() == count {
        return outcomes;
    }
    let error = format!("{} outcomes for {count} messages", outcomes.len());
    all_failed(&error, count)
}

fn all_failed(error: &str, count: usize) -> Vec<Outcome> {
    (0..count).map(|_| Outcome::retry(error)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_of_outcomes_fails_every_message() {
        let acks = |count| vec![Outcome::Ack; count];
        assert_eq!(one_each(acks(2), 2), [Outcome::Ack, Outcome::Ack]);
        let failed = Outcome::retry("3 outcomes for 2 messages");
        assert_eq!(one_each(acks(3), 2), [failed.clone(), failed]);
    }
}
