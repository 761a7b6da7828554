//! Reclaiming: taking over deliveries whose lease has expired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::domain::{Error, ErrorKind};
use crate::store::ReclaimCursor;
use crate::worker::core::Core;
use crate::worker::services::lease_keeper;

/// How many calls one look may take to get through everything that is pending.
const MOST_CALLS: usize = 64;

/// How often to look: a quarter of the lease within these bounds. What another consumer has given
/// back waits for this.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// The longest while there is nothing to do: these looks are most of what an idle subscription costs.
const LONGEST_IDLE: Duration = Duration::from_secs(2);

/// When to look again for room, while there is more to take over.
const WHEN_FULL: Duration = Duration::from_millis(10);

/// Looks for expired leases until the subscription stops.
pub(crate) async fn run(core: Arc<Core>) {
    let quarter = core.options.lease / 4;
    let mut ticks = interval(quarter.clamp(SHORTEST, LONGEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cursor = ReclaimCursor::default();
    let mut last_look = tokio::time::Instant::now();
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A process that was frozen would otherwise take its own deliveries over, and count
        // a crash, before its keeper runs.
        if last_look.elapsed() > core.options.lease / 3 {
            lease_keeper::keep(&core).await;
        }
        last_look = tokio::time::Instant::now();
        let mut next = Next::Again;
        for _ in 0..MOST_CALLS {
            next = match take_over(&core, &mut cursor).await {
                Ok(next) => next,
                Err(error) => {
                    say(&core, &error);
                    Next::Done
                }
            };
            if next != Next::Again {
                break;
            }
        }
        // Without anything in sight there is no hurry.
        if next == Next::Full && cursor != ReclaimCursor::default() {
            // What a dead consumer held may be many times what there is room for: it is taken as
            // room frees, not once a tick.
            ticks.reset_after(WHEN_FULL);
        } else if core.held.len() == 0 {
            ticks.reset_after(quarter.clamp(SHORTEST, LONGEST_IDLE));
        }
    }
}

/// What comes after a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// There may be more: call again.
    Again,
    /// There may be more, and no room for it.
    Full,
    /// Nothing more for now.
    Done,
}

fn say(core: &Core, error: &Error) {
    // The fetcher creates a group that is gone anew, and says so.
    if error.kind() != ErrorKind::NotFound && !error.is_retryable() {
        tracing::warn!(
            subscription = %core.member,
            error = %crate::domain::describe(error),
            "expired leases could not be reclaimed",
        );
    }
}

/// Takes over what there is room for.
pub(crate) async fn take_over(core: &Core, cursor: &mut ReclaimCursor) -> Result<Next, Error> {
    let _claiming = core.claiming.lock().await;
    // Shutdown gives back what is held once everyone who takes has ended.
    if core.stop.is_cancelled() {
        return Ok(Next::Done);
    }
    let max = core.room.reclaimable() / 2;
    if max == 0 {
        return Ok(Next::Full);
    }
    let reclaimed = core
        .store
        .reclaim(&core.member, core.options.lease, *cursor, max)
        .await
        .inspect_err(|error| {
            // It may have been done: what this consumer was given it has not seen.
            if error.kind() == ErrorKind::OutcomeUnknown {
                core.stranded.store(true, Ordering::Release);
            }
        })?;
    *cursor = reclaimed.cursor;
    if reclaimed.missing > 0 {
        core.meters.missing.increment(reclaimed.missing);
        tracing::error!(
            subscription = %core.member,
            missing = reclaimed.missing,
            "unsettled entries were removed from the topic by someone else: data loss",
        );
    }
    let taken = reclaimed.taken.len();
    if taken > 0 {
        let new = core.hand_over(reclaimed.taken);
        core.meters.reclaimed.increment(new as u64);
    }
    if taken > 0 || *cursor != ReclaimCursor::default() {
        return Ok(Next::Again);
    }
    Ok(Next::Done)
}
