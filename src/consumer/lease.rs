//! Keeping leases: everything that is held, every third of the lease.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use super::core::Core;
use crate::backend::Receipt;

/// Extends leases until the subscription has ended.
pub(super) async fn run(core: Arc<Core>) {
    let mut ticks = interval(core.options.lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = core.halt.cancelled() => return,
            _ = ticks.tick() => keep(&core).await,
        }
    }
}

/// Extends all leases once. The handlers of those that are lost are told.
pub(super) async fn keep(core: &Core) {
    let held = core.held.all();
    if held.is_empty() {
        return;
    }
    match core.backend.extend(&core.member, &held).await {
        Ok(extended) => {
            let lost = held
                .into_iter()
                .zip(extended)
                .filter(|(_, held)| !held)
                .map(|(receipt, _)| receipt);
            lose(core, lost);
        }
        // The next tick tries again; the lease has two thirds left.
        Err(error) => {
            tracing::warn!(
                subscription = %core.member,
                error = %crate::domain::describe(&error),
                "leases could not be extended",
            );
        }
    }
}

fn lose(core: &Core, lost: impl Iterator<Item = Receipt>) {
    let running = core.held.lose(lost);
    if running > 0 {
        core.meters.lease_lost.increment(running);
        tracing::warn!(subscription = %core.member, running, "leases lost to other consumers");
    }
}
