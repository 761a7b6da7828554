//! Shutting down: stop reading, let handlers finish, flush, give the rest back, report.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::api::SubscriptionReport;
use crate::domain::{Error, ErrorKind};
use crate::store::DeliveryId;
use crate::worker::core::Core;
use crate::worker::intake::fetch::HOLDINGS;
use crate::worker::subscription::Tasks;

/// How long a cancelled handler may take to notice.
const NOTICE: Duration = Duration::from_millis(250);
/// How long settlements may take to be written after the handlers have ended.
const FLUSH: Duration = Duration::from_secs(5);

pub(crate) async fn run(
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
        abandon(&mut tasks.takers).await;
    }
    core.queue.close();

    let mut cancelled = 0;
    if !all_ended(&mut tasks.workers, deadline).await {
        core.held.cancel();
        if !all_ended(&mut tasks.workers, Instant::now() + NOTICE).await {
            cancelled = core.held.running();
            abandon(&mut tasks.workers).await;
        }
    }

    // Nothing is extended any more: an extension under way would undo the giving back.
    core.halt.cancel();
    if !all_ended(&mut tasks.keepers, Instant::now() + FLUSH).await {
        abandon(&mut tasks.keepers).await;
    }
    let given_back = timeout_at(Instant::now() + FLUSH, give_back(core)).await;
    let given_back = given_back.ok().and_then(Result::ok);

    // What is left was finished, and leaves when it is written.
    let open = core.held.unfinished().len();
    let flush_until = Instant::now() + FLUSH;
    while core.held.len() > open && Instant::now() < flush_until {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    abandon(&mut tasks.settlers).await;
    let unsettled = core.held.len() as u64;

    let (topic, group) = (&core.member.topic, &core.member.group);
    let forgetting =
        core.store
            .prune_consumers(topic, group, Duration::ZERO, Some(&core.member.consumer));
    // What remains is removed by others, later.
    let _ = timeout_at(Instant::now() + FLUSH, forgetting).await;
    core.meters.in_flight.set(0.0);

    let report = SubscriptionReport {
        name: core.member.to_string(),
        released: given_back.unwrap_or(0).saturating_sub(cancelled),
        cancelled,
        unsettled,
    };
    tracing::info!(?report, "unsubscribed");
    report
}

/// Gives back, uncounted, what the store thinks this consumer holds and no handler has finished:
/// also what a read or a reclaim took whose answer was lost.
async fn give_back(core: &Core) -> Result<u64, Error> {
    let holdings = match core.store.pending_of(&core.member, HOLDINGS).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        holdings => holdings?,
    };
    let open: Vec<DeliveryId> = holdings
        .into_iter()
        .filter(|receipt| !core.held.is_finished(*receipt))
        .collect();
    let mut given_back = 0;
    if !open.is_empty() {
        given_back = core.store.release(&core.member, &open).await?;
    }
    core.held.leave(core.held.unfinished());
    Ok(given_back)
}

/// Ends tasks at the next point where they wait. A handler that blocks its thread never comes to
/// one, nor do the tasks that its thread should run next: they are not waited for.
async fn abandon(tasks: &mut JoinSet<()>) {
    tasks.abort_all();
    if !all_ended(tasks, Instant::now() + NOTICE).await {
        tracing::warn!("tasks do not end; does a handler block its thread?");
        tasks.detach_all();
    }
}

/// Whether all tasks end before a time.
async fn all_ended(tasks: &mut JoinSet<()>, until: Instant) -> bool {
    timeout_at(until, async { while tasks.join_next().await.is_some() {} })
        .await
        .is_ok()
}
