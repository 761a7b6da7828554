//! Promoting: bringing retries back when their time has come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::store::MAX_BATCH;
use crate::worker::core::Core;

/// How often to look for retries that other processes have scheduled and not promoted: they
/// know of their own, so that only those of a process that died wait for so long.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often at most, however close together retries are due.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// Promotes due retries until the subscription has ended.
pub(crate) async fn run(core: Arc<Core>) {
    let (topic, group) = (&core.member.topic, &core.member.group);
    loop {
        core.due.take();
        // From before the look: what is set while the look is under way is not missed.
        let mut clock_set = core.store.clock_set();
        let promoted = tokio::select! {
            biased;
            () = core.halt.cancelled() => return,
            promoted = core.store.promote(topic, group, MAX_BATCH) => promoted,
        };
        let mut until = Instant::now() + LONGEST_WAIT;
        match promoted {
            Ok(promoted) if promoted.moved as usize >= MAX_BATCH => continue,
            Ok(promoted) => {
                core.promoting.over();
                if let Some(next) = promoted.next {
                    until = until.min(Instant::now() + next);
                }
            }
            Err(error) => {
                core.promoting.say(&error);
                tracing::debug!(subscription = %core.member, %error, "promoting failed");
            }
        }
        tokio::select! {
            biased;
            () = core.halt.cancelled() => return,
            () = sleep(SHORTEST_WAIT) => {}
        }
        loop {
            tokio::select! {
                biased;
                () = core.halt.cancelled() => return,
                () = sleep_until(until) => break,
                () = &mut clock_set => break,
                () = core.due.changed() => {
                    if let Some(due) = core.due.take() {
                        until = until.min(due);
                    }
                }
            }
        }
    }
}
