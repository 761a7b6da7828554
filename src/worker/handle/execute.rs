//! Executing: resolve → count → perform → decide → settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::api::delivery::Delivery;
use crate::api::handler::{RawHandler, panic_text};
use crate::api::lease::Lease;
use crate::domain::{
    DeadLetter, DeliveryHistory, Envelope, Error, FailedAttempt, Outcome, Reason, Verdict,
    after_crash, decide, describe, fingerprint,
};
use crate::store::{DeliveryId, Fetched, Fields, Lane, Settlement};
use crate::wire::dead_letter::encode_record;
use crate::wire::redelivery::Redelivery;
use crate::wire::{Limits, Undecodable, decode_entry, encode_entry};
use crate::worker::core::Core;
use crate::worker::intake::queue::Job;

/// Handles deliveries one after the other until the queue is closed.
pub(crate) async fn run(core: Arc<Core>, handler: Arc<dyn RawHandler>) {
    while let Some(job) = core.queue.next().await {
        // After a stop nothing is begun: shutdown gives back what is left. Nor is anything
        // begun whose lease was lost while it waited.
        if !core.stop.is_cancelled() && !job.lease.is_cancelled() {
            execute(&core, &*handler, job).await;
        }
        core.room.give();
    }
}

/// A delivery understood: the envelope, its story so far, and the fields it came with.
struct Resolved {
    delivery: Delivery,
    history: DeliveryHistory,
    fields: Fields,
}

/// What a delivery is settled by.
struct Claim {
    receipt: DeliveryId,
    lease: Arc<Lease>,
}

/// A delivery that a handler is called with.
pub(crate) struct Begun {
    claim: Claim,
    resolved: Resolved,
    failed: u32,
}

impl Begun {
    pub(crate) fn delivery(&self) -> Delivery {
        self.resolved.delivery.clone()
    }
}

async fn execute(core: &Core, handler: &dyn RawHandler, job: Job) {
    if let Some(begun) = begin(core, job).await {
        let result = perform(core, handler, begun.delivery()).await;
        end(core, begun, result).await;
    }
}

/// Resolves a delivery and counts its attempts. What no handler is to be called with is settled.
pub(crate) async fn begin(core: &Core, job: Job) -> Option<Begun> {
    let Job { fetched, lease } = job;
    let crashes = fetched.deliveries.saturating_sub(1);
    let claim = Claim {
        receipt: fetched.receipt,
        lease,
    };
    let (mut history, fields, envelope) = resolve(core, fetched);
    let envelope = match envelope {
        Ok(envelope) => envelope,
        Err(flaw) => {
            let letter = Letter {
                delivery: None,
                history,
                fields,
                attempts: crashes + 1,
            };
            let text = flaw.to_string();
            let settlement = letter.bury(core, &claim, Reason::Undecodable, text);
            settle(core, &claim, settlement).await;
            return None;
        }
    };

    // An entry is delivered again without having been settled only after a crash.
    let failed = envelope.failed_attempts.saturating_add(crashes);
    if crashes > 0 {
        let text = "the consumer stopped without settling the delivery";
        record(core, &mut history, failed, text);
    }
    let resolved = Resolved {
        delivery: Delivery::new(
            envelope,
            Arc::clone(&core.member),
            claim.receipt,
            history.origin,
            failed.saturating_add(1),
            Arc::clone(&claim.lease),
            Arc::clone(&core.store),
        ),
        history,
        fields,
    };
    if crashes > 0
        && let Some(verdict) = after_crash(failed, &core.options.retry)
    {
        carry_out(core, &claim, resolved, verdict).await;
        return None;
    }
    claim.lease.begin();
    Some(Begun {
        claim,
        resolved,
        failed,
    })
}

/// Settles a delivery by what its handler has returned.
pub(crate) async fn end(core: &Core, begun: Begun, result: Result<Outcome, Error>) {
    let Begun {
        claim,
        resolved,
        failed,
    } = begun;
    let verdict = match result {
        Ok(outcome) => decide(outcome, failed, &core.options.retry, fastrand::f64()),
        Err(flaw) => Verdict::DeadLetter {
            reason: Reason::Undecodable,
            attempts: failed.saturating_add(1),
            error: describe(&flaw),
        },
    };
    carry_out(core, &claim, resolved, verdict).await;
}

/// What an entry says, and what is known of it whether it can be read or not.
fn resolve(
    core: &Core,
    fetched: Fetched,
) -> (DeliveryHistory, Fields, Result<Envelope, Undecodable>) {
    let Fetched {
        receipt, fields, ..
    } = fetched;
    let decode = |history: &DeliveryHistory, fields: &Fields, limits| {
        let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
        decode_entry(&core.member.topic, history.origin, pairs, limits)
    };
    if receipt.lane == Lane::Log {
        let history = DeliveryHistory::from(receipt.id);
        let envelope = decode(&history, &fields, core.limits);
        return (history, fields, envelope);
    }
    match Redelivery::decode(&fields) {
        Ok(Redelivery {
            fields,
            history,
            anew,
        }) => {
            // A failure has put its error text into the envelope.
            let mut envelope = decode(&history, &fields, core.limits.for_retries());
            if let Ok(envelope) = &mut envelope
                && anew
            {
                envelope.forget_attempts();
            }
            (history, fields, envelope)
        }
        Err(flaw) => (DeliveryHistory::from(receipt.id), fields, Err(flaw)),
    }
}

