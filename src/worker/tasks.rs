//! The tasks of a running subscription, and how they end.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long a cancelled task may take to notice.
pub(crate) const NOTICE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// The fetcher and the reclaimer.
    pub(crate) intake: JoinSet<()>,
    pub(crate) workers: JoinSet<()>,
    pub(crate) settlers: JoinSet<()>,
    pub(crate) services: JoinSet<()>,
}

/// Aborts tasks at the next point where they wait.
///
/// A handler that blocks its thread never reaches one, and neither do the tasks that the runtime
/// has queued on that thread: those are left behind.
pub(crate) async fn abort(tasks: &mut JoinSet<()>) {
    tasks.abort_all();
    if !all_ended(tasks, Instant::now() + NOTICE).await {
        tracing::warn!("tasks do not end; does a handler block its thread?");
        tasks.detach_all();
    }
}

/// Waits for all tasks to end, until a time. Returns whether they did.
pub(crate) async fn all_ended(tasks: &mut JoinSet<()>, until: Instant) -> bool {
    timeout_at(until, async { while tasks.join_next().await.is_some() {} })
        .await
        .is_ok()
}
