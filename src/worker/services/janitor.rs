//! The janitor trims settled entries, prunes dead consumers, and measures where the group stands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::domain::Error;
use crate::store::{Member, Store};
use crate::worker::core::SettledCount;
use crate::worker::meters::Meters;

const TICK: Duration = Duration::from_secs(1);
/// While no delivery is settled the janitor trims at every 30th tick, because entries age.
const QUIET_TICKS: u64 = 30;
const STATUS_TICKS: u64 = 10;
const PRUNE_TICKS: u64 = 60;
/// Consumers that are idle for this long and hold nothing are removed. A live consumer calls the
/// store every few seconds.
const PRUNE_AFTER: Duration = Duration::from_secs(300);
/// A call trims about 100,000 entries at most. After fewer than this many nothing is left.
const MORE: u64 = 90_000;

#[derive(Clone)]
pub(crate) struct Janitor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) settled: SettledCount,
}

impl Janitor {
    /// Keeps house until the subscription halts.
    pub(crate) async fn run(self, halt: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tick, mut trimmed_at) = (0, 0);
        loop {
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                _ = ticks.tick() => tick += 1,
            }
            let settled = self.settled.load(Ordering::Relaxed);
            match self.work(Duties::at(tick, settled != trimmed_at)).await {
                Ok(()) => trimmed_at = settled,
                Err(error) => {
                    tracing::debug!(subscription = %self.member, %error, "housekeeping failed");
                }
            }
        }
    }

    async fn work(&self, duties: Duties) -> Result<(), Error> {
        let (topics, at) = (self.store.topics(), &self.member.at);
        if duties.trim {
            while topics.trim(&at.partition).await?.removed >= MORE {}
            topics.trim_redelivery(at).await?;
        }
        if duties.prune {
            topics.prune_consumers(at, PRUNE_AFTER, None).await?;
        }
        if duties.measure {
            self.measure().await?;
        }
        Ok(())
    }

    async fn measure(&self) -> Result<(), Error> {
        let Some(status) = self
            .store
            .inspect()
            .status(&self.member.at.partition)
            .await?
        else {
            return Ok(());
        };
        let mut groups = status.groups.iter();
        if let Some(group) = groups.find(|status| status.group == self.member.at.group) {
            self.meters.lag.set(group.lag as f64);
            self.meters.scheduled_retries.set(group.scheduled as f64);
            self.meters.dead_letters_stored.set(group.dead as f64);
        }
        Ok(())
    }
}

/// What a tick has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Duties {
    trim: bool,
    prune: bool,
    measure: bool,
}

impl Duties {
    /// Ticks count from 1; `settled`: whether deliveries were settled since the last trim.
    fn at(tick: u64, settled: bool) -> Self {
        Self {
            trim: settled || tick.is_multiple_of(QUIET_TICKS),
            prune: tick % PRUNE_TICKS == 1,
            measure: tick % STATUS_TICKS == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fixture::Fixture;

    #[test]
    fn a_tick_trims_after_settling_and_the_rest_has_its_turns() {
        let only = |tick, settled| Duties::at(tick, settled);
        assert!(!only(2, false).trim && only(2, true).trim && only(30, false).trim);
        let pruning: Vec<u64> = (1..=130).filter(|tick| only(*tick, false).prune).collect();
        assert_eq!(pruning, [1, 61, 121]);
        let measuring: Vec<u64> = (1..=30).filter(|tick| only(*tick, false).measure).collect();
        assert_eq!(measuring, [1, 11, 21]);
    }

    #[tokio::test]
    async fn trimming_removes_settled_entries_and_no_others() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        fixture.acknowledge(fetched[0].receipt).await;
        let janitor = Janitor {
            store: Arc::clone(&fixture.store),
            member: Arc::clone(&fixture.member),
            meters: fixture.meters(),
            settled: SettledCount::default(),
        };
        let duties = Duties {
            trim: true,
            prune: true,
            measure: true,
        };
        janitor.work(duties).await.unwrap();
        let left = fixture
            .store
            .log()
            .browse(&fixture.member.at.partition, None, 10)
            .await
            .unwrap();
        let ids: Vec<_> = left.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [fetched[1].receipt.id]);
    }
}
