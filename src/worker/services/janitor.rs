//! The janitor trims settled entries and prunes dead consumers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::domain::Error;
use crate::store::{Member, Store};
use crate::worker::core::SettledCount;

const TICK: Duration = Duration::from_secs(1);
/// While no delivery is settled the janitor trims at every 30th tick, because entries age.
const QUIET_TICKS: u64 = 30;
const PRUNE_TICKS: u64 = 60;
/// Consumers that are idle for this long and hold nothing are removed. A live consumer calls the
/// store every few seconds.
const PRUNE_AFTER: Duration = Duration::from_secs(300);
/// The consumers of a topic share the trimming, so a topic with many groups is not trimmed more often.
const TRIM_PAUSE: Duration = Duration::from_millis(900);
/// A call trims about 100,000 entries at most. After fewer than this many nothing is left.
const MORE: u64 = 90_000;

#[derive(Clone)]
pub(crate) struct Janitor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) settled: SettledCount,
}

impl Janitor {
    /// Keeps house until the subscription halts.
    pub(crate) async fn run(self, halt: CancellationToken) {
        // Subscriptions that begin together keep house apart.
        let first = Instant::now() + TICK.mul_f64(fastrand::f64());
        let mut ticks = interval_at(first, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tick, mut trimmed_at) = (fastrand::u64(..PRUNE_TICKS), 0);
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
            let mut pause = TRIM_PAUSE;
            while topics.trim_in_turn(&at.partition, pause).await? >= MORE {
                pause = Duration::ZERO;
            }
            topics.trim_redelivery(at).await?;
        }
        if duties.prune {
            topics.prune_consumers(at, PRUNE_AFTER, None).await?;
        }
        Ok(())
    }
}

/// What a tick has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Duties {
    trim: bool,
    prune: bool,
}

impl Duties {
    /// Ticks count from 1; `settled`: whether deliveries were settled since the last trim.
    fn at(tick: u64, settled: bool) -> Self {
        Self {
            trim: settled || tick.is_multiple_of(QUIET_TICKS),
            prune: tick % PRUNE_TICKS == 1,
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
    }

    #[tokio::test]
    async fn trimming_removes_settled_entries_and_no_others() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        fixture.acknowledge(fetched[0].receipt).await;
        let janitor = Janitor {
            store: Arc::clone(&fixture.store),
            member: Arc::clone(&fixture.member),
            settled: SettledCount::default(),
        };
        let duties = Duties {
            trim: true,
            prune: true,
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
