//! The timer queues held-back messages when they are due.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::worker::core::Core;

/// The shortest time between two looks, where the clock stands still.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Queues due messages until the subscription stops. From then on the noter gives them back.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        // Created before the look, so that it also completes for a change after it.
        let mut clock_set = core.store.clock_set();
        let next = core.hold_back.next();
        let due = async {
            match next {
                Some(Duration::ZERO) => {}
                Some(left) => sleep(left.max(SHORTEST_WAIT)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            () = core.hold_back.changed.notified() => continue,
            () = &mut clock_set => {}
            () = due => {}
        }
        queue_due(&core);
    }
}

/// Queues the due messages for the workers, before those that no handler has seen.
fn queue_due(core: &Core) {
    let mut due = core.hold_back.take_due();
    // Another consumer has the others.
    due.retain(|message| !message.lease.is_cancelled());
    let now = Instant::now();
    for again in due.iter_mut().filter_map(|message| message.again.as_mut()) {
        again.queued = Some(now);
    }
    core.meters.delivered.increment(due.len() as u64);
    core.capacity.occupy(due.len());
    core.queue.push_first(due);
}
