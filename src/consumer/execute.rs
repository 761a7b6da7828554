//! Executing: resolve → count → perform → decide → settle.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::core::{Core, Job};
use super::delivery::Delivery;
use crate::backend::{Fetched, Fields, Lane, Receipt, Settlement};
use crate::codec::parcel::{Parcel, encode_record};
use crate::codec::{Limits, Undecodable, decode_entry, encode_entry};
use crate::domain::{
    Attempt, DeadLetter, Envelope, Error, Outcome, Reason, Trail, Verdict, after_crash, decide,
    describe, fingerprint,
};

/// Handles deliveries one after the other until the queue is closed.
pub(super) async fn run(core: Arc<Core>, jobs: async_channel::Receiver<Job>) {
    while let Ok(job) = jobs.recv().await {
        // After a stop nothing is begun: shutdown gives back what is left. Nor is anything
        // begun whose lease was lost while it waited.
        if !core.stop.is_cancelled() && !job.cancelled.is_cancelled() {
            execute(&core, job).await;
        }
        core.room.give();
    }
}

/// A delivery understood: the envelope, its story so far, and the fields it came with.
struct Resolved {
    envelope: Envelope,
    trail: Trail,
    fields: Fields,
}

async fn execute(core: &Core, job: Job) {
    let crashes = job.fetched.deliveries.saturating_sub(1);
    let Job { fetched, cancelled } = job;
    let receipt = fetched.receipt;
    let mut resolved = match resolve(core, fetched) {
        Ok(resolved) => resolved,
        Err((fields, trail, flaw)) => {
            let letter = Letter {
                envelope: None,
                trail,
                fields,
                attempts: crashes + 1,
            };
            let settlement = letter.bury(core, receipt, Reason::Undecodable, flaw.to_string());
            return settle(core, settlement).await;
        }
    };

    // An entry is delivered again without having been settled only after a crash.
    let failed = resolved.envelope.attempts.saturating_add(crashes);
    if crashes > 0 {
        let text = "the consumer stopped without settling the delivery".to_owned();
        record(core, &mut resolved.trail, failed, &text);
        if let Some(verdict) = after_crash(failed, &core.options.retry) {
            return carry_out(core, receipt, resolved, verdict).await;
        }
    }

    let (outcome, resolved) = perform(core, resolved, receipt, failed, cancelled).await;
    core.held.finish(receipt);
    let verdict = match outcome {
        Ok(outcome) => decide(outcome, failed, &core.options.retry, fastrand::f64()),
        Err(flaw) => Verdict::Bury {
            reason: Reason::Undecodable,
            attempts: failed.saturating_add(1),
            error: describe(&flaw),
        },
    };
    carry_out(core, receipt, resolved, verdict).await;
}

fn resolve(core: &Core, fetched: Fetched) -> Result<Resolved, (Fields, Trail, Undecodable)> {
    let Fetched {
        receipt, fields, ..
    } = fetched;
    let (trail, fields, limits) = match receipt.lane {
        Lane::Log => (Trail::from(receipt.id), fields, core.limits),
        Lane::Redo => match Parcel::decode(&fields) {
            // A failure has put its error text into the envelope.
            Ok(parcel) => (parcel.trail, parcel.fields, core.limits.for_retries()),
            Err(flaw) => return Err((fields, Trail::from(receipt.id), flaw)),
        },
    };
    let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
    match decode_entry(&core.member.topic, trail.origin, pairs, limits) {
        Ok(envelope) => Ok(Resolved {
            envelope,
            trail,
            fields,
        }),
        Err(flaw) => Err((fields, trail, flaw)),
    }
}

/// Runs the handler; a panic is caught and is an outcome like another.
async fn perform(
    core: &Core,
    resolved: Resolved,
    receipt: Receipt,
    failed: u32,
    cancelled: CancellationToken,
) -> (Result<Outcome, Error>, Resolved) {
    let attempt = failed.saturating_add(1);
    let span = tracing::info_span!(
        "handle",
        topic = %core.member.topic,
        group = %core.member.group,
        id = %resolved.envelope.id(),
        "type" = resolved.envelope.kind(),
        attempt,
        traceparent = resolved.envelope.headers().get("traceparent"),
    );
    let delivery = Delivery::new(
        resolved.envelope.clone(),
        Arc::clone(&core.member),
        receipt,
        resolved.trail.origin,
        attempt,
        cancelled,
        Arc::clone(&core.backend),
    );
    let started = Instant::now();
    let handling = AssertUnwindSafe(async { core.handler.handle(delivery).await });
    let outcome = handling.catch_unwind().instrument(span).await;
    core.meters
        .handler_seconds
        .record(started.elapsed().as_secs_f64());
    let outcome = outcome.unwrap_or_else(|panic| Ok(Outcome::retry(panic_text(&*panic))));
    (outcome, resolved)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("the handler panicked: {text}"),
        None => "the handler panicked".to_owned(),
    }
}

