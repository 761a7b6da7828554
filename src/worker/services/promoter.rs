//! The promoter brings retries back to their group when they are due, and messages for later to their
//! topic.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bus::Due;
use crate::store::{MAX_BATCH, Member, Store};
use crate::worker::fault::Fault;
use crate::worker::meters::Meters;
use crate::worker::stir::{LOOK_ANYWAY, Stir};

/// The longest time between two calls, unless a bell tells of changes. Each process knows when its own
/// retries are due, so only those of a dead process wait for this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The same where a bell tells of changes and the next due time is known. The clock of the store may
/// run faster than this one.
const LONGEST_TO_KNOWN: Duration = Duration::from_secs(60);
/// How long a promoter waits after a ring. All promoters of the group have heard it, and the one whose
/// process wrote the retry knows the time already.
const AFTER_RING: Duration = Duration::from_millis(20);
/// The time between two looks that rings caused.
const BETWEEN_RINGS: Duration = Duration::from_millis(200);
/// The shortest time between two calls, however close together retries are due.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(crate) struct Promoter {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) due: Arc<Due>,
    pub(crate) fault: Fault,
    pub(crate) stir: Arc<Stir>,
}

impl Promoter {
    /// Promotes due retries until the subscription halts.
    pub(crate) async fn run(self, halt: CancellationToken) {
        let mut rung = Instant::now();
        loop {
            self.due.drain();
            let rings = self.stir.due_count();
            // Created before the call, so that it also completes for a change during the call.
            let mut clock_set = self.store.clock_set();
            let promoted = tokio::select! {
                biased;
                () = halt.cancelled() => return,
                promoted = self.store.schedule().promote(&self.member.at, MAX_BATCH) => promoted,
            };
            let mut longest = LONGEST_WAIT;
            let mut next_due = None;
            match promoted {
                Ok(promoted) => {
                    self.report_missing(promoted.missing);
                    self.meters.published.increment(promoted.published);
                    let done = promoted.moved + promoted.published + promoted.missing;
                    if done as usize >= MAX_BATCH {
                        continue;
                    }
                    self.fault.clear();
                    next_due = promoted.next;
                    if self.stir.is_heard() {
                        longest = match next_due {
                            Some(_) => LONGEST_TO_KNOWN,
                            None => LOOK_ANYWAY,
                        };
                    }
                }
                Err(error) => {
                    self.fault.set(&error);
                    tracing::debug!(subscription = %self.member, %error, "promoting failed");
                }
            }
            // Jittered, so that subscriptions that begin together do not look together.
            let longest = longest.mul_f64(1.0 - 0.2 * fastrand::f64());
            let mut until = Instant::now() + next_due.map_or(longest, |next| next.min(longest));
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                () = sleep(SHORTEST_WAIT) => {}
            }
            let mut is_rung = false;
            loop {
                tokio::select! {
                    biased;
                    () = halt.cancelled() => return,
                    () = sleep_until(until) => break,
                    () = &mut clock_set => break,
                    () = self.stir.due_since(rings), if !is_rung => {
                        is_rung = true;
                        let soon = Instant::now() + AFTER_RING.mul_f64(fastrand::f64());
                        rung = soon.max(rung + BETWEEN_RINGS);
                        until = until.min(rung);
                    }
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
                "data loss: scheduled retries or messages for later lost their content to something other than Redstart",
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
            stir: Arc::default(),
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
