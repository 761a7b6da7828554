//! Settling in batches: whatever has come together while the last batch was under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::{Error, describe};
use crate::store::{DeliveryId, MAX_BATCH, Settlement};
use crate::worker::core::{Core, back_off};

/// How far apart small writes are at least: a script's call costs as much as ten more settlements in
/// it, and on a busy server more.
const BETWEEN_WRITES: Duration = Duration::from_millis(5);
/// From so many settlements on a write is not small.
const ENOUGH: usize = 64;

/// Acknowledges until no worker is left. Apart from the other settlements, because
/// acknowledging works when the server's memory is full and writing does not.
pub(crate) async fn acknowledge(core: Arc<Core>, mut acks: mpsc::Receiver<DeliveryId>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while acks.recv_many(&mut batch, MAX_BATCH).await > 0 {
        core.meters.settle_batch.record(batch.len() as f64);
        let mut failures = 0;
        while let Err(error) = core.store.acknowledge(&core.member, &batch).await {
            failures += 1;
            core.acknowledging.say(&error);
            pause(&core, &error, failures).await;
        }
        if failures > 0 {
            core.acknowledging.over();
        }
        let count = batch.len() as u64;
        core.meters.acknowledged.increment(count);
        core.acknowledged.fetch_add(count, Ordering::Relaxed);
        core.held.leave(batch.drain(..));
        core.meters.in_flight.set(core.held.len() as f64);
    }
}

/// Writes retries, snoozes and dead letters until no worker is left.
///
/// Repeating after an unknown outcome is safe: what was written is no longer held, and the
/// store says so without writing again.
pub(crate) async fn write(core: Arc<Core>, mut writes: mpsc::Receiver<Settlement>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    let mut next = Instant::now();
    while writes.recv_many(&mut batch, MAX_BATCH).await > 0 {
        if batch.len() < ENOUGH {
            sleep_until(next).await;
            while batch.len() < MAX_BATCH
                && let Ok(settlement) = writes.try_recv()
            {
                batch.push(settlement);
            }
        }
        next = Instant::now() + BETWEEN_WRITES;
        // The lease may have been lost while this waited for the batch before it.
        batch.retain(|settlement| core.held.contains(settlement.receipt()));
        core.meters.settle_batch.record(batch.len() as f64);
        let mut failures = 0;
        let written = loop {
            match core.store.settle(&core.member, &batch).await {
                Ok(written) => break written,
                Err(error) => {
                    failures += 1;
                    core.writing.say(&error);
                    pause(&core, &error, failures).await;
                }
            }
        };
        if failures > 0 {
            core.writing.over();
        }
        let not_held = written.iter().filter(|written| !**written).count();
        if failures == 0 && not_held > 0 {
            core.meters.lease_lost.increment(not_held as u64);
        }
        let delays = batch.iter().filter_map(|settlement| match settlement {
            Settlement::Reschedule { delay, .. } => Some(*delay).filter(|delay| !delay.is_zero()),
            Settlement::DeadLetter { .. } => None,
        });
        if let Some(soonest) = delays.min() {
            core.due.set(soonest);
        }
        let count = batch.len() as u64;
        core.acknowledged.fetch_add(count, Ordering::Relaxed);
        core.held
            .leave(batch.drain(..).map(|settlement| settlement.receipt()));
        core.meters.in_flight.set(core.held.len() as f64);
    }
}

async fn pause(core: &Core, error: &Error, failures: u32) {
    if failures == 1 {
        tracing::warn!(
            subscription = %core.member,
            error = %describe(error),
            "settling failed; trying again until it works",
        );
    }
    sleep(back_off(failures)).await;
}
