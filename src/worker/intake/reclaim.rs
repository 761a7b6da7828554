//! The reclaimer takes over deliveries whose lease has expired.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::domain::{Error, ErrorKind, describe};
use crate::store::{ReclaimCursor, Unmarked};
use crate::worker::core::Core;
use crate::worker::intake::policy::POLICY;

/// How many calls one look may use to get through all pending deliveries.
const MOST_CALLS: usize = 64;

/// The reclaimer looks every quarter of the lease, within these bounds. A released delivery waits
/// for this look.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// The bound while nothing is in flight: these looks are most of an idle subscription's cost.
const LONGEST_IDLE: Duration = Duration::from_secs(2);

/// Looks for expired leases until the subscription stops.
pub(crate) async fn run(core: Arc<Core>) {
    let quarter = core.options.lease / 4;
    let period = quarter.clamp(SHORTEST, LONGEST);
    let idle = quarter.clamp(SHORTEST, LONGEST_IDLE);
    // The fetcher has reclaimed once at its start. Subscriptions that begin together look apart.
    let mut ticks = interval_at(Instant::now() + idle.mul_f64(fastrand::f64()), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cursor = ReclaimCursor::default();
    let (mut last_look, mut last_asked) = (Instant::now(), Instant::now());
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
            core.lease_keeper.extend_all().await;
        }
        last_look = Instant::now();
        let mut next = Next::Again;
        for _ in 0..MOST_CALLS {
            next = match reclaim_some(&core, &mut cursor, &mut last_asked).await {
                Ok(next) => next,
                Err(error) => {
                    warn(&core, &error);
                    Next::Done
                }
            };
            if next != Next::Again {
                break;
            }
        }
        if next == Next::Full && cursor != ReclaimCursor::default() {
            // A dead consumer may leave many times this one's capacity: reclaim as slots become
            // free, not once a tick.
            ticks.reset_after(POLICY.reclaim_when_full);
        } else if core.in_flight.len() == 0 {
            ticks.reset_after(idle);
        }
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

fn warn(core: &Core, error: &Error) {
    // The fetcher recreates a missing group, and reports it.
    if error.kind() != ErrorKind::NotFound && !error.is_retryable() {
        tracing::warn!(
            subscription = %core.member,
            error = %describe(error),
            "expired leases could not be reclaimed",
        );
    }
}

/// Reclaims once, as many as the capacity allows.
pub(crate) async fn reclaim_some(
    core: &Core,
    cursor: &mut ReclaimCursor,
    last_asked: &mut Instant,
) -> Result<Next, Error> {
    let _claiming = core.claiming.lock().await;
    // The shutdown releases deliveries once the intake has ended: nothing may come in after it.
    if core.stop.is_cancelled() {
        return Ok(Next::Done);
    }
    // The store applies the limit to each of the two lanes.
    let max = core.capacity.reclaimable() / 2;
    if max == 0 {
        return Ok(Next::Full);
    }
    let max = core.weight.limit(max);
    let unmarked = match core.marks_attempts {
        true => Unmarked::NotBegun,
        false => Unmarked::Begun,
    };
    let sent = Instant::now();
    let reclaimed = core
        .store
        .deliveries()
        .claim_expired(&core.member, core.lease.get(), unmarked, *cursor, max)
        .await
        .inspect_err(|error| {
            // The reclaim may have succeeded and its answer been lost.
            if error.is_outcome_unknown() {
                core.unseen.note();
                core.weight.ask_for_less();
            }
        })?;
    core.weight.note(&reclaimed.taken, sent.elapsed());
    *cursor = reclaimed.cursor;
    let (found, store) = (reclaimed.lease, &*core.store);
    core.lease
        .follow(found, last_asked, store, &core.member)
        .await;
    if reclaimed.missing > 0 {
        core.meters.lost_entries.increment(reclaimed.missing);
        tracing::error!(
            subscription = %core.member,
            missing = reclaimed.missing,
            "data loss: unsettled entries were removed from the topic by something other than Redstart",
        );
    }
    let count = reclaimed.taken.len();
    if count > 0 {
        let new = core.accept(reclaimed.taken, true, sent);
        core.meters.reclaimed.increment(new as u64);
    }
    if count > 0 || *cursor != ReclaimCursor::default() {
        return Ok(Next::Again);
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SubscribeOptions;
    use crate::domain::RetryPolicy;
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
        reclaim_some(core, &mut ReclaimCursor::default(), &mut Instant::now()).await
    }

    #[tokio::test]
    async fn a_claim_whose_reply_was_lost_may_hold_deliveries_unseen() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = fixture.core(options());
        for (failure, unseen) in [(Failure::NotDone, false), (Failure::ReplyLost, true)] {
            fixture.script.fail(CLAIM, failure);
            once(&core).await.unwrap_err();
            assert_eq!(core.unseen.may_exist(), unseen);
        }
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
            assert_eq!(queued.lease.before(), begun, "of {most} attempts");
        }
    }

    #[tokio::test]
    async fn after_a_standstill_own_leases_are_extended_before_a_claim() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, _settlements) = fixture.core(options());
        hand_out(&core, &fetched, false);
        let running = tokio::spawn(run(Arc::clone(&core)));
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
