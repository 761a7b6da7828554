//! Flusher: tells the store of the acknowledgements that no other step has told it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::group::OwnedGroup;
use super::partition::OwnedPartition;
use crate::api::Fence;
use crate::worker::fault::back_off;

/// How long an acknowledgement waits for others, where no message waits for it.
const GATHERS: Duration = Duration::from_millis(5);

/// Writes acknowledgements until the subscription halts, those of each partition by themselves. Those that
/// are left go with the last step of each partition.
pub(crate) async fn run(group: Arc<OwnedGroup>, halt: CancellationToken) {
    let (mut flushes, mut under_way) = (FuturesUnordered::new(), BTreeSet::new());
    let mut gathers_until = None;
    while !halt.is_cancelled() {
        let seen = group.unwritten.count();
        let mut waiting = group.all();
        waiting.retain(|one| one.is_unwritten() && !under_way.contains(&one.tenure.fence()));
        let until = gathers_until.unwrap_or_else(|| Instant::now() + GATHERS);
        gathers_until = (!waiting.is_empty()).then_some(until);
        tokio::select! {
            biased;
            () = halt.cancelled() => {}
            Some((fence, ready)) = flushes.next() => {
                under_way.remove(&fence);
                if ready {
                    group.changed.ring();
                }
            }
            () = sleep_until(until), if !waiting.is_empty() => {
                gathers_until = None;
                // A step for another cause may have told them meanwhile.
                for partition in waiting.into_iter().filter(|one| one.is_overdue(GATHERS)) {
                    under_way.insert(partition.tenure.fence());
                    flushes.push(flush(&group, partition));
                }
            }
            () = group.unwritten.since(seen), if waiting.is_empty() => {}
        }
    }
}

/// Writes the acknowledgements of a partition, and asks it until it answers. Returns whether more of its
/// messages are ready.
async fn flush(group: &OwnedGroup, partition: Arc<OwnedPartition>) -> (Fence, bool) {
    let fence = partition.tenure.fence();
    let mut failures = 0;
    loop {
        match partition.flush().await {
            Ok(ready) => {
                partition.faults.flushing.clear();
                return (fence, ready);
            }
            Err(error) => {
                // A step to let the partition go may be off, so that its messages go on.
                group.changed.ring();
                failures += 1;
                partition.faults.flushing.set(&error);
                sleep(back_off(failures)).await;
            }
        }
    }
}
