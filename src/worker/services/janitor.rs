//! Housekeeping: removing what is settled, consumers that are gone, and saying where the
//! group stands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::domain::Error;
use crate::worker::core::Core;

const TICK: Duration = Duration::from_secs(1);
/// Without anything settled, retention runs every so many ticks: entries age, too.
const QUIET_TICKS: u64 = 30;
const STATUS_TICKS: u64 = 10;
const FORGET_TICKS: u64 = 60;
/// A consumer that was not heard of for so long and holds nothing is removed. A living one
/// is heard of every few seconds.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// One call removes at most some 100,000 entries; after fewer than this all is done.
const MORE: u64 = 90_000;

/// Keeps house until the subscription has ended.
pub(crate) async fn run(core: Arc<Core>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tick, mut seen) = (0, 0);
    loop {
        tokio::select! {
            biased;
            () = core.halt.cancelled() => return,
            _ = ticks.tick() => tick += 1,
        }
        let settled = core.acknowledged.load(Ordering::Relaxed);
        let jobs = async {
            if settled != seen || tick % QUIET_TICKS == 0 {
                retain(&core).await?;
            }
            if tick % FORGET_TICKS == 1 {
                let (topic, group) = (&core.member.topic, &core.member.group);
                core.store
                    .prune_consumers(topic, group, FORGET_AFTER, None)
                    .await?;
            }
            if tick % STATUS_TICKS == 1 {
                measure(&core).await?;
            }
            Ok::<(), Error>(())
        };
        match jobs.await {
            Ok(()) => seen = settled,
            Err(error) => {
                tracing::debug!(subscription = %core.member, %error, "housekeeping failed");
            }
        }
    }
}

/// Removes what every group has settled.
pub(crate) async fn retain(core: &Core) -> Result<(), Error> {
    let (topic, group) = (&core.member.topic, &core.member.group);
    while core.store.trim(topic).await?.removed >= MORE {}
    core.store.trim_redelivery(topic, group).await
}

async fn measure(core: &Core) -> Result<(), Error> {
    let Some(status) = core.store.status(&core.member.topic).await? else {
        return Ok(());
    };
    if let Some(group) = status
        .groups
        .iter()
        .find(|status| status.group == core.member.group)
    {
        core.meters.lag.set(group.lag as f64);
        core.meters.scheduled.set(group.scheduled as f64);
        core.meters.dead.set(group.dead as f64);
    }
    Ok(())
}
