//! The dead-letter janitor removes dead letters beyond the subscription's retention.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::domain::{DeadLetterFilter, DeadLetterRetention, EntryId, Error, Timestamp, describe};
use crate::store::{Disposition, IdRange, MAX_BATCH, Member, Store};
use crate::worker::meters::Meters;

const TICK: Duration = Duration::from_secs(10);
/// The pause between two portions. It limits removal to 2,500 a second, which consumers on the
/// same server hardly feel; twice that rate doubles the 99th percentile of their latency. A million
/// dead letters take some seven minutes.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(crate) struct DeadLetterJanitor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) retention: DeadLetterRetention,
}

impl DeadLetterJanitor {
    /// Removes overdue dead letters until the subscription halts.
    pub(crate) async fn run(self, halt: CancellationToken) {
        let mut failing = false;
        loop {
            // Created before the look, so that it also completes for a change during the look.
            let clock_set = self.store.clock_set();
            match self.remove_overdue(&halt).await {
                Ok(()) => failing = false,
                Err(error) if error.is_retryable() => {
                    tracing::debug!(subscription = %self.member, %error, "dead letters could not be removed");
                }
                Err(error) if !failing => {
                    failing = true;
                    let error = describe(&error);
                    tracing::warn!(subscription = %self.member, error, "dead letters could not be removed");
                }
                Err(_) => {}
            }
            // Jittered, so that consumers that start together do not look together.
            let until = Instant::now() + TICK.mul_f64(0.5 + fastrand::f64());
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                () = sleep_until(until) => {}
                () = clock_set => {}
            }
        }
    }

    /// Removes all overdue dead letters, unless another consumer of the group is already doing so.
    async fn remove_overdue(&self, halt: &CancellationToken) -> Result<(), Error> {
        let now = self.store_time().await?;
        let mut removed = 0_u64;
        let ended = loop {
            if halt.is_cancelled() {
                break Ok(());
            }
            match self.remove_portion(now).await {
                Ok((portion, next)) => {
                    removed += portion;
                    self.meters.dead_letters_trimmed.increment(portion);
                    if next.is_break() {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error),
            }
            sleep(PAUSE).await;
        };
        if removed > 0 {
            let (topic, group) = (self.member.topic(), self.member.group());
            tracing::info!(%topic, %group, count = removed, "overdue dead letters were removed");
        }
        ended
    }

    /// Removes one portion. Returns how many dead letters it removed, and whether to continue.
    async fn remove_portion(&self, now: Timestamp) -> Result<(u64, ControlFlow<()>), Error> {
        let at = &self.member.at;
        let (dead_letters, all) = (self.store.dead_letters(), DeadLetterFilter::default());
        let found = dead_letters
            .search(at, IdRange::default(), &all, MAX_BATCH)
            .await?;
        let oldest: Vec<EntryId> = found.items.iter().map(|(id, _)| *id).collect();
        // Counted after the search: if another consumer removes some in between, this one removes
        // fewer and never more.
        let overdue = self.retention.overdue(&oldest, self.count().await?, now);
        if overdue == 0 {
            return Ok((0, ControlFlow::Break(())));
        }
        let items: Vec<_> = oldest[..overdue]
            .iter()
            .map(|id| (*id, Disposition::Discard))
            .collect();
        let moved = dead_letters
            .move_out(at, &items, &found.items, None)
            .await?;
        let removed = moved.iter().filter(|moved| **moved).count();
        // A shortfall means that another consumer is removing them: leave the rest to it.
        let last = overdue < MAX_BATCH || removed < overdue;
        let next = if last {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        };
        Ok((removed as u64, next))
    }

    /// The store's time: it gives dead letters their ids, and this process's clock may be wrong.
    async fn store_time(&self) -> Result<Timestamp, Error> {
        let page = self.store.schedule().list(&self.member.at, None, 1).await?;
        Ok(page.now)
    }

    async fn count(&self) -> Result<u64, Error> {
        self.store.dead_letters().count(&self.member.at).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fixture::Fixture;

    #[tokio::test]
    async fn it_removes_the_oldest_beyond_the_retention_and_keeps_the_newest() {
        let fixture = Fixture::new().await;
        for one in fixture.fetch(3).await {
            fixture.dead_letter(&one).await;
        }
        let janitor = DeadLetterJanitor {
            store: Arc::clone(&fixture.store),
            member: Arc::clone(&fixture.member),
            meters: fixture.meters(),
            retention: DeadLetterRetention::forever().with_max_count(2),
        };
        assert_eq!(janitor.count().await.unwrap(), 3);
        let halt = CancellationToken::new();
        janitor.remove_overdue(&halt).await.unwrap();
        assert_eq!(janitor.count().await.unwrap(), 2);
        janitor.remove_overdue(&halt).await.unwrap();
        assert_eq!(janitor.count().await.unwrap(), 2, "nothing is overdue");
    }
}
