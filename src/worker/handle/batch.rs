//! Runs the pipeline for batches: gather, begin each, call once, end each.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::api::handler::RawBatchHandler;
use crate::worker::core::Core;
use crate::worker::handle::call::call_batch;
use crate::worker::handle::in_hand::InHand;
use crate::worker::handle::pipeline::{Begun, begin, end, enter, give_back, prepare};
use crate::worker::intake::queue::{Queue, Queued};

/// The state that the workers of a batch subscription share.
pub(crate) struct Batches {
    handler: Arc<dyn RawBatchHandler>,
    /// One worker gathers at a time: two would split the messages of one batch between them.
    gathering: Mutex<()>,
}

impl Batches {
    pub(crate) fn new(handler: Arc<dyn RawBatchHandler>) -> Self {
        let gathering = Mutex::new(());
        Self { handler, gathering }
    }
}

/// Handles batches one after the other until the queue is closed.
pub(crate) async fn run(core: Arc<Core>, batches: Arc<Batches>) {
    let (most, wait) = core.options.batch;
    loop {
        let batch = {
            let _turn = batches.gathering.lock().await;
            gather(&core.queue, most, wait).await
        };
        let count = batch.len();
        if count == 0 {
            return;
        }
        let _slots = core.capacity.slots(count);
        let _in_hand = InHand::all(&core, &batch);
        // As for single deliveries, nothing begins after a stop.
        if core.stop.is_cancelled() {
            for queued in batch {
                give_back(&core, queued).await;
            }
        } else {
            handle(&core, &*batches.handler, batch).await;
        }
    }
}

/// Gathers up to `most` deliveries, for up to `wait` after the first. Empty when the queue is
/// closed and empty.
async fn gather(queue: &Queue, most: usize, wait: Duration) -> Vec<Queued> {
    let mut batch = queue.next_up_to(most).await;
    let until = Instant::now() + wait;
    while !batch.is_empty() && batch.len() < most {
        match timeout_at(until, queue.next_up_to(most - batch.len())).await {
            Ok(more) if !more.is_empty() => batch.extend(more),
            Ok(_) | Err(_) => break,
        }
    }
    batch
}

async fn handle(core: &Core, handler: &dyn RawBatchHandler, batch: Vec<Queued>) {
    let mut prepared = Vec::with_capacity(batch.len());
    for queued in batch {
        if !queued.lease.is_cancelled() {
            prepared.extend(prepare(core, queued).await);
        }
    }
    for part in split(prepared, core) {
        let Some(_turn) = enter(core).await else {
            return;
        };
        handle_part(core, handler, part).await;
    }
}

/// Begins, calls and ends the deliveries of one call.
pub(super) async fn handle_part(core: &Core, handler: &dyn RawBatchHandler, part: Vec<Begun>) {
    // An earlier part may have taken long.
    if core.stop.is_cancelled() {
        return;
    }
    let part = begin(core, part).await;
    if part.is_empty() {
        return;
    }
    let deliveries = part.iter().map(|one| one.delivery.clone()).collect();
    let outcomes = call_batch(core, handler, deliveries).await;
    for (begun, outcome) in part.into_iter().zip(outcomes) {
        end(core, begun, outcome).await;
    }
}

/// Splits a batch, so that a message that makes its whole batch fail dies alone.
///
/// Messages with the same number of failed attempts share a call, and each failed attempt halves
/// how many do. At its last attempt a message is alone.
fn split(mut batch: Vec<Begun>, core: &Core) -> Vec<Vec<Begun>> {
    let most = core.options.batch.0;
    // Stable, so the messages of a part keep their order.
    batch.sort_by_key(|one| one.count.failed);
    let mut parts: Vec<Vec<Begun>> = Vec::new();
    for one in batch {
        let failed = one.count.failed;
        let retry = core.retry(one.delivery.envelope().message_type());
        let max_attempts = retry.max_attempts();
        match parts.last_mut() {
            Some(part)
                if part[0].count.failed == failed
                    && part.len() < part_size(most, failed, max_attempts) =>
            {
                part.push(one);
            }
            _ => parts.push(vec![one]),
        }
    }
    parts
}

/// How many messages with this number of failed attempts share a call.
fn part_size(most: usize, failed: u32, max_attempts: u32) -> usize {
    if failed > 0 && failed.saturating_add(1) >= max_attempts {
        return 1;
    }
    most.checked_shr(failed).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_batch_comes_back_in_halves_and_each_message_has_its_last_attempt_alone() {
        let sizes = |most, max_attempts| {
            (0..max_attempts)
                .map(|failed| part_size(most, failed, max_attempts))
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(100, 5), [100, 50, 25, 12, 1]);
        assert_eq!(sizes(100, 1), [100]);
        assert_eq!(sizes(100, 2), [100, 1]);
        assert_eq!(sizes(4, 6), [4, 2, 1, 1, 1, 1]);
        assert_eq!(part_size(100, u32::MAX, 5), 1, "a foreign count");
    }
}
