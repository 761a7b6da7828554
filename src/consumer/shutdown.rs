//! Shutting down: stop reading, let handlers finish, flush, give the rest back, report.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::core::Core;
use super::subscription::{SubscriptionReport, Tasks};

/// How long a cancelled handler may take to notice.
const NOTICE: Duration = Duration::from_millis(250);
/// How long settlements may take to be written after the handlers have ended.
const FLUSH: Duration = Duration::from_secs(5);

pub(super) async fn run(
    core: &Arc<Core>,
    mut tasks: Tasks,
    deadline: Duration,
) -> SubscriptionReport {
    let now = Instant::now();
    // Beyond thirty years the clock would overflow, and nobody waits.
    let deadline = now
        .checked_add(deadline)
        .unwrap_or(now + Duration::from_secs(1_000_000_000));
    core.stop.cancel();

    // The last read, and the last look for expired leases, bring what was under way; only then
    // is the queue complete.
    if !all_ended(&mut tasks.takers, deadline.max(now + NOTICE)).await {
        tasks.takers.shutdown().await;
    }
    core.queue.close();

    let mut cancelled = 0;
    if !all_ended(&mut tasks.workers, deadline).await {
        core.held.cancel();
        if !all_ended(&mut tasks.workers, Instant::now() + NOTICE).await {
            cancelled = tasks.workers.len() as u64;
            tasks.workers.shutdown().await;
        }
    }

    // The workers are gone, and whoever was claiming has entered what it took: all that is
    // not finished goes back, uncounted.
    let claiming = timeout_at(Instant::now() + FLUSH, core.claiming.lock()).await;
    let open = core.held.unfinished();
    drop(claiming);
    let mut unsettled = 0;
    let mut given_back = 0;
    if !open.is_empty() {
        let flush_until = Instant::now() + FLUSH;
        match timeout_at(flush_until, core.backend.release(&core.member, &open)).await {
            Ok(Ok(count)) => {
                given_back = count;
                core.held.leave(open);
            }
            _ => unsettled += open.len() as u64,
        }
    }

    // What is left was finished, and leaves when it is written.
    let flush_until = Instant::now() + FLUSH;
    while core.held.len() as u64 > unsettled && Instant::now() < flush_until {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tasks.settlers.shutdown().await;
    unsettled = core.held.len() as u64;

    core.halt.cancel();
    if !all_ended(&mut tasks.keepers, Instant::now() + FLUSH).await {
        tasks.keepers.shutdown().await;
    }
    let (topic, group) = (&core.member.topic, &core.member.group);
    let forgetting = core
        .backend
        .forget(topic, group, Duration::ZERO, Some(&core.member.consumer));
    // What remains is removed by others, later.
    let _ = timeout_at(Instant::now() + FLUSH, forgetting).await;
    core.meters.in_flight.set(0.0);

    let report = SubscriptionReport {
        name: core.member.to_string(),
        released: given_back.saturating_sub(cancelled),
        cancelled,
        unsettled,
    };
    tracing::info!(?report, "unsubscribed");
    report
}

/// Whether all tasks end before a time.
async fn all_ended(tasks: &mut JoinSet<()>, until: Instant) -> bool {
    timeout_at(until, async { while tasks.join_next().await.is_some() {} })
        .await
        .is_ok()
}
