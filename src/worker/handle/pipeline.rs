//! Runs the pipeline for one delivery.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::delivery::Delivery;
use crate::api::handler::RawHandler;
use crate::api::lease::Lease;
use crate::domain::{Error, Outcome};
use crate::store::Lane;
use crate::worker::core::Core;
use crate::worker::handle::call::call;
use crate::worker::handle::commit::{commit, commit_undecodable};
use crate::worker::handle::count::{Count, count};
use crate::worker::handle::decide::{Chance, decide, decide_early, wants_another_attempt};
use crate::worker::handle::decode::{Entry, decode};
use crate::worker::intake::queue::Queued;

/// Handles deliveries one after the other until the queue is closed.
pub(crate) async fn run(core: Arc<Core>, handler: Arc<dyn RawHandler>) {
    while let Some(queued) = core.queue.next().await {
        // After a stop nothing begins: the shutdown releases the rest of the queue. A delivery
        // that lost its lease in the queue belongs to another consumer.
        let _slot = core.capacity.slots(1);
        if !core.stop.is_cancelled() && !queued.lease.is_cancelled() {
            handle(&core, &*handler, queued).await;
        }
    }
}

async fn handle(core: &Core, handler: &dyn RawHandler, queued: Queued) {
    if let Some(begun) = begin(core, queued).await {
        let result = call(core, handler, begun.delivery.clone()).await;
        end(core, begun, result).await;
    }
}

/// A delivery that a handler is called with.
pub(super) struct Begun {
    pub(super) delivery: Delivery,
    pub(super) count: Count,
    entry: Entry,
    lease: Arc<Lease>,
}

/// Decode and count. Commits, and returns `None` for, a delivery that no handler may see.
pub(super) async fn begin(core: &Core, queued: Queued) -> Option<Begun> {
    let Queued { fetched, lease } = queued;
    let deliveries = fetched.deliveries;
    let (mut entry, envelope) = decode(core.member.topic(), fetched, core.limits);
    let envelope = match envelope {
        Ok(envelope) => envelope,
        Err(error) => {
            let attempts = count(0, deliveries).attempt();
            commit_undecodable(core, &lease, entry, attempts, &error).await;
            return None;
        }
    };
    let count = count(envelope.failed_attempts(), deliveries);
    if count.crashed {
        let (now, consumer) = (core.store.now(), core.member.consumer.as_str());
        entry.history.record(count.crash(now, consumer));
    }
    // A foreign producer may count attempts of its own, so a log entry gets one attempt at least.
    let is_retry = entry.id.lane == Lane::Redelivery;
    let last_error = envelope.last_error().filter(|_| is_retry);
    if let Some(verdict) = decide_early(count, last_error, &core.options.retry) {
        commit(core, &lease, entry, &envelope, verdict).await;
        return None;
    }
    let delivery = Delivery::new(
        envelope,
        Arc::clone(&core.member),
        entry.id,
        entry.history.origin,
        count.attempt(),
        Arc::clone(&lease),
        Arc::clone(&core.store),
    );
    lease.begin();
    Some(Begun {
        delivery,
        entry,
        count,
        lease,
    })
}

/// Decide and commit. A cancelled delivery whose handler asks for another attempt stays as it is:
/// the shutdown gives it back, uncounted.
pub(super) async fn end(core: &Core, begun: Begun, result: Result<Outcome, Error>) {
    let Begun {
        delivery,
        entry,
        count,
        lease,
    } = begun;
    lease.end_call();
    if lease.is_cancelled() && wants_another_attempt(&result) {
        return;
    }
    let pressure = match &result {
        Ok(Outcome::BackOff { error }) => {
            tracing::debug!(subscription = %core.member, %error, "a handler backs off");
            core.pressure.note(Instant::now())
        }
        _ => Duration::ZERO,
    };
    let chance = Chance {
        random: fastrand::f64(),
        pressure,
    };
    let verdict = decide(result, count, &core.options, chance);
    commit(core, &lease, entry, delivery.envelope(), verdict).await;
}
