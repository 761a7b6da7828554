//! The reclaimer takes over deliveries whose lease has expired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    // The fetcher has reclaimed once at its start. Subscriptions that begin together look apart.
    let mut ticks = interval_at(Instant::now() + period.mul_f64(fastrand::f64()), period);
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
            ticks.reset_after(quarter.clamp(SHORTEST, LONGEST_IDLE));
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
                core.may_hold_unseen.store(true, Ordering::Release);
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
