//! The reclaimer takes over deliveries whose lease has expired.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::domain::{Error, ErrorKind, describe};
use crate::store::{ReclaimCursor, Unmarked};
use crate::worker::core::Core;
use crate::worker::intake::policy::POLICY;
use crate::worker::tracks::Track;

/// How many calls one look may use to get through all pending deliveries.
const MOST_CALLS: usize = 64;

/// The reclaimer looks every quarter of the lease, within these bounds. A released delivery waits
/// for this look.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// The bound while nothing is in flight: these looks are most of an idle subscription's cost.
const LONGEST_IDLE: Duration = Duration::from_secs(2);

/// Looks for expired leases of a track until the subscription stops.
pub(crate) async fn run(core: Arc<Core>, track: Arc<Track>) {
    let track = &*track;
    let quarter = core.options.lease / 4;
    let period = quarter.clamp(SHORTEST, LONGEST);
    let idle = quarter.clamp(SHORTEST, LONGEST_IDLE);
    // The fetcher has reclaimed once at its start. Subscriptions that begin together look apart.
    let mut ticks = interval_at(Instant::now() + idle.mul_f64(fastrand::f64()), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = Look::default();
    let mut last_look = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let lease = core.lease.get();
        // After a standstill of the process its own leases have expired: extend them first, or it
        // would reclaim its own deliveries and count a crash.
        if last_look.elapsed() > lease / 3 {
            track.keeper.extend_all().await;
        }
        last_look = Instant::now();
        let still = core.still(track);
        let mut next = Next::Again;
        for _ in 0..MOST_CALLS {
            next = match reclaim_some(&core, track, &mut look).await {
                Ok(next) => next,
                Err(error) => {
                    warn(track, &error);
                    Next::Done
                }
            };
            if next != Next::Again {
                break;
            }
        }
        // Nobody holds anything and nothing waits for a first delivery: no lease can expire before
        // something stirs. Deliveries that came in meanwhile are another moment.
        if let Some(moment) = still.filter(|_| look.found_nothing_pending(next)) {
            tokio::select! {
                biased;
                () = core.stop.cancelled() => return,
                () = track.stir.since(moment, None) => {}
            }
            // Nothing was held here, so nothing has expired meanwhile.
            last_look = Instant::now();
            ticks.reset_after(idle.mul_f64(0.5 + fastrand::f64() / 2.0));
        } else if next == Next::Full && look.cursor != ReclaimCursor::default() {
            // A dead consumer may leave many times this one's capacity: reclaim as slots become
            // free, not once a tick.
            ticks.reset_after(POLICY.reclaim_when_full);
        } else if core.in_flight.len() == 0 {
            ticks.reset_after(idle);
        }
    }
}

/// How far the looks have come, and what the last call found.
#[derive(Debug)]
pub(crate) struct Look {
    cursor: ReclaimCursor,
    last_asked: Instant,
    /// How many deliveries the members of the group held; `None` after a failure.
    pending: Option<u64>,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            cursor: ReclaimCursor::default(),
            last_asked: Instant::now(),
            pending: None,
        }
    }
}

impl Look {
    fn found_nothing_pending(&self, next: Next) -> bool {
        next == Next::Done && self.pending == Some(0)
    }
}

/// What follows a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// There may be more: call again.
    Again,
    /// There may be more, and no free slot for it.
    Full,
    /// Nothing more for now.
    Done,
}

fn warn(track: &Track, error: &Error) {
    // The fetcher recreates a missing group, and reports it.
    if error.kind() != ErrorKind::NotFound && !error.is_retryable() {
        tracing::warn!(
            subscription = %track.member,
            error = %describe(error),
            "expired leases could not be reclaimed",
        );
    }
}

