//! Notes failures in the store, and gives held-back messages back at a shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use crate::store::{Begin, MAX_BATCH};
use crate::worker::core::Core;
use crate::worker::fault::back_off;
use crate::worker::handle::pipeline::give_back_message;
use crate::worker::hold_back::waiting::Note;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::policy::POLICY;
use crate::worker::intake::queue::Queued;
use crate::worker::settle::{BETWEEN_WRITES, SMALL_WRITE, Settler};

/// The failures that a noter works on. They outlive a noter that panics: the next one notes them
/// again, which changes nothing.
pub(crate) struct Notes {
    queue: mpsc::Receiver<Note>,
    received: Vec<Note>,
}

impl Notes {
    pub(crate) fn new(queue: mpsc::Receiver<Note>) -> Arc<Mutex<Self>> {
        let received = Vec::new();
        Arc::new(Mutex::new(Self { queue, received }))
    }

    fn receive_more(&mut self) {
        while self.received.len() < MAX_BATCH
            && let Ok(one) = self.queue.try_recv()
        {
            self.received.push(one);
        }
    }
}

/// Notes failures. Once the subscription stops, gives all messages back to their group instead, each
/// with the rest of its delay.
pub(crate) async fn run(core: Arc<Core>, settler: Settler, notes: Arc<Mutex<Notes>>) {
    let notes = &mut *notes.lock().await;
    let mut next = Instant::now();
    loop {
        if notes.received.is_empty() {
            tokio::select! {
                biased;
                () = core.stop.cancelled(), if !core.hold_back.is_closed() => {}
                count = notes.queue.recv_many(&mut notes.received, MAX_BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
            }
        }
        if notes.received.len() < SMALL_WRITE {
            tokio::select! {
                biased;
                () = core.stop.cancelled() => {}
                () = sleep_until(next) => {}
            }
            notes.receive_more();
        }
        next = Instant::now() + BETWEEN_WRITES;
        if !core.stop.is_cancelled() {
            note(&core, &settler, &mut notes.received).await;
        }
        if core.stop.is_cancelled() {
            give_all_back(&core, &mut notes.received).await;
        }
        if notes.received.is_empty() && notes.received.capacity() > POLICY.keep_memory_for {
            notes.received = Vec::new();
        }
    }
}

/// Notes failures in one call, and lets their messages wait. Leaves them where the subscription stops.
async fn note(core: &Core, settler: &Settler, received: &mut Vec<Note>) {
    core.in_flight.retain_current(received, Note::hand_out);
    if received.is_empty() {
        return;
    }
    core.meters.settle_batch.record(received.len() as f64);
    let begins: Vec<Begin> = received.iter().map(|note| note.begin).collect();
    let mut failures = 0;
    let holders = loop {
        let noting = core.store.deliveries().begin(&core.member, &begins);
        let noted = tokio::select! {
            biased;
            noted = settler.traced("retry", begins.len(), noting) => noted,
            // A note that arrives later finds that the consumer no longer holds the delivery.
            () = core.stop.cancelled() => return,
        };
        match noted {
            Ok(holders) => break holders,
            Err(error) => {
                failures += 1;
                settler.fault.set(&error);
                tracing::debug!(subscription = %core.member, %error, "failures could not be noted");
                tokio::select! {
                    biased;
                    () = core.stop.cancelled() => return,
                    () = sleep(back_off(failures)) => {}
                }
            }
        }
    };
    if failures > 0 {
        settler.fault.clear();
    }
    let hand_outs: Vec<HandOut> = received.iter().map(Note::hand_out).collect();
    let counted = received.iter().filter(|note| note.counts_next);
    counted.for_each(|note| note.message.lease.mark());
    core.note_holders(&hand_outs, &holders);
    for note in received.drain(..) {
        // Another consumer has the others.
        if !note.message.lease.is_cancelled()
            && let Err(message) = core.hold_back.insert(note.due, note.message)
        {
            give_back(core, message, core.hold_back.left(note.due)).await;
        }
    }
}

/// Gives all messages back that wait, or that have failed since.
async fn give_all_back(core: &Core, received: &mut Vec<Note>) {
    for (due, message) in core.hold_back.close() {
        give_back(core, message, core.hold_back.left(due)).await;
    }
    for note in received.drain(..) {
        give_back(core, note.message, core.hold_back.left(note.due)).await;
    }
}

async fn give_back(core: &Core, message: Queued, delay: Duration) {
    if !message.lease.is_cancelled() {
        give_back_message(core, message, delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::api::SubscribeOptions;
    use crate::domain::{Outcome, RetryPolicy};
    use crate::store::{Attempts, DeliveryId, End, Fetched, ReclaimCursor, Unmarked};
    use crate::worker::core::{SettledCount, Settlements};
    use crate::worker::fixture::{Calls, Fixture, all, hand_out, handler, lose, other};
    use crate::worker::handle::pipeline;
    use crate::worker::hold_back::timer;
    use crate::worker::script::Failure;

    const BEGIN: &str = "deliveries.begin";
    const MINUTE: Duration = Duration::from_secs(60);

    fn failing(delay: Duration, attempts: u32) -> SubscribeOptions {
        let retry = RetryPolicy::fixed(delay).with_max_attempts(attempts);
        SubscribeOptions::new()
            .with_hold_back(MINUTE)
            .with_retry(retry)
    }

    /// A running subscription without settlers, whose handler fails.
    struct Running {
        core: Arc<Core>,
        calls: Calls,
        settlements: Settlements,
        fetched: Vec<Fetched>,
        noter: tokio::task::JoinHandle<()>,
        notes: Arc<Mutex<Notes>>,
    }

    impl Running {
        async fn start(fixture: &Fixture, options: SubscribeOptions, count: usize) -> Self {
            let fetched = fixture.fetch(count).await;
            let (core, mut settlements) = fixture.core(options);
            hand_out(&core, &fetched, false);
            fixture.script.calls();
            let (handler, calls) = handler(Outcome::retry("disk full"));
            let (_, none) = mpsc::channel(1);
            let notes = std::mem::replace(&mut settlements.notes, none);
            let settler = Settler::new(&core, &core.faults.noting, &SettledCount::default());
            tokio::spawn(pipeline::run(Arc::clone(&core), handler));
            let notes = Notes::new(notes);
            let noter = tokio::spawn(run(Arc::clone(&core), settler, Arc::clone(&notes)));
            tokio::spawn(timer::run(Arc::clone(&core)));
            Self {
                core,
                calls,
                settlements,
                fetched,
                noter,
                notes,
            }
        }

        fn id(&self) -> DeliveryId {
            self.fetched[0].receipt
        }

        /// The attempts at the first message, once it has been tried so often.
        async fn called(&mut self, times: u32) {
            for attempt in 1..=times {
                assert_eq!(self.calls.recv().await, Some((0, attempt)));
            }
        }

        /// Waits until all failed messages are noted and wait.
        async fn noted(&self, count: usize) {
            let waiting = async || self.core.hold_back.waits() == count;
            Fixture::until("the failures to be noted", waiting).await;
        }
    }

    /// The attempts that the store tells the next owner.
    async fn attempts(fixture: &Fixture) -> Vec<(u32, u32)> {
        let (deliveries, cursor) = (fixture.store.deliveries(), ReclaimCursor::default());
        let (other, zero) = (other(), Duration::ZERO);
        let claimed = deliveries.claim_expired(&other, zero, Unmarked::Begun, cursor, 9);
        let taken = claimed.await.unwrap().taken.into_iter();
        let attempts = taken.map(|one| one.attempts);
        attempts.map(|one| (one.begun, one.failed)).collect()
    }

    #[tokio::test]
    async fn a_failure_is_noted_and_counts_the_next_attempt_unless_that_is_the_last() {
        for (most, told) in [(5, (2, 1)), (2, (1, 1))] {
            let fixture = Fixture::new().await;
            let mut running = Running::start(&fixture, failing(MINUTE, most), 1).await;
            running.called(1).await;
            running.noted(1).await;
            assert_eq!(fixture.script.calls(), [BEGIN], "of {most} attempts");
            assert_eq!(attempts(&fixture).await, [told], "of {most} attempts");
        }
    }

    #[tokio::test]
    async fn the_noter_gives_the_memory_of_a_burst_back() {
        let fixture = Fixture::new().await;
        let running = Running::start(&fixture, failing(MINUTE, 5), 100).await;
        running.noted(100).await;
        running.noter.abort();
        let memory = running.notes.lock().await.received.capacity();
        assert!(memory <= POLICY.keep_memory_for, "{memory}");
    }

    #[tokio::test]
    async fn each_attempt_costs_one_call_and_the_last_a_mark_of_its_own() {
        let fixture = Fixture::new().await;
        let mut running = Running::start(&fixture, failing(Duration::ZERO, 4), 1).await;
        running.called(4).await;
        let dead = running.settlements.writes.recv().await.unwrap();
        assert!(matches!(dead.commit.end(), End::DeadLetter(_)));
        assert_eq!(fixture.script.calls(), [BEGIN; 4]);
        assert_eq!(attempts(&fixture).await, [(4, 3)]);
        assert_eq!(running.core.hold_back.messages(), 0);
    }

    #[tokio::test]
    async fn a_message_runs_again_only_once_its_failure_is_noted() {
        let fixture = Fixture::new().await;
        fixture.script.fail(BEGIN, Failure::NotDone);
        fixture.script.fail(BEGIN, Failure::ReplyLost);
        let mut running = Running::start(&fixture, failing(Duration::ZERO, 3), 1).await;
        running.called(2).await;
        let calls = fixture.script.calls();
        assert_eq!(calls[..3], [BEGIN; 3]);
        assert_eq!(running.core.faults.problem(), None);
    }

    #[tokio::test]
    async fn a_message_that_another_consumer_has_taken_over_takes_no_room() {
        let fixture = Fixture::new().await;
        let mut running = Running::start(&fixture, failing(MINUTE, 5), 1).await;
        running.called(1).await;
        running.noted(1).await;
        // No worker looks at the queue.
        running.core.queue.close();
        lose(&running.core, running.id());
        fixture.clock.advance(MINUTE);
        let dropped = async || running.core.hold_back.waits() == 0;
        Fixture::until("the message to be dropped", dropped).await;
        assert!(running.core.queue.next().await.is_none());
        assert_eq!(running.settlements.writes.len(), 0);
    }

    #[tokio::test]
    async fn a_message_of_another_consumer_is_not_noted() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, _settlements) = fixture.core(failing(MINUTE, 5));
        hand_out(&core, &fetched, false);
        let id = fetched[0].receipt;
        let begins = [Begin {
            delivery: id,
            attempts: Attempts {
                begun: 2,
                failed: 1,
            },
        }];
        fixture.take_over(id).await;
        let holders = fixture
            .store
            .deliveries()
            .begin(&core.member, &begins)
            .await;
        assert_eq!(holders.unwrap(), [crate::store::Holder::Other]);
        assert_eq!(attempts(&fixture).await, [(0, 0)]);
    }

    #[test]
    fn a_message_that_is_due_at_a_stop_leaves_the_thread_to_others() {
        let (ended, told) = std::sync::mpsc::channel();
        // A thread of its own: a task that never yields would keep the test's thread.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let fixture = Fixture::new().await;
                let mut running = Running::start(&fixture, failing(MINUTE, 5), 1).await;
                running.called(1).await;
                running.noted(1).await;
                running.core.stop.cancel();
                fixture.clock.advance(MINUTE);
                timer::run(Arc::clone(&running.core)).await;
                let _ = ended.send(());
            });
        });
        let wait = Duration::from_secs(20);
        told.recv_timeout(wait).expect("the timer ends at a stop");
    }

    #[tokio::test]
    async fn the_delay_goes_by_the_stores_clock() {
        let fixture = Fixture::new().await;
        let mut running = Running::start(&fixture, failing(MINUTE, 5), 1).await;
        running.called(1).await;
        running.noted(1).await;
        fixture.clock.advance(MINUTE - Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(all(&mut running.calls), [], "a millisecond early");
        fixture.clock.advance(Duration::from_millis(1));
        assert_eq!(running.calls.recv().await, Some((0, 2)));
    }

    #[tokio::test]
    async fn a_stop_gives_everything_back_with_the_rest_of_its_delay() {
        let fixture = Fixture::new().await;
        let mut running = Running::start(&fixture, failing(MINUTE, 5), 2).await;
        running.called(1).await;
        running.noted(2).await;
        fixture.clock.advance(MINUTE / 3);
        running.core.stop.cancel();
        for _ in 0..2 {
            let write = running.settlements.writes.recv().await.unwrap();
            let End::Reschedule { delay, .. } = write.commit.end() else {
                panic!("{write:?}");
            };
            assert_eq!(*delay, MINUTE * 2 / 3);
        }
        assert_eq!(running.core.hold_back.messages(), 0);
    }

    #[tokio::test]
    async fn a_lost_attempt_cannot_note_for_the_one_after_it() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, _settlements) = fixture.core(failing(MINUTE, 5));
        hand_out(&core, &fetched, false);
        let first = crate::worker::fixture::current(&core, fetched[0].receipt);
        let next = core.in_flight.keep(first, Attempts::from(1)).unwrap();
        assert!(core.in_flight.keep(first, Attempts::from(1)).is_none());
        assert!(
            !core.in_flight.may_commit(first),
            "its checkpoints are over"
        );
        let next = HandOut {
            token: next.token(),
            ..first
        };
        assert!(core.in_flight.may_commit(next));
    }
}
