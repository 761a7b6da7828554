//! The fetcher reads as many deliveries as the capacity allows; one reader for each track.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use crate::api::propagator::{Operation, OperationKind};
use crate::api::traces;
use crate::domain::{Error, ErrorKind, describe};
use crate::store::{Fetched, Interrupt, Opened, Reader};
use crate::worker::core::Core;
use crate::worker::fault::back_off;
use crate::worker::intake::catch_up::{catch_up, recreate};
use crate::worker::intake::policy::POLICY;
use crate::worker::intake::slots::free_slots;
use crate::worker::tracks::Track;

/// How long a read waits on the server. A silently dead connection is noticed after this plus the
/// adapter's grace.
const WAIT: Duration = Duration::from_secs(5);
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
/// A read that has waited for this long worked until then.
const IDLE: Duration = Duration::from_millis(100);
/// How often a stop interrupts a read that has not returned.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(50);
/// Reads until the subscription stops.
///
/// Without a reader an earlier fetcher has panicked, and the answer of its last read is lost.
pub(crate) async fn run(core: Arc<Core>, track: Arc<Track>, mut opened: Option<Opened>) {
    let track = &*track;
    if opened.is_none() {
        track.unseen.note();
    }
    let mut failures = 0;
    // Released and expired deliveries are older than any new one, so they come first.
    let mut behind = true;
    let mut gathers = false;
    while free_slots(&core, track, &mut behind).await {
        let (mut reader, interrupt) = match opened.take() {
            Some(opened) => opened,
            None => match reopen(&core, track).await {
                Ok(opened) => opened,
                Err(error) => {
                    failures += 1;
                    pause(&core, track, &error, failures).await;
                    continue;
                }
            },
        };
        // Only between two reads: the store assigns a delivery to this consumer before the read
        // returns it, and recovery would mistake it for an unseen one.
        if behind || track.unseen.may_exist() {
            behind = match catch_up(&core, track).await {
                Ok(()) => false,
                Err(error) => {
                    failures += 1;
                    pause(&core, track, &error, failures).await;
                    true
                }
            };
            opened = Some((reader, interrupt));
            continue;
        }
        if !until_ready(&core, track, &mut *reader, gathers).await {
            opened = Some((reader, interrupt));
            continue;
        }
        // Only now: meanwhile handlers have finished, and other tracks have read. Without a read the
        // ring stays.
        let Some(free) = core.capacity.worth_reading() else {
            opened = Some((reader, interrupt));
            continue;
        };
        // The store applies the limit to the log and to the redelivery stream.
        let max = core.weight.limit((free / 2 / core.tracks.count()).max(1));
        let (sent, began) = (Instant::now(), track.stir.now());
        match read(&core, &mut *reader, &*interrupt, max).await {
            Ok(fetched) => {
                failures = 0;
                if track.faults.reading.is_set() {
                    track.faults.reading.clear();
                    tracing::info!(subscription = %track.member, "reading again");
                }
                core.weight.note(&fetched, sent.elapsed());
                if fetched.is_empty() {
                    track.stir.note_nothing_read(began);
                }
                let count = fetched.len();
                core.accept_all(fetched, sent);
                core.capacity.adapt(Instant::now());
                // With slow handlers the reclaimer finds no free slot.
                behind = core.capacity.is_slow();
                gathers = core.capacity.should_gather_after_ring(gathers, count, max)
                    && reader.ready().is_some();
                if !gathers && core.capacity.should_gather(count, max) {
                    sleep(POLICY.gather_for).await;
                }
                opened = Some((reader, interrupt));
            }
            Err(error) if ended_while_idle(&error, sent.elapsed()) => {
                track.faults.reading.clear();
                track.unseen.note();
                tracing::debug!(subscription = %track.member, %error, "the reader's connection has ended");
                failures = 0;
                rest(&core, 1).await;
            }
            Err(error) => {
                failures += 1;
                let group_is_missing = error.kind() == ErrorKind::NotFound;
                pause(&core, track, &error, failures).await;
                if group_is_missing {
                    recreate(&core, track).await;
                    opened = Some((reader, interrupt));
                } else {
                    core.weight.ask_for_less();
                    // The read may have claimed deliveries and its answer been lost.
                    track.unseen.note();
                }
            }
        }
    }
}

