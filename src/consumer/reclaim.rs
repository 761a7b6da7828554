//! Reclaiming: taking over deliveries whose lease has expired.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::core::Core;
use super::lease;
use crate::backend::ReclaimCursor;
use crate::domain::ErrorKind;

/// How many calls one look may take to get through everything that is pending.
const MOST_CALLS: usize = 64;

/// Looks for expired leases until the subscription stops.
pub(super) async fn run(core: Arc<Core>) {
    let (shortest, longest) = (Duration::from_millis(50), Duration::from_secs(1));
    let mut ticks = interval((core.options.lease / 4).clamp(shortest, longest));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cursor = ReclaimCursor::default();
    let mut last_look = tokio::time::Instant::now();
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            () = core.reclaim_now.notified() => cursor = ReclaimCursor::default(),
            _ = ticks.tick() => {}
        }
        // A process that was frozen would otherwise take its own deliveries over, and count
        // a crash, before its keeper runs.
        if last_look.elapsed() > core.options.lease / 3 {
            lease::keep(&core).await;
        }
        last_look = tokio::time::Instant::now();
        for _ in 0..MOST_CALLS {
            if !take_over(&core, &mut cursor).await {
                break;
            }
        }
    }
}

/// Takes over what there is room for. Returns whether there may be more.
async fn take_over(core: &Core, cursor: &mut ReclaimCursor) -> bool {
    let max = core.room.reclaimable() / 2;
    let _claiming = core.claiming.lock().await;
    // Under the lock: shutdown takes it before it gives back what is held.
    if max == 0 || core.stop.is_cancelled() {
        return false;
    }
    let reclaimed = match core
        .backend
        .reclaim(&core.member, core.options.lease, *cursor, max)
        .await
    {
        Ok(reclaimed) => reclaimed,
        // The fetcher creates a group that is gone anew, and says so.
        Err(error) if error.kind() == ErrorKind::NotFound || error.is_retryable() => return false,
        Err(error) => {
            tracing::warn!(
                subscription = %core.member,
                error = %crate::domain::describe(&error),
                "expired leases could not be reclaimed",
            );
            return false;
        }
    };
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
    taken > 0 || *cursor != ReclaimCursor::default()
}
