//! Waits for free slots. Meanwhile, gives back the deliveries that have waited here too long, so that other
//! processes can handle them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::store::{Commit, Commits};
use crate::worker::core::Core;
use crate::worker::handle::pipeline::give_back_message;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::policy::POLICY;
use crate::worker::tracks::Track;

/// Waits until free slots are worth a read; false when the subscription stops. Meanwhile gives
/// deliveries back that wait behind slow handlers, and then sets `behind`: they are older than any new
/// one.
pub(super) async fn free_slots(core: &Core, track: &Track, behind: &mut bool) -> bool {
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return false,
            _ = core.capacity.ready() => return true,
            () = sleep(POLICY.give_back_after) => {
                *behind |= give_back_waiting(core, track).await;
            }
        }
    }
}

/// Gives deliveries back that wait behind slow handlers, so that another process can handle them.
/// Returns whether there were any.
async fn give_back_waiting(core: &Core, track: &Track) -> bool {
    let before = Instant::now().checked_sub(POLICY.give_back_after);
    // No other process handles what this one owns.
    let gives_back = core.owned.is_none() && core.capacity.gives_back();
    let Some(before) = before.filter(|_| gives_back) else {
        return false;
    };
    let waiting = core.queue.remove_before(before, |id| track.has(id));
    if waiting.is_empty() {
        return false;
    }
    let _claiming = track.claiming.lock().await;
    let (again, waiting): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|one| one.again.is_some());
    core.capacity.give_back(again.len() + waiting.len());
    for one in again {
        give_back_message(core, one, Duration::ZERO).await;
    }
    let releases = waiting.iter().map(|one| {
        let (id, before) = (one.fetched.receipt, one.lease.before());
        Commit::release_counted(id, before)
    });
    let releases: Commits = releases.collect();
    let hand_outs = waiting.iter().map(|one| HandOut {
        id: one.fetched.receipt,
        token: one.lease.token(),
    });
    core.in_flight.remove(hand_outs);
    core.meters.in_flight.set(core.in_flight.len() as f64);
    if releases.is_empty() {
        return true;
    }
    if let Err(error) = core.commit_releases(&releases).await {
        tracing::debug!(subscription = %track.member, %error, "waiting deliveries were not released");
        // They are no longer in flight here: the fetcher releases them once the store answers.
        track.unseen.note();
    }
    true
}