/// Reclaims once, as many as the capacity allows.
pub(crate) async fn reclaim_some(
    core: &Core,
    track: &Track,
    look: &mut Look,
) -> Result<Next, Error> {
    look.pending = None;
    let _claiming = track.claiming.lock().await;
    // The shutdown releases deliveries once the intake has ended: nothing may come in after it.
    if core.stop.is_cancelled() {
        return Ok(Next::Done);
    }
    let free = core.capacity.reclaimable();
    if free == 0 {
        return Ok(Next::Full);
    }
    // The store applies the limit to the log and to the redelivery stream.
    let max = core.weight.limit((free / 2 / core.tracks.count()).max(1));
    let unmarked = match core.marks_attempts {
        true => Unmarked::NotBegun,
        false => Unmarked::Begun,
    };
    let sent = Instant::now();
    let _claim = core.in_flight.begin_claim(track.partition);
    let reclaimed = core
        .store
        .deliveries()
        .claim_expired(&track.member, core.lease.get(), unmarked, look.cursor, max)
        .await
        .inspect_err(|error| {
            // The reclaim may have succeeded and its answer been lost.
            if error.is_outcome_unknown() {
                track.unseen.note();
                core.weight.ask_for_less();
            }
        })?;
    core.weight.note(&reclaimed.taken, sent.elapsed());
    look.cursor = reclaimed.cursor;
    look.pending = Some(reclaimed.pending);
    if reclaimed.missing > 0 {
        core.meters.lost_entries.increment(reclaimed.missing);
        tracing::error!(
            subscription = %track.member,
            missing = reclaimed.missing,
            "data loss: unsettled entries were removed from the topic by something other than Redstart",
        );
    }
    let count = reclaimed.taken.len();
    if count > 0 {
        let new = core.accept(reclaimed.taken, true, sent);
        core.meters.reclaimed.increment(new as u64);
    }
    if track.partition.is_some_and(|number| number > 0) {
        // The first track asks for a shorter lease, for all.
        look.last_asked = Instant::now();
    }
    let (found, store) = (reclaimed.lease, &*core.store);
    core.lease
        .follow(found, &mut look.last_asked, store, &core.member)
        .await;
    if count > 0 || look.cursor != ReclaimCursor::default() {
        return Ok(Next::Again);
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SubscribeOptions;
    use crate::domain::RetryPolicy;
    use crate::store::{Bell, Ring};
    use crate::worker::fixture::{Fixture, hand_out};
    use crate::worker::script::Failure;

    const CLAIM: &str = "deliveries.claim_expired";
    const EXTEND: &str = "deliveries.extend";

    fn options() -> SubscribeOptions {
        SubscribeOptions::new()
            .with_concurrency(1)
            .with_prefetch(1)
            .with_lease(Duration::from_millis(300))
    }

    async fn once(core: &Core) -> Result<Next, Error> {
        reclaim_some(core, core.tracks.first(), &mut Look::default()).await
    }

    #[tokio::test]
    async fn a_claim_whose_reply_was_lost_may_hold_deliveries_unseen() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = fixture.core(options());
        for (failure, unseen) in [(Failure::NotDone, false), (Failure::ReplyLost, true)] {
            fixture.script.fail(CLAIM, failure);
            once(&core).await.unwrap_err();
            assert_eq!(core.tracks.first().unseen.may_exist(), unseen);
        }
    }

    /// How many looks there are until a time has passed in which several fit.
    async fn looks_meanwhile(fixture: &Fixture) -> usize {
        fixture.script.calls();
        tokio::time::sleep(Duration::from_millis(600)).await;
        let calls = fixture.script.calls();
        calls.iter().filter(|call| **call == CLAIM).count()
    }

    /// A subscription whose bell hears, and whose reader has found nothing.
    async fn heard(fixture: &Fixture) -> (Arc<Core>, Arc<Bell>, impl Sized) {
        let bell = Arc::<Bell>::default();
        bell.set_hears(true);
        let options = options().with_lease(Duration::from_millis(200));
        let (core, settlements) = fixture.core_with_bell(options, &bell);
        core.stir.note_nothing_read(core.stir.now());
        (core, bell, settlements)
    }

    #[tokio::test]
    async fn nothing_is_looked_for_where_nobody_holds_anything_until_an_entry_comes() {
        let fixture = Fixture::new().await;
        let (core, bell, _settlements) = heard(&fixture).await;
        let running = tokio::spawn(run(Arc::clone(&core), Arc::clone(core.tracks.first())));
        Fixture::until("a look", async || fixture.script.calls().contains(&CLAIM)).await;
        assert_eq!(looks_meanwhile(&fixture).await, 0);
        // Another consumer takes the new entry and dies.
        fixture.fetch(1).await;
        bell.ring(Ring::Entries);
        core.stir.note_nothing_read(core.stir.now());
        Fixture::until("the entry to be reclaimed", async || {
            core.in_flight.len() == 1
        })
        .await;
        running.abort();
    }

    #[tokio::test]
    async fn a_delivery_of_another_consumer_is_watched_although_nothing_rings() {
        let fixture = Fixture::new().await;
        let one = fixture.fetch(1).await.remove(0);
        let (core, _bell, _settlements) = heard(&fixture).await;
        let running = tokio::spawn(run(Arc::clone(&core), Arc::clone(core.tracks.first())));
        Fixture::until("a look", async || fixture.script.calls().contains(&CLAIM)).await;
        let release = crate::store::Commit::release(one.receipt);
        fixture.commit(release).await;
        Fixture::until("the released one", async || core.in_flight.len() == 1).await;
        running.abort();
    }

    #[tokio::test]
    async fn a_deaf_bell_and_an_unread_entry_keep_the_looks_going() {
        let fixture = Fixture::new().await;
        let (core, bell, _settlements) = heard(&fixture).await;
        let running = tokio::spawn(run(Arc::clone(&core), Arc::clone(core.tracks.first())));
        for stirs in [true, false] {
            // Each of the two begins from rest.
            Fixture::until("rest", async || looks_meanwhile(&fixture).await == 0).await;
            if stirs {
                bell.ring(Ring::Entries);
            } else {
                bell.set_hears(false);
            }
            let mut looks = 0;
            Fixture::until("the looks to go on", async || {
                let calls = fixture.script.calls();
                looks += calls.iter().filter(|call| **call == CLAIM).count();
                looks >= 3
            })
            .await;
            core.stir.note_nothing_read(core.stir.now());
        }
        running.abort();
    }

    #[tokio::test]
    async fn nothing_is_claimed_after_a_stop() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = fixture.core(options());
        fixture.script.calls();
        core.stop.cancel();
        assert_eq!(once(&core).await.unwrap(), Next::Done);
        assert_eq!(fixture.script.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn no_more_is_claimed_than_there_is_capacity_for() {
        let fixture = Fixture::new().await;
        let ids: Vec<_> = fixture.fetch(10).await;
        for one in ids {
            fixture
                .commit(crate::store::Commit::release(one.receipt))
                .await;
        }
        let (core, _settlements) = fixture.core(options());
        // One handler, one read ahead, and two more for the deliveries of others; half a lane.
        assert_eq!(once(&core).await.unwrap(), Next::Again);
        assert_eq!(core.in_flight.len(), 2);
        core.capacity.occupy(2);
        fixture.script.calls();
        assert_eq!(once(&core).await.unwrap(), Next::Full);
        assert_eq!(
            fixture.script.calls(),
            [""; 0],
            "a full consumer asks for nothing"
        );
    }

    #[tokio::test]
    async fn an_unmarked_hand_out_counts_unless_every_attempt_is_marked() {
        for (most, begun) in [(1, 0), (5, 1)] {
            let fixture = Fixture::new().await;
            fixture.fetch(1).await;
            let retry = RetryPolicy::fixed(Duration::ZERO).with_max_attempts(most);
            let (core, _settlements) = fixture.core(options().with_retry(retry));
            Fixture::until("the lease to end", async || {
                once(&core).await.unwrap();
                core.in_flight.len() == 1
            })
            .await;
            let queued = core.queue.next().await.unwrap();
            assert_eq!(queued.lease.before().begun, begun, "of {most} attempts");
        }
    }

    #[tokio::test]
    async fn after_a_standstill_own_leases_are_extended_before_a_claim() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, _settlements) = fixture.core(options());
        hand_out(&core, &fetched, false);
        let running = tokio::spawn(run(Arc::clone(&core), Arc::clone(core.tracks.first())));
        Fixture::until("a look", async || fixture.script.calls().contains(&CLAIM)).await;
        // Longer than a third of the lease, and nothing else runs on this thread.
        std::thread::sleep(Duration::from_millis(150));
        let mut calls = Vec::new();
        Fixture::until("the next look", async || {
            calls.extend(fixture.script.calls());
            calls.contains(&CLAIM)
        })
        .await;
        assert_eq!(calls[..2], [EXTEND, CLAIM]);
        running.abort();
    }
}
