//! Settling in batches: each batch holds the deliveries that ended while the last one was under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument as _;

use crate::api::propagator::{Operation, OperationKind, Telemetry};
use crate::api::supervise::log;
use crate::api::traces;
use crate::bus::Due;
use crate::domain::{Error, describe};
use crate::store::{Commit, Commits, DeliveryId, End, Fate, MAX_BATCH, Member, Replies, Store};
use crate::worker::core::{Core, SettledCount, Write};
use crate::worker::fault::{Fault, back_off};
use crate::worker::intake::in_flight::{HandOut, InFlight};
use crate::worker::intake::lease::GroupLease;
use crate::worker::intake::policy::POLICY;
use crate::worker::meters::Meters;

/// The least time between two small writes: a call of the script costs as much as ten more
/// settlements in it, and more on a busy server.
pub(crate) const BETWEEN_WRITES: Duration = Duration::from_millis(5);
/// A write with fewer settlements is small.
pub(crate) const SMALL_WRITE: usize = 64;
/// What the span of settlements is called that end in different ways.
const MIXED: &str = "settle";

/// Tells the store how deliveries ended, and removes them from the in-flight table.
///
/// Two of them run, one for acknowledgements and one for writes, because a server whose memory is
/// full still acknowledges.
#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) lease: Arc<GroupLease>,
    pub(crate) settled: SettledCount,
    pub(crate) fault: Fault,
}

/// The batch that a settler works on. It outlives a settler that panics: the next one commits the
/// batch again, which changes nothing about the commits that are done.
pub(crate) struct Batch<T> {
    queue: mpsc::Receiver<T>,
    received: Vec<T>,
    commits: Commits,
    /// The hand-outs that `commits` end.
    hand_outs: Vec<HandOut>,
    /// How all of `commits` end, or [`MIXED`].
    name: &'static str,
}

impl<T> Batch<T> {
    pub(crate) fn new(queue: mpsc::Receiver<T>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            queue,
            received: Vec::new(),
            commits: Commits::default(),
            hand_outs: Vec::new(),
            name: MIXED,
        }))
    }

    /// Waits for commits, unless an earlier settler has left some. False once every worker has
    /// ended.
    async fn receive(&mut self) -> bool {
        let left = !self.received.is_empty() || !self.commits.is_empty();
        left || self.queue.recv_many(&mut self.received, MAX_BATCH).await > 0
    }

    fn receive_more(&mut self) {
        while self.received.len() < MAX_BATCH
            && let Ok(one) = self.queue.try_recv()
        {
            self.received.push(one);
        }
    }

    /// Ends the batch. Frees the memory of a burst if nothing more waits.
    fn end(&mut self) {
        self.commits.clear();
        let nothing_waits = self.received.is_empty() && self.queue.is_empty();
        if nothing_waits && self.received.capacity() > POLICY.keep_memory_for {
            self.received = Vec::new();
            self.hand_outs = Vec::new();
            self.commits = Commits::default();
        }
    }
}

impl Settler {
    /// A settler of a subscription, which reports its errors as a fault.
    pub(crate) fn new(core: &Core, fault: &Fault, settled: &SettledCount) -> Self {
        Self {
            store: Arc::clone(&core.store),
            member: Arc::clone(&core.member),
            telemetry: core.telemetry.clone(),
            in_flight: Arc::clone(&core.in_flight),
            meters: Arc::clone(&core.meters),
            lease: Arc::clone(&core.lease),
            settled: Arc::clone(settled),
            fault: fault.clone(),
        }
    }

    /// Acknowledges until every worker has ended.
    ///
    /// Drops the acknowledgement of an entry that was handed to this process again: the current
    /// hand-out decides. An acknowledgement of an entry that another consumer holds is sent,
    /// because the work is done.
    pub(crate) async fn acknowledge(self, batch: Arc<Mutex<Batch<HandOut>>>) {
        let batch = &mut *batch.lock().await;
        while batch.receive().await {
            if batch.commits.is_empty() {
                self.in_flight.retain_not_replaced(&mut batch.received);
                let ids = batch.received.iter().map(|hand_out| hand_out.id);
                batch.commits.acks_mut().extend(ids);
                batch.hand_outs.append(&mut batch.received);
            }
            self.commit(&mut batch.commits, &mut batch.hand_outs, "ack")
                .await;
            self.finish(&mut batch.hand_outs);
            let count = batch.commits.len() as u64;
            batch.end();
            self.meters.acknowledged.increment(count);
        }
    }

