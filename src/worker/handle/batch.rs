//! Runs the pipeline for batches: gather, begin each, call once, end each.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use crate::api::handler::RawBatchHandler;
use crate::domain::Outcome;
use crate::worker::core::Core;
use crate::worker::handle::begin::{Begun, begin};
use crate::worker::handle::call::call_batch;
use crate::worker::handle::in_hand::InHand;
use crate::worker::handle::pipeline::{end, enter, give_back, leave, prepare};
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
        match enter(core).await {
            Some(turn) => handle_part(core, handler, part, turn).await,
            None => leave(core, part).await,
        }
    }
}

/// Begins, calls and ends the deliveries of one call. Drops its turn at the gate when the handler has returned.
pub(super) async fn handle_part<T>(
    core: &Core,
    handler: &dyn RawBatchHandler,
    part: Vec<Begun>,
    turn: T,
) {
    // An earlier part may have taken long.
    if core.stop.is_cancelled() {
        return leave(core, part).await;
    }
    let part = match begin(core, part).await {
        Ok(part) if part.is_empty() => return,
        Ok(part) => part,
        Err(stopped) => return leave(core, stopped).await,
    };
    part.iter().for_each(|one| one.record_queue_time(core));
    let deliveries = part.iter().map(|one| one.delivery.clone()).collect();
    let (outcomes, span) = call_batch(core, handler, deliveries).await;
    part.iter().for_each(|one| one.lease.end_call());
    drop(turn);
    let mut committing = Vec::new();
    for (begun, outcome) in part.into_iter().zip(outcomes) {
        match outcome {
            Outcome::Commit(effects) => {
                committing.push(begun.commit_in_batch(core, effects, &span));
            }
            // The span of a batch has no outcome: its messages may end in different ways.
            outcome => end(core, begun, outcome, Span::none()).await,
        }
    }
    join_all(committing).await;
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
    use std::sync::Mutex as StdMutex;

    use super::*;
    use crate::api::{Batch, IntoRouter, Message, Router, SubscribeOptions, Work};
    use crate::domain::{IntoOutcomes, Outcome};
    use crate::store::{End, Fetched};
    use crate::worker::core::Settlements;
    use crate::worker::fixture::{Fixture, current, hand_out, lose};

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

    #[derive(serde::Deserialize)]
    struct Number(u32);

    impl Message for Number {
        const TYPE: &'static str = "order.placed";
    }

    /// The numbers of the messages in each call.
    type Calls = Arc<StdMutex<Vec<Vec<u32>>>>;

    /// A batch handler that records its calls, does something in each, and returns a value.
    fn recording<T>(act: impl Fn() + Send + Sync + 'static, value: T) -> (Arc<Batches>, Calls)
    where
        T: IntoOutcomes + Clone + Send + Sync + 'static,
    {
        let calls = Calls::default();
        let record = Arc::clone(&calls);
        let router = Router::new().on_batch(move |batch: Batch<Number>| {
            let numbers = batch.messages().iter().map(|number| number.0).collect();
            record.lock().unwrap().push(numbers);
            act();
            let value = value.clone();
            async { value }
        });
        match router.into_work(None).unwrap() {
            Work::Batches(handler) => (Arc::new(Batches::new(handler)), calls),
            Work::Each(_) => panic!("a handler of single messages"),
        }
    }

    /// A subscription that holds one message for each number in `crashes`; that many attempts at the
    /// message began before.
    async fn holding(fixture: &Fixture, crashes: &[u32]) -> (Arc<Core>, Settlements, Vec<Fetched>) {
        let mut fetched = fixture.fetch(crashes.len()).await;
        for (one, crashes) in fetched.iter_mut().zip(crashes) {
            one.attempts.begun = *crashes;
        }
        let options = SubscribeOptions::new().with_batch(10, Duration::ZERO);
        let (core, settlements) = fixture.core(options);
        hand_out(&core, &fetched, false);
        core.queue.close();
        (core, settlements, fetched)
    }

    #[tokio::test]
    async fn a_batch_begins_without_the_deliveries_that_were_lost_in_the_queue() {
        let fixture = Fixture::new().await;
        let (core, _settlements, fetched) = holding(&fixture, &[0, 0, 0]).await;
        lose(&core, fetched[1].receipt);
        let (batches, calls) = recording(|| {}, ());
        run(core, batches).await;
        assert_eq!(*calls.lock().unwrap(), [[0, 2]]);
    }

    #[tokio::test]
    async fn no_batch_begins_after_a_stop() {
        let fixture = Fixture::new().await;
        let (core, _settlements, _) = holding(&fixture, &[0, 0]).await;
        core.stop.cancel();
        core.only_copies_known.cancel();
        let (batches, calls) = recording(|| {}, ());
        run(core, batches).await;
        assert!(calls.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_only_copy_beside_an_attempt_that_is_marked_comes_back_after_a_stop() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        let options = SubscribeOptions::new().with_batch(10, Duration::ZERO);
        let (core, mut settlements) = fixture.core(options);
        hand_out(&core, &fetched[..1], true);
        hand_out(&core, &fetched[1..], false);
        core.queue.close();
        let only_copy = current(&core, fetched[1].receipt);
        assert!(core.in_flight.keep_only_copy(only_copy));
        let stop = core.stop.clone();
        fixture.script.on("deliveries.begin", move || stop.cancel());
        core.only_copies_known.cancel();
        let (batches, calls) = recording(|| {}, ());
        run(core, batches).await;
        assert!(calls.lock().unwrap().is_empty());
        let write = settlements.writes.try_recv().unwrap();
        assert_eq!(write.commit.delivery(), only_copy.id);
        assert!(matches!(write.commit.end(), End::Reschedule { .. }));
        assert!(settlements.writes.try_recv().is_err());
    }

    #[tokio::test]
    async fn messages_with_different_numbers_of_failed_attempts_share_no_call() {
        let fixture = Fixture::new().await;
        let (core, _settlements, _) = holding(&fixture, &[0, 1, 0]).await;
        let (batches, calls) = recording(|| {}, ());
        run(core, batches).await;
        assert_eq!(*calls.lock().unwrap(), [vec![0, 2], vec![1]]);
    }

    #[tokio::test]
    async fn no_further_part_of_a_batch_begins_after_a_stop() {
        let fixture = Fixture::new().await;
        let (core, _settlements, _) = holding(&fixture, &[0, 1]).await;
        core.only_copies_known.cancel();
        let stop = core.stop.clone();
        let (batches, calls) = recording(move || stop.cancel(), ());
        run(core, batches).await;
        assert_eq!(*calls.lock().unwrap(), [[0]]);
    }

    #[tokio::test]
    async fn a_part_begins_without_the_deliveries_that_were_lost_while_it_waited() {
        let fixture = Fixture::new().await;
        let (core, _settlements, fetched) = holding(&fixture, &[0, 1, 1]).await;
        let (losing, id) = (Arc::clone(&core), fetched[1].receipt);
        // The first part takes long, and the second one loses a lease meanwhile.
        let act = move || {
            if losing.in_flight.contains(id) {
                lose(&losing, id);
            }
        };
        let (batches, calls) = recording(act, ());
        run(core, batches).await;
        assert_eq!(*calls.lock().unwrap(), [[0], [2]]);
    }

    #[tokio::test]
    async fn a_cancelled_batch_handler_acknowledges_only_by_saying_so() {
        let fixture = Fixture::new().await;
        let (core, settlements, _) = holding(&fixture, &[0, 0]).await;
        let cancelling = Arc::clone(&core);
        let (batches, _) = recording(move || cancelling.in_flight.cancel_all(), ());
        run(Arc::clone(&core), batches).await;
        assert_eq!(settlements.acks.len(), 0);
        assert_eq!(
            core.in_flight.unfinished(),
            2,
            "the shutdown gives them back"
        );

        let (core, settlements, _) = holding(&fixture, &[0, 0]).await;
        let cancelling = Arc::clone(&core);
        let act = move || cancelling.in_flight.cancel_all();
        run(core, recording(act, Outcome::Ack).0).await;
        assert_eq!(settlements.acks.len(), 2);
    }
}
