//! The janitor trims settled entries and prunes dead consumers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::domain::{Error, Retention};
use crate::store::{Member, Store};
use crate::worker::core::SettledCount;
use crate::worker::stir::Stir;

const TICK: Duration = Duration::from_secs(1);
/// At every 30th tick the janitor trims both streams, whatever was settled here: entries age, and another
/// process may have settled some before it ended.
const QUIET_TICKS: u64 = 30;
const PRUNE_TICKS: u64 = 60;
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Consumers that are idle for this long and hold nothing are removed. A live consumer calls the
/// store every few seconds.
const PRUNE_AFTER: Duration = Duration::from_secs(300);
/// The consumers of a topic share the trimming, so a topic with many groups is not trimmed more often.
const TRIM_PAUSE: Duration = Duration::from_millis(900);
/// Where the bell is heard: how many ticks after something has stirred the janitor trims a last time. A
/// trim in between may have left the work to another consumer.
const LAST_TRIM: u64 = 3;
/// How many ticks later that is at the start.
const FIRST_TRIM_WITHIN: u64 = 8;
/// How often entries that only age are trimmed while nothing stirs, as a part of their age.
const SHARE_OF_AGE: u32 = 50;
const SHORTEST_AGING: Duration = Duration::from_secs(30);
const LONGEST_AGING: Duration = Duration::from_secs(600);
/// A call trims about 100,000 entries at most. After fewer than this many nothing is left.
const MORE: u64 = 90_000;

#[derive(Clone)]
pub(crate) struct Janitor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) settled: SettledCount,
    pub(crate) retention: Retention,
    pub(crate) stir: Arc<Stir>,
}

impl Janitor {
    /// Keeps house until the subscription halts.
    pub(crate) async fn run(self, halt: CancellationToken) {
        // Subscriptions that begin together keep house apart.
        let first = Instant::now() + TICK.mul_f64(fastrand::f64());
        let mut ticks = interval_at(first, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tick, mut trimmed_at) = (fastrand::u64(..PRUNE_TICKS), (0, 0));
        // The first trims of many subscriptions that begin together are spread out.
        let mut stirred_at = tick + fastrand::u64(..FIRST_TRIM_WITHIN);
        let (mut moment, mut pruned) = (self.stir.now(), Instant::now());
        loop {
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                _ = ticks.tick() => tick += 1,
            }
            let now = self.stir.now();
            if now != moment {
                (moment, stirred_at) = (now, tick);
            }
            let is_heard = self.stir.is_heard();
            let settled = self.settled.counts();
            let is_last = is_heard && tick == stirred_at + LAST_TRIM;
            let mut duties = Duties::at(tick, is_last, trimmed_at, settled);
            if is_heard {
                duties.prune = pruned.elapsed() >= PRUNE_EVERY;
            }
            match self.work(duties).await {
                Ok(()) => {
                    trimmed_at = settled;
                    if duties.prune {
                        pruned = Instant::now();
                    }
                }
                Err(error) => {
                    stirred_at = tick;
                    tracing::debug!(subscription = %self.member, %error, "housekeeping failed");
                }
            }
            if !is_heard || tick < stirred_at + LAST_TRIM {
                continue;
            }
            // What is settled is trimmed, and nothing is published or settled here before something
            // stirs. Entries may age.
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                () = self.stir.since(moment, self.aging()) => {}
            }
            // The next tick is the last one that trims, unless something has stirred.
            stirred_at = (tick + 1).saturating_sub(LAST_TRIM);
            ticks.reset();
        }
    }

    /// How often entries that only age need a trim.
    fn aging(&self) -> Option<Duration> {
        let Retention::Age(age) = self.retention else {
            return None;
        };
        Some((age / SHARE_OF_AGE).clamp(SHORTEST_AGING, LONGEST_AGING))
    }

    async fn work(&self, duties: Duties) -> Result<(), Error> {
        let (topics, at) = (self.store.topics(), &self.member.at);
        if duties.trim {
            let mut pause = TRIM_PAUSE;
            while topics.trim_in_turn(&at.partition, pause).await? >= MORE {
                pause = Duration::ZERO;
            }
        }
        if duties.trim_redelivery {
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
    trim_redelivery: bool,
    prune: bool,
}

impl Duties {
    /// Ticks count from 1; `is_last`: whether the janitor sleeps after this tick, unless something stirs;
    /// `trimmed` and `settled`: how many deliveries were settled before the last trim and by now, and how
    /// many of them came from the redelivery stream. Most groups have none of those.
    fn at(tick: u64, is_last: bool, trimmed: (u64, u64), settled: (u64, u64)) -> Self {
        let all = is_last || tick.is_multiple_of(QUIET_TICKS);
        Self {
            trim: all || settled.0 != trimmed.0,
            trim_redelivery: all || settled.1 != trimmed.1,
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
        for (tick, is_last, settled, trims, trims_redelivery) in [
            (2, false, (7, 3), false, false),
            (2, false, (8, 3), true, false),
            (2, false, (8, 4), true, true),
            (2, true, (7, 3), true, true),
            (30, false, (7, 3), true, true),
        ] {
            let duties = Duties::at(tick, is_last, (7, 3), settled);
            let found = (duties.trim, duties.trim_redelivery);
            assert_eq!(found, (trims, trims_redelivery), "{tick} {settled:?}");
        }
        let prunes = |tick: &u64| Duties::at(*tick, false, (0, 0), (0, 0)).prune;
        let pruning: Vec<u64> = (1..=130).filter(prunes).collect();
        assert_eq!(pruning, [1, 61, 121]);
    }

    #[tokio::test]
    async fn the_redelivery_stream_is_trimmed_only_where_that_is_due() {
        let fixture = Fixture::new().await;
        let janitor = janitor(&fixture);
        for trim_redelivery in [false, true] {
            fixture.script.calls();
            let duties = Duties {
                trim: true,
                trim_redelivery,
                prune: false,
            };
            janitor.work(duties).await.unwrap();
            let calls = fixture.script.calls();
            assert_eq!(
                calls.contains(&"topics.trim_redelivery"),
                trim_redelivery,
                "{calls:?}"
            );
        }
    }

    fn janitor(fixture: &Fixture) -> Janitor {
        Janitor {
            store: Arc::clone(&fixture.store),
            member: Arc::clone(&fixture.member),
            settled: SettledCount::default(),
            retention: Retention::Settled,
            stir: Arc::default(),
        }
    }

    #[tokio::test]
    async fn trimming_removes_settled_entries_and_no_others() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        fixture.acknowledge(fetched[0].receipt).await;
        let janitor = janitor(&fixture);
        let duties = Duties {
            trim: true,
            trim_redelivery: true,
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