    /// Writes retries, snoozes and dead letters until every worker has ended.
    ///
    /// Repeating after an unknown outcome is safe: the store no longer counts a settled delivery as
    /// this consumer's and writes nothing for it.
    pub(crate) async fn write(self, batch: Arc<Mutex<Batch<Write>>>, due: Arc<Due>) {
        let batch = &mut *batch.lock().await;
        let mut next = Instant::now();
        while batch.receive().await {
            if batch.commits.is_empty() {
                if batch.received.len() < SMALL_WRITE {
                    sleep_until(next).await;
                    batch.receive_more();
                }
                // A lease may have been lost while its commit waited for the batch before it.
                self.in_flight
                    .retain_current(&mut batch.received, Write::hand_out);
                let hand_outs = batch.received.iter().map(Write::hand_out);
                batch.hand_outs.extend(hand_outs);
                batch.name = common_name(&batch.received);
                let commits = batch.received.drain(..).map(|write| write.commit);
                batch.commits.extend(commits);
            }
            next = Instant::now() + BETWEEN_WRITES;
            let committing = self.commit(&mut batch.commits, &mut batch.hand_outs, batch.name);
            let (fates, failures) = committing.await;
            // After a failure, `NotHeld` can also mean that an earlier try has settled it.
            if failures == 0 {
                self.settle_from_memory(&batch.commits, &batch.hand_outs, &fates)
                    .await;
            }
            let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
            if let Some(soonest) = soonest_retry(batch.commits.fenced()) {
                due.set(soonest);
            }
            self.finish(&mut batch.hand_outs);
            batch.end();
            if lost > 0 {
                self.meters.leases_lost.increment(lost as u64);
            }
        }
    }

    /// Settles again what nobody holds although the leases of this process cannot have expired:
    /// something other than Redstart removed the records.
    async fn settle_from_memory(&self, batch: &Commits, hand_outs: &[HandOut], fates: &[Fate]) {
        if !fates.contains(&Fate::NotHeld) {
            return;
        }
        let (now, lease) = (Instant::now(), self.lease.get());
        let mut count = 0;
        let all = batch.fenced().iter().zip(hand_outs).zip(fates);
        let mut removed: Commits = all
            .filter(|((commit, hand_out), fate)| {
                **fate == Fate::NotHeld
                    && !commit.is_of_only_copy()
                    && self.in_flight.is_leased(**hand_out, lease, now)
            })
            .inspect(|((_, hand_out), _)| {
                count += u64::from(self.in_flight.shows_removal(**hand_out));
            })
            .map(|((commit, _), _)| commit.clone().of_only_copy())
            .collect();
        if count > 0 {
            self.meters.lost_entries.increment(count);
            log(|| {
                tracing::error!(
                    subscription = %self.member,
                    removed = count,
                    "something other than Redstart removed entries or the consumer; writing their endings from memory",
                );
            });
        }
        if !removed.is_empty() {
            let _ = self.commit(&mut removed, &mut Vec::new(), MIXED).await;
        }
    }

    /// Repeats a batch until the store has answered every commit. Leaves out entries that are handed to this
    /// process again meanwhile: the current hand-out decides. Returns the fates of the fenced commits, and
    /// how many tries failed.
    async fn commit(
        &self,
        batch: &mut Commits,
        hand_outs: &mut Vec<HandOut>,
        name: &'static str,
    ) -> (Vec<Fate>, u32) {
        self.meters.settle_batch.record(batch.len() as f64);
        let mut failures = 0;
        loop {
            if failures > 0 {
                self.leave_out_replaced(batch, hand_outs);
                if batch.is_empty() {
                    self.fault.clear();
                    return (Vec::new(), failures);
                }
            }
            match self.try_commit(batch, name).await {
                Ok(fates) => {
                    if failures > 0 {
                        self.fault.clear();
                    }
                    return (fates, failures);
                }
                Err(error) => {
                    failures += 1;
                    self.pause(&error, failures).await;
                }
            }
        }
    }

    fn leave_out_replaced(&self, batch: &mut Commits, hand_outs: &mut Vec<HandOut>) {
        let before = hand_outs.len();
        self.in_flight.retain_not_replaced(hand_outs);
        if hand_outs.len() < before {
            let kept: HashSet<DeliveryId> = hand_outs.iter().map(|one| one.id).collect();
            batch.retain(|id| kept.contains(&id));
        }
    }

