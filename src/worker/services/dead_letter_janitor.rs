//! Removing dead letters that retention no longer asks for.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::{DeadLetterFilter, EntryId, Error, Timestamp, describe};
use crate::store::{Disposition, IdRange, MAX_BATCH};
use crate::worker::core::Core;

const TICK: Duration = Duration::from_secs(10);
/// Between two portions: at most 2,500 a second are removed, which consumers on the same server
/// hardly feel; twice as many do double their latency's 99th percentile. A million are gone in some
/// seven minutes.
const PAUSE: Duration = Duration::from_millis(200);

/// Removes what is overdue until the subscription has ended.
pub(crate) async fn run(core: Arc<Core>) {
    let mut failing = false;
    loop {
        // From before the look: what is set while the look is under way is not missed.
        let clock_set = core.store.clock_set();
        match remove_overdue(&core).await {
            Ok(()) => failing = false,
            Err(error) if error.is_retryable() => {
                tracing::debug!(subscription = %core.member, %error, "dead letters could not be removed");
            }
            Err(error) if !failing => {
                failing = true;
                let error = describe(&error);
                tracing::warn!(subscription = %core.member, error, "dead letters could not be removed");
            }
            Err(_) => {}
        }
        // Consumers that were started at once do not look at once.
        let until = Instant::now() + TICK.mul_f64(0.5 + fastrand::f64());
        tokio::select! {
            biased;
            () = core.halt.cancelled() => return,
            () = sleep_until(until) => {}
            () = clock_set => {}
        }
    }
}

/// Removes all that is overdue, unless another consumer of the group is at it.
async fn remove_overdue(core: &Core) -> Result<(), Error> {
    let now = store_time(core).await?;
    let mut removed = 0_u64;
    let ended = loop {
        if core.halt.is_cancelled() {
            break Ok(());
        }
        match remove_portion(core, now).await {
            Ok((portion, next)) => {
                removed += portion;
                core.meters.dead_removed.increment(portion);
                if next.is_break() {
                    break Ok(());
                }
            }
            Err(error) => break Err(error),
        }
        sleep(PAUSE).await;
    };
    if removed > 0 {
        let (topic, group) = (&core.member.topic, &core.member.group);
        tracing::info!(%topic, %group, count = removed, "overdue dead letters were removed");
    }
    ended
}

/// Removes a portion. How many it was, and whether to go on.
async fn remove_portion(core: &Core, now: Timestamp) -> Result<(u64, ControlFlow<()>), Error> {
    let (topic, group) = (&core.member.topic, &core.member.group);
    let (dead_letters, all) = (core.store.dead_letters(), DeadLetterFilter::default());
    let found = dead_letters
        .search(topic, group, IdRange::default(), &all, MAX_BATCH)
        .await?;
    let oldest: Vec<EntryId> = found.items.iter().map(|(id, _)| *id).collect();
    // Counted after the search: what others take meanwhile makes this remove fewer, never more.
    let overdue = core
        .options
        .dead_letter_retention
        .overdue(&oldest, count(core).await?, now);
    if overdue == 0 {
        return Ok((0, ControlFlow::Break(())));
    }
    let items: Vec<_> = oldest[..overdue]
        .iter()
        .map(|id| (*id, Disposition::Discard))
        .collect();
    let taken = dead_letters
        .move_out(topic, group, &items, &found.items, None)
        .await?;
    let removed = taken.iter().filter(|taken| **taken).count();
    // Where others have been quicker, the rest is left to them.
    let last = overdue < MAX_BATCH || removed < overdue;
    let next = if last {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    };
    Ok((removed as u64, next))
}

/// By the clock that dead letters have their ids from: this process's may be wrong by years.
async fn store_time(core: &Core) -> Result<Timestamp, Error> {
    let (topic, group) = (&core.member.topic, &core.member.group);
    Ok(core.store.scheduled(topic, group, None, 1).await?.now)
}

async fn count(core: &Core) -> Result<u64, Error> {
    let status = core.store.status(&core.member.topic).await?;
    let groups = status.map(|status| status.groups).unwrap_or_default();
    let group = groups.iter().find(|one| one.group == core.member.group);
    Ok(group.map_or(0, |group| group.dead))
}
