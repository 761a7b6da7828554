//! Flusher: tells the store of the acknowledgements that no other step has told it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::group::OwnedGroup;
use super::partition::OwnedPartition;
use crate::domain::Error;
use crate::worker::core::Core;
use crate::worker::fault::back_off;

/// How long an acknowledgement waits for others, where no message waits for it.
const GATHERS: Duration = Duration::from_millis(5);

/// A partition, and whether more of its messages are ready.
type Flushed = (Arc<OwnedPartition>, Result<bool, Error>);

/// Writes acknowledgements until the subscription halts. Those that are left go with the last step of
/// each partition. Each partition is written by itself, so one that does not answer delays no other.
pub(crate) async fn run(core: Arc<Core>, group: Arc<OwnedGroup>, halt: CancellationToken) {
    let mut flushes = FuturesUnordered::new();
    // How often the last flushes of a partition under way have failed.
    let mut failures: BTreeMap<u16, u32> = BTreeMap::new();
    let mut gathers_until: Option<Instant> = None;
    loop {
        let seen = group.unwritten.count();
        let waits =
            |one: &Arc<OwnedPartition>| one.is_unwritten() && !failures.contains_key(&one.number());
        gathers_until = match group.all().iter().any(waits) {
            true => gathers_until.or_else(|| Some(Instant::now() + GATHERS)),
            false => None,
        };
        tokio::select! {
            biased;
            () = halt.cancelled() => return,
            Some((partition, flushed)) = flushes.next(), if !flushes.is_empty() => {
                if let Some(after) = note(&core, &group, &mut failures, (&partition, flushed)) {
                    flushes.push(flush(partition, after));
                }
            }
            () = group.unwritten.since(seen), if gathers_until.is_none() => {}
            () = sleep_until(gathers_until.unwrap_or_else(Instant::now)), if gathers_until.is_some() => {
                gathers_until = None;
                for one in group.all() {
                    // A step for another cause may have told them meanwhile.
                    if one.is_overdue(GATHERS) && !failures.contains_key(&one.number()) {
                        failures.insert(one.number(), 0);
                        flushes.push(flush(one, Duration::ZERO));
                    }
                }
            }
        }
    }
}

async fn flush(partition: Arc<OwnedPartition>, after: Duration) -> Flushed {
    if !after.is_zero() {
        sleep(after).await;
    }
    let flushed = partition.flush().await;
    (partition, flushed)
}

/// Notes the end of a flush. Returns when to try it again, if it failed.
fn note(
    core: &Core,
    group: &OwnedGroup,
    failures: &mut BTreeMap<u16, u32>,
    (partition, flushed): (&Arc<OwnedPartition>, Result<bool, Error>),
) -> Option<Duration> {
    let number = partition.number();
    let before = failures.remove(&number).unwrap_or(0);
    if let Err(error) = &flushed
        && partition.is_unwritten()
    {
        core.faults.flushing.set(error);
        failures.insert(number, before + 1);
        return Some(back_off(before + 1));
    }
    if before > 0 && failures.values().all(|failures| *failures == 0) {
        core.faults.flushing.clear();
    }
    if let Ok(true) = flushed {
        group.changed.ring();
    }
    None
}