/// Runs the handler; a panic is caught and is an outcome like another.
async fn perform(
    core: &Core,
    handler: &dyn RawHandler,
    delivery: Delivery,
) -> Result<Outcome, Error> {
    let envelope = delivery.envelope();
    let span = tracing::info_span!(
        "handle",
        topic = %core.member.topic,
        group = %core.member.group,
        id = %envelope.id(),
        "type" = envelope.message_type(),
        attempt = delivery.attempt(),
        traceparent = envelope.headers().get("traceparent"),
    );
    let handling = timed(
        core,
        async { handler.handle(delivery).await }.instrument(span),
    );
    let outcome = handling.await;
    outcome.unwrap_or_else(|panic| Ok(Outcome::retry(panic)))
}

/// Runs what calls a handler and takes its time; what a panic said is an error.
pub(crate) async fn timed<T>(core: &Core, handling: impl Future<Output = T>) -> Result<T, String> {
    let started = Instant::now();
    let handling = AssertUnwindSafe(handling).catch_unwind();
    let result = core.queue.run(handling).await;
    core.meters
        .handler_seconds
        .record(started.elapsed().as_secs_f64());
    result.map_err(|panic| panic_text(&*panic))
}

fn record(core: &Core, history: &mut DeliveryHistory, number: u32, error: &str) {
    history.record(FailedAttempt {
        number,
        at: core.store.clock().now(),
        consumer: core.member.consumer.to_string(),
        error: error.to_owned(),
    });
}

async fn carry_out(core: &Core, claim: &Claim, mut resolved: Resolved, verdict: Verdict) {
    match verdict {
        Verdict::Ack => {
            claim.lease.finish();
            // The settlers outlive the workers.
            if let Err(full) = core.acks.try_send(claim.receipt) {
                core.queue.pass_on();
                let _ = core.acks.send(full.into_inner()).await;
            }
        }
        Verdict::Reschedule {
            delay,
            attempts,
            error,
        } => {
            if let Some(error) = &error {
                record(core, &mut resolved.history, attempts, error);
            }
            match again(&resolved, attempts, error.clone()) {
                Ok(redelivery) => {
                    let meter = if error.is_some() {
                        &core.meters.retried
                    } else {
                        &core.meters.snoozed
                    };
                    meter.increment(1);
                    let settlement = Settlement::Reschedule {
                        receipt: claim.receipt,
                        delay,
                        redelivery,
                    };
                    settle(core, claim, settlement).await;
                }
                Err(flaw) => {
                    let letter = Letter::of(resolved, attempts);
                    let text = describe(&flaw);
                    let settlement = letter.bury(core, claim, Reason::Undecodable, text);
                    settle(core, claim, settlement).await;
                }
            }
        }
        Verdict::DeadLetter {
            reason,
            attempts,
            error,
        } => {
            // A crash is on record already.
            if reason != Reason::Crashed {
                record(core, &mut resolved.history, attempts, &error);
            }
            let letter = Letter::of(resolved, attempts);
            settle(core, claim, letter.bury(core, claim, reason, error)).await;
        }
    }
}

/// The parcel in which a delivery comes back.
fn again(resolved: &Resolved, attempts: u32, error: Option<String>) -> Result<Bytes, Error> {
    let mut envelope = resolved.delivery.envelope().clone();
    envelope.failed_attempts = attempts;
    if error.is_some() {
        envelope.last_error = error;
    }
    let codec = envelope.payload.codec();
    // What was small enough to come in is not lost for the error text it gained.
    let (name, bytes) = encode_entry(&envelope, codec, Limits::default().without_bound())?;
    let redelivery = Redelivery {
        fields: vec![(Bytes::from_static(name.as_bytes()), Bytes::from(bytes))],
        history: resolved.history.clone(),
        anew: false,
    };
    Ok(redelivery.encode())
}

/// A dead letter in the making.
struct Letter {
    delivery: Option<Delivery>,
    history: DeliveryHistory,
    fields: Fields,
    attempts: u32,
}

impl Letter {
    fn of(resolved: Resolved, attempts: u32) -> Self {
        Self {
            delivery: Some(resolved.delivery),
            history: resolved.history,
            fields: resolved.fields,
            attempts,
        }
    }

    fn bury(mut self, core: &Core, claim: &Claim, reason: Reason, error: String) -> Settlement {
        if self.history.failures.is_empty() {
            record(core, &mut self.history, self.attempts, &error);
        }
        core.meters.buried(reason);
        core.meters.dead_lettered.increment(1);
        tracing::warn!(
            subscription = %core.member,
            entry = %self.history.origin,
            %reason,
            attempts = self.attempts,
            error = error.as_str(),
            "dead letter",
        );
        let envelope = self.delivery.as_ref().map(Delivery::envelope);
        let letter = DeadLetter {
            id: claim.receipt.id,
            topic: core.member.topic.clone(),
            group: core.member.group.clone(),
            reason,
            fingerprint: fingerprint(&error),
            error,
            handler: core.handler_name.clone(),
            consumer: core.member.consumer.to_string(),
            message_type: envelope
                .map_or_else(String::new, |envelope| envelope.message_type.clone()),
            tenant: envelope.and_then(|envelope| envelope.tenant.clone()),
            correlation: envelope.and_then(|envelope| envelope.correlation.clone()),
            message_id: envelope.map(|envelope| envelope.id),
            attempts: self.attempts,
            last_failure: core.store.clock().now(),
            history: self.history,
            fields: self.fields,
            imported_from: None,
        };
        Settlement::DeadLetter {
            receipt: claim.receipt,
            record: encode_record(&letter),
        }
    }
}

/// Hands a settlement to the settler, unless the lease was lost meanwhile: a late failure is
/// dropped, because another consumer has the message.
async fn settle(core: &Core, claim: &Claim, settlement: Settlement) {
    if !claim.lease.is_lost() {
        claim.lease.finish();
        if let Err(full) = core.writes.try_send(settlement) {
            core.queue.pass_on();
            let _ = core.writes.send(full.into_inner()).await;
        }
    }
}