    /// Passes a batch to the store once.
    pub(super) async fn try_commit(
        &self,
        batch: &Commits,
        name: &'static str,
    ) -> Result<Vec<Fate>, Error> {
        let committing = async {
            let replies = self.store.deliveries().commit(&self.member, batch).await;
            replies.and_then(Replies::answered)
        };
        let committed = self.traced(name, batch.len(), committing).await;
        committed.inspect_err(|error| self.in_flight.note_late_releases(error, batch))
    }

    /// Runs one call that settles a number of deliveries in a span.
    pub(crate) async fn traced<T>(
        &self,
        name: &'static str,
        count: usize,
        settling: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(telemetry) = &self.telemetry else {
            return settling.await;
        };
        let span = traces::settle(telemetry, &self.member, name, count);
        let began = Instant::now();
        let result = settling.instrument(span.clone()).await;
        let error_type = result.as_ref().err().map(|error| error.kind().as_str());
        if let Some(error_type) = error_type {
            traces::fail(&span, error_type);
        }
        let messages = count as u64;
        let operation = Operation {
            kind: OperationKind::Settle,
            name,
            topic: self.member.topic(),
            group: Some(self.member.group()),
            messages,
            failed: error_type.map_or(0, |_| messages),
            error_type,
            duration: began.elapsed(),
        };
        span.in_scope(|| telemetry.propagator.record(&operation));
        result
    }

    fn finish(&self, hand_outs: &mut Vec<HandOut>) {
        self.settled.note(hand_outs);
        self.in_flight.remove(hand_outs.drain(..));
        self.meters.in_flight.set(self.in_flight.len() as f64);
    }

    async fn pause(&self, error: &Error, failures: u32) {
        self.fault.set(error);
        if failures == 1 {
            tracing::warn!(
                subscription = %self.member,
                error = %describe(error),
                "settling failed; retrying until it works",
            );
        }
        sleep(back_off(failures)).await;
    }
}

/// How all deliveries of a batch end, or [`MIXED`].
fn common_name(batch: &[Write]) -> &'static str {
    let mut names = batch.iter().map(|write| write.name);
    let first = names.next().unwrap_or(MIXED);
    match names.all(|name| name == first) {
        true => first,
        false => MIXED,
    }
}