/// Waits until a read may find something, where the reader can tell; if it `gathers`, also until more
/// have come. Returns false when something comes before the next read.
async fn until_ready(core: &Core, track: &Track, reader: &mut dyn Reader, gathers: bool) -> bool {
    let Some(ready) = reader.ready() else {
        return true;
    };
    let ready = async {
        ready.await;
        if gathers {
            sleep(POLICY.gather_for).await;
        }
    };
    tokio::select! {
        biased;
        () = core.stop.cancelled() => false,
        () = track.unseen.noted() => false,
        () = ready => true,
    }
}

/// A read waits for half of a short lease only. Then the lease of a delivery, counted from the time
/// when its read began, covers the first extension.
fn wait(lease: Duration) -> Duration {
    WAIT.min(lease / 2).max(SHORTEST_WAIT)
}

/// Reads once, in a span where traces are on.
async fn fetch(core: &Core, reader: &mut dyn Reader, max: usize) -> Result<Vec<Fetched>, Error> {
    let fetching = reader.fetch(max, wait(core.lease.get()));
    let Some(telemetry) = &core.telemetry else {
        return fetching.await;
    };
    let span = traces::receive(telemetry, &core.member);
    let began = Instant::now();
    let result = fetching.instrument(span.clone()).await;
    let count = result.as_ref().map_or(0, Vec::len);
    span.record("messaging.batch.message_count", count);
    let error_type = result.as_ref().err().map(|error| error.kind().as_str());
    if let Some(error_type) = error_type {
        traces::fail(&span, error_type);
    }
    let operation = Operation {
        kind: OperationKind::Receive,
        name: "receive",
        topic: core.member.topic(),
        group: Some(core.member.group()),
        messages: count as u64,
        failed: 0,
        error_type,
        duration: began.elapsed(),
    };
    span.in_scope(|| telemetry.propagator.record(&operation));
    result
}

/// Reads once. A stop interrupts the read instead of dropping its future: deliveries that the
/// server has already assigned would be stuck until their lease ends.
async fn read(
    core: &Core,
    reader: &mut dyn Reader,
    interrupt: &dyn Interrupt,
    max: usize,
) -> Result<Vec<Fetched>, Error> {
    let interrupting = async {
        core.stop.cancelled().await;
        loop {
            // An interrupt that overtakes its read does nothing, so one is not enough.
            let _ = interrupt.interrupt().await;
            sleep(INTERRUPT_AGAIN).await;
        }
    };
    tokio::select! {
        biased;
        fetched = fetch(core, reader, max) => fetched,
        () = interrupting => unreachable!("interrupting never ends"),
    }
}

/// Whether a connection worked and was closed while nothing came: a proxy may close each that is idle
/// for a while. That is not a fault, unless the next one cannot be opened. A reply that does not come in
/// time is another matter.
fn ended_while_idle(error: &Error, after: Duration) -> bool {
    error.is_outcome_unknown() && (IDLE..WAIT).contains(&after)
}

/// Reports the first of several failures in a row, then waits. One lost connection is not a fault
/// yet: the fetcher opens the next.
async fn pause(core: &Core, track: &Track, error: &Error, failures: u32) {
    if failures == 1 && error.is_outcome_unknown() {
        tracing::debug!(subscription = %track.member, %error, "the reader's connection has ended");
        return rest(core, failures).await;
    }
    let is_first = !track.faults.reading.is_set();
    track.faults.reading.set(error);
    if is_first {
        tracing::warn!(
            subscription = %track.member,
            error = %describe(error),
            "reading failed; retrying until it works",
        );
    }
    rest(core, failures).await;
}

async fn rest(core: &Core, failures: u32) {
    tokio::select! {
        () = core.stop.cancelled() => {}
        () = sleep(back_off(failures)) => {}
    }
}

