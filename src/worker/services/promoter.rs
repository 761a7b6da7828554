//! The promoter brings retries back to their group when they are due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bus::Due;
use crate::store::{MAX_BATCH, Member, Store};
use crate::worker::fault::Fault;
use crate::worker::meters::Meters;

/// The longest time between two calls. Each process knows when its own retries are due, so only
/// those of a dead process wait for this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The shortest time between two calls, however close together retries are due.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(crate) struct Promoter {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) due: Arc<Due>,
    pub(crate) fault: Fault,
}

impl Promoter {
    /// Promotes due retries until the subscription halts.
    pub(crate) async fn run(self, halt: CancellationToken) {
        loop {
            self.due.drain();
            // Created before the call, so that it also completes for a change during the call.
            let mut clock_set = self.store.clock_set();
            let promoted = tokio::select! {
                biased;
                () = halt.cancelled() => return,
                promoted = self.store.schedule().promote(&self.member.at, MAX_BATCH) => promoted,
            };
            // Jittered, so that subscriptions that begin together do not look together.
            let longest = LONGEST_WAIT.mul_f64(1.0 - 0.2 * fastrand::f64());
            let mut until = Instant::now() + longest;
            match promoted {
                Ok(promoted) => {
                    self.report_missing(promoted.missing);
                    if (promoted.moved + promoted.missing) as usize >= MAX_BATCH {
                        continue;
                    }
                    self.fault.clear();
                    if let Some(next) = promoted.next {
                        until = until.min(Instant::now() + next);
                    }
                }
                Err(error) => {
                    self.fault.set(&error);
                    tracing::debug!(subscription = %self.member, %error, "promoting failed");
                }
            }
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                () = sleep(SHORTEST_WAIT) => {}
            }
            loop {
                tokio::select! {
                    biased;
                    () = halt.cancelled() => return,
                    () = sleep_until(until) => break,
                    () = &mut clock_set => break,
                    () = self.due.changed() => {
                        if let Some(due) = self.due.drain() {
                            until = until.min(due);
                        }
                    }
                }
            }
        }
    }
}

impl Promoter {
    fn report_missing(&self, missing: u64) {
        if missing > 0 {
            self.meters.lost_entries.increment(missing);
            tracing::error!(
                subscription = %self.member,
                missing,
                "data loss: scheduled retries lost their messages to something other than Redstart",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fixture::Fixture;

    #[tokio::test]
    async fn a_retry_comes_back_when_the_clock_reaches_its_time() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        fixture
            .reschedule(fetched[0].receipt, Duration::from_secs(60))
            .await;
        let halt = CancellationToken::new();
        let promoter = Promoter {
            store: Arc::clone(&fixture.store),
            member: Arc::clone(&fixture.member),
            meters: fixture.meters(),
            due: Arc::default(),
            fault: Fault::default(),
        };
        let running = tokio::spawn(promoter.run(halt.clone()));
        // The promoter looks once and then waits for its longest wait.
        sleep(4 * SHORTEST_WAIT).await;
        fixture.clock.advance(Duration::from_secs(59));
        sleep(4 * SHORTEST_WAIT).await;
        assert_eq!(fixture.scheduled().await, 1, "a second early");
        fixture.clock.advance(Duration::from_secs(1));
        tokio::time::timeout(Duration::from_secs(4), async {
            while fixture.scheduled().await > 0 {
                sleep(SHORTEST_WAIT).await;
            }
        })
        .await
        .expect("setting the clock wakes the promoter before its longest wait");
        halt.cancel();
        running.await.unwrap();
    }
}
