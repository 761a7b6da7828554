//! Call: runs the handler, times it, and turns a panic into a failed attempt.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::api::delivery::Delivery;
use crate::api::handler::{RawBatchHandler, RawHandler};
use crate::domain::{Outcome, panic_text};
use crate::worker::core::Core;
use crate::worker::scope;

/// Calls a handler with one delivery.
pub(super) async fn call(core: &Core, handler: &dyn RawHandler, delivery: Delivery) -> Outcome {
    let envelope = delivery.envelope();
    let span = tracing::info_span!(
        "handle",
        topic = %core.member.topic(),
        group = %core.member.group(),
        id = %envelope.id(),
        "type" = envelope.message_type(),
        attempt = delivery.attempt(),
        traceparent = envelope.headers().get("traceparent"),
    );
    let handling = async { handler.handle(delivery).await }.instrument(span);
    timed(core, handling).await.unwrap_or_else(Outcome::retry)
}

/// Calls a batch handler. Returns one outcome for each delivery, in their order.
pub(super) async fn call_batch(
    core: &Core,
    handler: &dyn RawBatchHandler,
    deliveries: Vec<Delivery>,
) -> Vec<Outcome> {
    let count = deliveries.len();
    let span = tracing::info_span!(
        "handle_batch",
        topic = %core.member.topic(),
        group = %core.member.group(),
        messages = count,
    );
    let handling = async { handler.handle(deliveries).await }.instrument(span);
    match timed(core, handling).await {
        Ok(outcomes) => one_each(outcomes, count),
        Err(panic) => all_failed(&panic, count),
    }
}

/// Runs the future of a handler and records how long it took. `Err` holds the text of a panic.
async fn timed<T>(core: &Core, handling: impl Future<Output = T>) -> Result<T, String> {
    let _busy = Busy::of(&core.busy);
    let started = Instant::now();
    let handling = scope::of_handler(AssertUnwindSafe(handling).catch_unwind());
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
