//! Executing batches: gather → resolve → perform → settle each.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::api::handler::RawBatchHandler;
use crate::domain::{Error, Outcome};
use crate::worker::core::Core;
use crate::worker::handle::execute::{begin, end, timed};
use crate::worker::intake::queue::Job;

/// What the workers of a subscription to batches share.
pub(crate) struct Batches {
    handler: Arc<dyn RawBatchHandler>,
    /// One gathers at a time: two would share between them what makes one batch.
    gathering: Mutex<()>,
}

impl Batches {
    pub(crate) fn new(handler: Arc<dyn RawBatchHandler>) -> Self {
        let gathering = Mutex::new(());
        Self { handler, gathering }
    }

    /// The next batch; empty when the queue is closed and empty.
    async fn gather(&self, core: &Core) -> Vec<Job> {
        let (most, wait) = core.options.batch;
        let _turn = self.gathering.lock().await;
        let mut batch = core.queue.next_some(most).await;
        let until = Instant::now() + wait;
        while !batch.is_empty() && batch.len() < most {
            let more = timeout_at(until, core.queue.next_some(most - batch.len())).await;
            match more.unwrap_or_default() {
                none if none.is_empty() => break,
                more => batch.extend(more),
            }
        }
        batch
    }
}

/// Handles batches one after the other until the queue is closed.
pub(crate) async fn run(core: Arc<Core>, batches: Arc<Batches>) {
    loop {
        let batch = batches.gather(&core).await;
        let taken = batch.len();
        if taken == 0 {
            return;
        }
        // As for single deliveries: after a stop nothing is begun.
        if !core.stop.is_cancelled() {
            execute(&core, &*batches.handler, batch).await;
        }
        for _ in 0..taken {
            core.room.give();
        }
    }
}

async fn execute(core: &Core, handler: &dyn RawBatchHandler, batch: Vec<Job>) {
    let mut begun = Vec::with_capacity(batch.len());
    for job in batch {
        if !job.lease.is_cancelled() {
            begun.extend(begin(core, job).await);
        }
    }
    if begun.is_empty() {
        return;
    }
    let span = tracing::info_span!(
        "handle_batch",
        topic = %core.member.topic,
        group = %core.member.group,
        messages = begun.len(),
    );
    let deliveries = begun.iter().map(|one| one.delivery()).collect();
    let handling = async { handler.handle(deliveries).await };
    let results = match timed(core, handling.instrument(span)).await {
        Ok(results) if results.len() == begun.len() => results,
        Ok(results) => {
            let error = format!("{} results for {} messages", results.len(), begun.len());
            all_failed(begun.len(), &error)
        }
        Err(panic) => all_failed(begun.len(), &panic),
    };
    for (begun, result) in begun.into_iter().zip(results) {
        end(core, begun, result).await;
    }
}

/// Every message of a batch has failed alike.
fn all_failed(count: usize, error: &str) -> Vec<Result<Outcome, Error>> {
    (0..count).map(|_| Ok(Outcome::retry(error))).collect()
}
