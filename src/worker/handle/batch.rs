//! Runs the pipeline for batches: gather, begin each, call once, end each.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::api::handler::RawBatchHandler;
use crate::worker::core::Core;
use crate::worker::handle::call::call_batch;
use crate::worker::handle::pipeline::{begin, end};
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
        // As for single deliveries, nothing begins after a stop.
        if !core.stop.is_cancelled() {
            handle(&core, &*batches.handler, batch).await;
        }
        for _ in 0..count {
            core.capacity.release();
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
    let mut begun = Vec::with_capacity(batch.len());
    for queued in batch {
        if !queued.lease.is_cancelled() {
            begun.extend(begin(core, queued).await);
        }
    }
    if begun.is_empty() {
        return;
    }
    let deliveries = begun.iter().map(|one| one.delivery.clone()).collect();
    let results = call_batch(core, handler, deliveries).await;
    for (begun, result) in begun.into_iter().zip(results) {
        end(core, begun, result).await;
    }
}
