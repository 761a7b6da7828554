//! Keeping leases: everything that is held, every third of the lease.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::store::DeliveryId;
use crate::worker::core::Core;

/// Extends leases until the subscription has ended.
pub(crate) async fn run(core: Arc<Core>) {
    let mut ticks = interval(core.options.lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = core.halt.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if keep(&core).await {
            kept = Instant::now();
        } else if kept.elapsed() > core.options.lease {
            // Others have them by now, or will: nothing is begun and nothing goes on.
            lose(&core, core.held.all().into_iter());
        }
    }
}

/// Extends all leases once; the handlers of those that are lost are told. Returns whether
/// the store was reached.
pub(crate) async fn keep(core: &Core) -> bool {
    let held = core.held.all();
    if held.is_empty() {
        core.keeping.over();
        return true;
    }
    match core.store.extend(&core.member, &held).await {
        Ok(extended) => {
            let lost = held
                .into_iter()
                .zip(extended)
                .filter(|(_, held)| !held)
                .map(|(receipt, _)| receipt);
            lose(core, lost);
            core.keeping.over();
            true
        }
        // The next tick tries again; the lease has two thirds left.
        Err(error) => {
            core.keeping.say(&error);
            tracing::debug!(subscription = %core.member, %error, "leases could not be extended");
            false
        }
    }
}

fn lose(core: &Core, lost: impl Iterator<Item = DeliveryId>) {
    let running = core.held.lose(lost);
    if running > 0 {
        core.meters.lease_lost.increment(running);
        tracing::warn!(subscription = %core.member, running, "leases lost to other consumers");
    }
}
