//! Flusher: tells the store of the acknowledgements that no other step has told it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::group::OwnedGroup;
use crate::worker::core::Core;
use crate::worker::fault::back_off;

/// How long an acknowledgement waits for others, where no message waits for it.
const GATHERS: Duration = Duration::from_millis(5);

/// Writes acknowledgements until the subscription halts. Those that are left go with the last step of
/// each partition.
pub(crate) async fn run(core: Arc<Core>, group: Arc<OwnedGroup>, halt: CancellationToken) {
    let mut failures = 0;
    while !halt.is_cancelled() {
        let seen = group.unwritten.count();
        let mut partitions = group.all();
        partitions.retain(|one| one.is_unwritten());
        if partitions.is_empty() {
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                () = group.unwritten.since(seen) => {}
            }
        }
        sleep(GATHERS).await;
        // A step for another cause may have told them meanwhile.
        let flushing = group
            .all()
            .into_iter()
            .filter(|one| one.is_overdue(GATHERS));
        let flushing = flushing.map(|one| async move { one.flush().await });
        let mut failure = None;
        for flushed in join_all(flushing).await {
            match flushed {
                Ok(true) => group.changed.ring(),
                Ok(false) => {}
                Err(error) => {
                    // A step to let a partition go may be off, so that its messages go on.
                    group.changed.ring();
                    failure = Some(error);
                }
            }
        }
        match failure {
            None if failures > 0 => {
                failures = 0;
                core.faults.flushing.clear();
            }
            None => {}
            Some(error) => {
                failures += 1;
                core.faults.flushing.set(&error);
                tokio::select! {
                    () = halt.cancelled() => return,
                    () = sleep(back_off(failures)) => {}
                }
            }
        }
    }
}
