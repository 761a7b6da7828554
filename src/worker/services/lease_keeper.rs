//! The lease keeper extends the lease of every delivery in flight, every third of the lease.

use std::sync::Arc;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::store::{Member, Store};
use crate::worker::fault::Fault;
use crate::worker::intake::in_flight::{HandOut, InFlight};
use crate::worker::intake::lease::GroupLease;
use crate::worker::meters::Meters;

pub(crate) struct LeaseKeeper {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) lease: Arc<GroupLease>,
    pub(crate) fault: Fault,
}

impl LeaseKeeper {
    /// Extends leases until the subscription halts.
    pub(crate) async fn run(self: Arc<Self>, halt: CancellationToken) {
        let mut changes = self.lease.changes();
        let mut extended = Instant::now();
        loop {
            let third = *changes.borrow_and_update() / 3;
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                // A shorter lease begins now.
                _ = changes.changed() => {}
                () = sleep(third) => {}
            }
            if self.extend_all().await {
                extended = Instant::now();
            } else if extended.elapsed() > self.lease.get() {
                // The leases have expired, so other consumers may reclaim the deliveries: no
                // handler may begin one or go on with one.
                self.lose(self.in_flight.hand_outs().into_iter());
            }
        }
    }

    /// Extends every lease once and cancels the handlers whose lease is lost. Returns whether the
    /// store answered.
    pub(crate) async fn extend_all(&self) -> bool {
        let hand_outs = self.in_flight.hand_outs();
        if hand_outs.is_empty() {
            self.fault.clear();
            return true;
        }
        let ids: Vec<_> = hand_outs.iter().map(|hand_out| hand_out.id).collect();
        match self.store.deliveries().extend(&self.member, &ids).await {
            Ok(extended) => {
                let answers = hand_outs.into_iter().zip(extended);
                self.lose(
                    answers
                        .filter(|(_, extended)| !extended)
                        .map(|(one, _)| one),
                );
                self.fault.clear();
                true
            }
            // Two thirds of the lease are left, and the next tick tries again.
            Err(error) => {
                self.fault.set(&error);
                tracing::debug!(subscription = %self.member, %error, "leases could not be extended");
                false
            }
        }
    }

    /// Notes that another consumer holds a delivery, as the store has answered elsewhere.
    pub(crate) fn lose_one(&self, lost: HandOut) {
        self.lose([lost].into_iter());
    }

    fn lose(&self, lost: impl Iterator<Item = HandOut>) {
        let running = self.in_flight.lose(lost);
        if running > 0 {
            self.meters.leases_lost.increment(running);
            tracing::warn!(subscription = %self.member, running, "leases lost to other consumers");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::worker::fixture::Fixture;

    #[tokio::test]
    async fn a_lost_lease_cancels_its_handler_and_leaves_the_others() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        let keeper = fixture.lease_keeper();
        let leases: Vec<_> = keeper
            .in_flight
            .enter(fetched.iter().map(|one| (one.receipt, 0)), false)
            .into_iter()
            .flatten()
            .collect();
        assert!(keeper.extend_all().await);
        assert!(!leases.iter().any(|lease| lease.is_cancelled()));

        fixture.take_over(fetched[0].receipt).await;
        assert!(keeper.extend_all().await, "the store answered");
        assert!(leases[0].is_lost() && !leases[1].is_cancelled());
        let left = keeper.in_flight.hand_outs();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].id, fetched[1].receipt);
    }
}