fn record(core: &Core, trail: &mut Trail, number: u32, error: &str) {
    trail.record(Attempt {
        number,
        at: core.backend.clock().now(),
        consumer: core.member.consumer.to_string(),
        error: error.to_owned(),
    });
}

async fn carry_out(core: &Core, receipt: Receipt, mut resolved: Resolved, verdict: Verdict) {
    match verdict {
        Verdict::Ack => {
            core.held.finish(receipt);
            // The settlers outlive the workers.
            let _ = core.acks.send(receipt).await;
        }
        Verdict::Later {
            delay,
            attempts,
            error,
        } => {
            if let Some(error) = &error {
                record(core, &mut resolved.trail, attempts, error);
            }
            match again(&resolved, attempts, error.clone()) {
                Ok(parcel) => {
                    let meter = if error.is_some() {
                        &core.meters.retried
                    } else {
                        &core.meters.snoozed
                    };
                    meter.increment(1);
                    let settlement = Settlement::Later {
                        receipt,
                        delay,
                        parcel,
                    };
                    settle(core, settlement).await;
                }
                Err(flaw) => {
                    let letter = Letter::of(resolved, attempts);
                    let text = describe(&flaw);
                    settle(core, letter.bury(core, receipt, Reason::Undecodable, text)).await;
                }
            }
        }
        Verdict::Bury {
            reason,
            attempts,
            error,
        } => {
            // A crash is on record already.
            if reason != Reason::Crashed {
                record(core, &mut resolved.trail, attempts, &error);
            }
            let letter = Letter::of(resolved, attempts);
            settle(core, letter.bury(core, receipt, reason, error)).await;
        }
    }
}

/// The parcel in which a delivery comes back.
fn again(resolved: &Resolved, attempts: u32, error: Option<String>) -> Result<Bytes, Error> {
    let mut envelope = resolved.envelope.clone();
    envelope.attempts = attempts;
    if error.is_some() {
        envelope.last_error = error;
    }
    let codec = envelope.payload.codec();
    // What was small enough to come in is not lost for the error text it gained.
    let (name, bytes) = encode_entry(&envelope, codec, Limits::default().without_bound())?;
    let parcel = Parcel {
        fields: vec![(Bytes::from_static(name.as_bytes()), Bytes::from(bytes))],
        trail: resolved.trail.clone(),
    };
    Ok(parcel.encode())
}

/// A dead letter in the making.
struct Letter {
    envelope: Option<Envelope>,
    trail: Trail,
    fields: Fields,
    attempts: u32,
}

impl Letter {
    fn of(resolved: Resolved, attempts: u32) -> Self {
        Self {
            envelope: Some(resolved.envelope),
            trail: resolved.trail,
            fields: resolved.fields,
            attempts,
        }
    }

    fn bury(mut self, core: &Core, receipt: Receipt, reason: Reason, error: String) -> Settlement {
        if self.trail.history.is_empty() {
            record(core, &mut self.trail, self.attempts, &error);
        }
        core.meters.buried(reason);
        core.meters.dead_lettered.increment(1);
        tracing::warn!(
            subscription = %core.member,
            entry = %self.trail.origin,
            %reason,
            attempts = self.attempts,
            error = error.as_str(),
            "dead letter",
        );
        let envelope = self.envelope.as_ref();
        let letter = DeadLetter {
            id: receipt.id,
            topic: core.member.topic.clone(),
            group: core.member.group.clone(),
            reason,
            fingerprint: fingerprint(&error),
            error,
            handler: core.handler_name.clone(),
            consumer: core.member.consumer.to_string(),
            kind: envelope.map_or_else(String::new, |envelope| envelope.kind.clone()),
            tenant: envelope.and_then(|envelope| envelope.tenant_id.clone()),
            attempts: self.attempts,
            last_failure: core.backend.clock().now(),
            trail: self.trail,
            fields: self.fields,
        };
        Settlement::Bury {
            receipt,
            record: encode_record(&letter),
        }
    }
}

/// Hands a settlement to the settler, unless the lease was lost meanwhile: a late failure is
/// dropped, because another consumer has the message.
async fn settle(core: &Core, settlement: Settlement) {
    let receipt = settlement.receipt();
    if core.held.contains(receipt) {
        core.held.finish(receipt);
        let _ = core.writes.send(settlement).await;
    }
}