async fn reopen(core: &Core, track: &Track) -> Result<Opened, Error> {
    let opened = core.store.open(&core.opening(track)).await?;
    core.meters.reconnects.increment(1);
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::sync::watch;

    use super::*;
    use crate::api::SubscribeOptions;
    use crate::domain::BoxFuture;
    use crate::store::{Commit, Opening};
    use crate::worker::fixture::{Fixture, queued, within};
    use crate::worker::script::Failure;

    async fn running(fixture: &Fixture, core: &Arc<Core>) -> tokio::task::JoinHandle<()> {
        let opened = fixture
            .store
            .open(&Opening::of(&core.member))
            .await
            .unwrap();
        let track = Arc::clone(core.tracks.first());
        tokio::spawn(run(Arc::clone(core), track, Some(opened)))
    }

    /// A reader that always hears of messages.
    #[derive(Debug)]
    struct Rung;

    impl Reader for Rung {
        fn fetch(&mut self, _: usize, _: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn ready(&mut self) -> Option<BoxFuture<'_, ()>> {
            Some(Box::pin(async {}))
        }
    }

    #[tokio::test]
    async fn the_rest_of_a_burst_is_waited_for_until_a_stop() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        let track = core.tracks.first();
        let began = Instant::now();
        assert!(until_ready(&core, track, &mut Rung, true).await);
        assert!(began.elapsed() >= POLICY.gather_for);
        core.stop.cancel();
        assert!(!until_ready(&core, track, &mut Rung, true).await);
    }

    /// A reader that is told of messages and finds none. Says when it waits and for how many it is asked.
    #[derive(Debug)]
    struct Scripted {
        rings: watch::Receiver<usize>,
        reads: usize,
        waits: UnboundedSender<()>,
        asked: UnboundedSender<usize>,
    }

    impl Reader for Scripted {
        fn fetch(&mut self, max: usize, _: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
            self.reads += 1;
            self.asked.send(max).unwrap();
            Box::pin(async { Ok(Vec::new()) })
        }

        fn ready(&mut self) -> Option<BoxFuture<'_, ()>> {
            Some(Box::pin(async {
                self.waits.send(()).unwrap();
                let reads = self.reads;
                self.rings.wait_for(|rings| *rings > reads).await.unwrap();
            }))
        }
    }

    #[derive(Debug)]
    struct NoInterrupt;

    impl Interrupt for NoInterrupt {
        fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn a_read_asks_for_the_slots_that_are_free_after_the_ring() {
        let fixture = Fixture::new().await;
        let options = SubscribeOptions::new().with_concurrency(8).with_prefetch(8);
        let (core, _settlements) = fixture.core(options);
        let (ring, rings) = watch::channel(0);
        let (waits, mut waiting) = unbounded_channel();
        let (asked, mut asks) = unbounded_channel();
        let reader = Scripted {
            rings,
            reads: 0,
            waits,
            asked,
        };
        let opened: Opened = (Box::new(reader), Box::new(NoInterrupt));
        let track = Arc::clone(core.tracks.first());
        let running = tokio::spawn(run(Arc::clone(&core), track, Some(opened)));

        within(waiting.recv()).await;
        core.capacity.occupy(8);
        ring.send_modify(|rings| *rings += 1);
        assert_eq!(within(asks.recv()).await, Some(4), "half of eight slots");

        within(waiting.recv()).await;
        drop(core.capacity.slots(8));
        ring.send_modify(|rings| *rings += 1);
        assert_eq!(within(asks.recv()).await, Some(8), "handlers have finished");

        within(waiting.recv()).await;
        core.capacity.occupy(15);
        ring.send_modify(|rings| *rings += 1);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(asks.try_recv().is_err(), "one slot is not worth a read");
        drop(core.capacity.slots(15));
        assert_eq!(within(asks.recv()).await, Some(8), "the ring still counts");
        running.abort();
    }

    #[tokio::test]
    async fn deliveries_of_a_lost_read_come_back_at_once() {
        let fixture = Fixture::new().await;
        fixture.publish(1).await;
        fixture.script.fail("fetch", Failure::ReplyLost);
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        let running = running(&fixture, &core).await;
        let id = queued(&core).await;
        assert_eq!(fixture.pending().await, [id]);
        running.abort();
    }

    #[tokio::test]
    async fn released_deliveries_come_before_newer_entries() {
        let fixture = Fixture::new().await;
        let released = fixture.fetch(1).await[0].receipt;
        fixture.commit(Commit::release(released)).await;
        fixture.publish(1).await;
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        let running = running(&fixture, &core).await;
        assert_eq!(queued(&core).await, released);
        assert!(queued(&core).await > released);
        running.abort();
    }
}