/// The shortest delay in a batch. Retries without a delay need no promoter.
fn soonest_retry(batch: &[Commit]) -> Option<Duration> {
    let delays = batch.iter().filter_map(|commit| match commit.end() {
        End::Reschedule { delay, .. } => Some(*delay).filter(|delay| !delay.is_zero()),
        _ => None,
    });
    delays.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SubscribeOptions;
    use crate::store::Lane;
    use crate::worker::core::Settlements;
    use crate::worker::fixture::{Fixture, current, hand_out};
    use crate::worker::script::Failure;

    const COMMIT: &str = "deliveries.commit";

    fn run(core: &Core, settlements: Settlements) {
        let acks = Batch::new(settlements.acks);
        let writes = Batch::new(settlements.writes);
        let faults = &core.faults;
        tokio::spawn(
            Settler::new(core, &faults.acknowledging, &SettledCount::default()).acknowledge(acks),
        );
        tokio::spawn(
            Settler::new(core, &faults.settling, &SettledCount::default())
                .write(writes, Arc::default()),
        );
    }

    fn later(HandOut { id, token }: HandOut) -> Write {
        let commit = Commit::reschedule(id, Duration::from_secs(60), bytes::Bytes::new());
        Write {
            commit,
            token,
            name: "retry",
        }
    }

    #[tokio::test]
    async fn an_acknowledgement_is_repeated_until_the_store_answers() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        fixture.script.fail(COMMIT, Failure::NotDone);
        run(&core, settlements);
        core.acks
            .send(current(&core, fetched[0].receipt))
            .await
            .unwrap();
        Fixture::until("the store to have it", async || {
            fixture.pending().await.is_empty()
        })
        .await;
        Fixture::until("the table to be empty", async || core.in_flight.len() == 0).await;
        assert_eq!(core.faults.problem(), None);
    }

    #[tokio::test]
    async fn the_settlers_count_what_came_from_the_redelivery_stream() {
        let fixture = Fixture::new().await;
        let mut fetched = fixture.fetch(3).await;
        fetched[2].receipt.lane = Lane::Redelivery;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        for one in &fetched {
            let hand_out = current(&core, one.receipt);
            core.acks.send(hand_out).await.unwrap();
        }
        let settled = SettledCount::default();
        let settler = Settler::new(&core, &core.faults.acknowledging, &settled);
        tokio::spawn(settler.acknowledge(Batch::new(settlements.acks)));
        Fixture::until("the table to be empty", async || core.in_flight.len() == 0).await;
        assert_eq!(settled.counts(), (3, 1));
    }

    #[tokio::test]
    async fn a_settler_gives_the_memory_of_a_burst_back() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(500).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        for one in &fetched {
            let hand_out = current(&core, one.receipt);
            core.acks.send(hand_out).await.unwrap();
        }
        let batch = Batch::new(settlements.acks);
        let settler = Settler::new(&core, &core.faults.acknowledging, &SettledCount::default());
        let running = tokio::spawn(settler.acknowledge(Arc::clone(&batch)));
        Fixture::until("the table to be empty", async || core.in_flight.len() == 0).await;
        running.abort();
        let batch = batch.lock().await;
        let (received, hand_outs) = (batch.received.capacity(), batch.hand_outs.capacity());
        assert!(received <= POLICY.keep_memory_for, "{received}");
        assert!(hand_outs <= POLICY.keep_memory_for, "{hand_outs}");
    }

    #[tokio::test]
    async fn a_write_is_repeated_until_the_store_answers() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        fixture.script.fail(COMMIT, Failure::NotDone);
        run(&core, settlements);
        let write = later(current(&core, fetched[0].receipt));
        core.writes.send(write).await.unwrap();
        Fixture::until("the store to have it", async || {
            fixture.scheduled().await == 1
        })
        .await;
    }

    #[tokio::test]
    async fn a_settlement_of_an_earlier_hand_out_is_dropped() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        let (again, marker) = (fetched[0].receipt, fetched[1].receipt);
        let earlier = current(&core, again);
        assert_eq!(core.in_flight.lose([earlier]), 1);
        hand_out(&core, &fetched[..1], true);
        run(&core, settlements);

        core.writes.send(later(earlier)).await.unwrap();
        core.writes
            .send(later(current(&core, marker)))
            .await
            .unwrap();
        Fixture::until("the second to be written", async || {
            !fixture.pending().await.contains(&marker)
        })
        .await;
        assert_eq!(
            fixture.pending().await,
            [again],
            "another hand-out is current"
        );
        assert_eq!(fixture.scheduled().await, 1);

        core.acks.send(earlier).await.unwrap();
        let marker = fixture.fetch(1).await;
        hand_out(&core, &marker, false);
        let marker = marker[0].receipt;
        core.acks.send(current(&core, marker)).await.unwrap();
        Fixture::until("the second to be acknowledged", async || {
            !fixture.pending().await.contains(&marker)
        })
        .await;
        assert_eq!(fixture.pending().await, [again]);
        assert!(core.in_flight.contains(again));
    }

    #[tokio::test]
    async fn a_settlement_that_is_repeated_ends_no_later_hand_out() {
        for acknowledges in [true, false] {
            let fixture = Fixture::new().await;
            let fetched = fixture.fetch(2).await;
            let (core, settlements) = fixture.core(SubscribeOptions::new());
            hand_out(&core, &fetched, false);
            let (again, marker) = (fetched[0].receipt, fetched[1].receipt);
            let earlier = current(&core, again);
            fixture.script.fail(COMMIT, Failure::NotDone);
            let (in_flight, attempts) = (Arc::clone(&core.in_flight), fetched[0].attempts);
            fixture.script.on(COMMIT, move || {
                in_flight.lose([earlier]);
                let entries = std::iter::once((again, attempts));
                let _ = in_flight.enter(entries, true, Instant::now());
            });
            match acknowledges {
                true => core.acks.send(earlier).await.unwrap(),
                false => core.writes.send(later(earlier)).await.unwrap(),
            }
            run(&core, settlements);
            Fixture::until("the hand-out to be replaced", async || {
                current(&core, again).token != earlier.token
            })
            .await;
            let marked = current(&core, marker);
            match acknowledges {
                true => core.acks.send(marked).await.unwrap(),
                false => core.writes.send(later(marked)).await.unwrap(),
            }
            Fixture::until("the second to be settled", async || {
                !fixture.pending().await.contains(&marker)
            })
            .await;
            assert_eq!(fixture.pending().await, [again]);
            assert!(core.in_flight.contains(again));
            assert_eq!(core.faults.problem(), None);
        }
    }
}
