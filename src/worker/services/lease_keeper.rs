//! The lease keeper extends the lease of every delivery in flight, every third of the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::store::{Holder, Member, Store};
use crate::worker::fault::Fault;
use crate::worker::intake::in_flight::{HandOut, InFlight};
use crate::worker::intake::lease::GroupLease;
use crate::worker::meters::Meters;
use crate::worker::stir::Stir;

/// Keeps the leases of one track.
pub(crate) struct LeaseKeeper {
    /// The partition of the track; `None` for all.
    pub(crate) partition: Option<u16>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) lease: Arc<GroupLease>,
    pub(crate) fault: Fault,
    pub(crate) stir: Arc<Stir>,
}

/// The time between two extensions: two of them may fail before the lease expires.
fn pause(lease: Duration) -> Duration {
    lease / 3
}

impl LeaseKeeper {
    /// Extends leases until the subscription halts.
    pub(crate) async fn run(self: Arc<Self>, halt: CancellationToken) {
        let mut changes = self.lease.changes();
        let mut extended = Instant::now();
        loop {
            let moment = self.stir.now();
            if self.in_flight.len() == 0 {
                // There is nothing to extend before a delivery comes in.
                tokio::select! {
                    biased;
                    () = halt.cancelled() => return,
                    () = self.stir.accepted_since(moment) => {}
                }
                extended = Instant::now();
            }
            let pause = pause(*changes.borrow_and_update());
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                // A shorter lease begins now.
                _ = changes.changed() => {}
                () = sleep(pause) => {}
            }
            if self.extend_all().await {
                extended = Instant::now();
            } else if extended.elapsed() > self.lease.get() {
                // The leases have expired, so other consumers may reclaim the deliveries: no
                // handler may begin one or go on with one.
                self.lose(self.in_flight.hand_outs_of(self.partition).0.into_iter());
            }
        }
    }

    /// Extends every lease once and cancels the handlers whose lease is lost. Returns whether the
    /// store answered.
    pub(crate) async fn extend_all(&self) -> bool {
        let (hand_outs, last_token) = self.in_flight.hand_outs_of(self.partition);
        if hand_outs.is_empty() {
            self.fault.clear();
            return true;
        }
        let ids: Vec<_> = hand_outs.iter().map(|hand_out| hand_out.id).collect();
        let sent = Instant::now();
        match self.store.deliveries().extend(&self.member, &ids).await {
            Ok(holders) => {
                self.note_holders(&hand_outs, &holders);
                let in_flight = &self.in_flight;
                in_flight.note_extended(self.partition, sent, last_token);
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

    /// Notes who holds deliveries, as the store has answered. Lets those go on from memory that
    /// nobody else can have; loses those of other consumers.
    pub(crate) fn note_holders(&self, hand_outs: &[HandOut], holders: &[Holder]) {
        let (now, lease) = (Instant::now(), self.lease.get());
        let is_lost = |hand_out: &HandOut, holder: &Holder| match holder {
            Holder::Member | Holder::Trimmed => false,
            Holder::Nobody => !self.in_flight.is_leased(*hand_out, lease, now),
            Holder::Other => true,
        };
        let mut removed = 0;
        let answers = || hand_outs.iter().zip(holders);
        for (hand_out, holder) in answers() {
            if *holder != Holder::Member
                && !is_lost(hand_out, holder)
                && self.in_flight.keep_only_copy(*hand_out)
            {
                let shown = *holder == Holder::Trimmed || self.in_flight.shows_removal(*hand_out);
                removed += u64::from(shown);
            }
        }
        if removed > 0 {
            self.meters.lost_entries.increment(removed);
            tracing::error!(
                subscription = %self.member,
                removed,
                "something other than Redstart removed entries or the consumer; the consumer finishes them from memory",
            );
        }
        let lost = answers().filter(|(hand_out, holder)| is_lost(hand_out, holder));
        // Collected first: the in-flight table locks itself for each question.
        let lost: Vec<_> = lost.map(|(hand_out, _)| *hand_out).collect();
        self.lose(lost.into_iter());
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
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;
    use crate::worker::fixture::{Fixture, other};
    use crate::worker::script::Failure;

    #[tokio::test]
    async fn a_delivery_that_nobody_holds_goes_on_while_its_lease_cannot_have_expired() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        let keeper = fixture.lease_keeper();
        let enter = |at: usize, since| {
            let entry = [(fetched[at].receipt, 0)].into_iter();
            keeper
                .in_flight
                .enter(entry, false, since)
                .remove(0)
                .unwrap()
        };
        let (now, lease) = (Instant::now(), keeper.lease.get());
        let leased = enter(0, now);
        let expired = enter(1, now.checked_sub(lease).unwrap());
        for one in &fetched {
            fixture.acknowledge(one.receipt).await;
        }
        assert!(keeper.extend_all().await);
        assert!(leased.is_only_copy() && !leased.is_cancelled());
        assert!(expired.is_lost() && !expired.is_only_copy());
    }

    #[tokio::test]
    async fn a_late_acknowledgement_by_the_former_owner_is_no_data_loss() {
        for (taken_over, counted) in [(true, 0), (false, 1)] {
            let recorder = DebuggingRecorder::new();
            let fixture = Fixture::new().await;
            let fetched = fixture.fetch(1).await;
            let mut keeper = fixture.lease_keeper();
            keeper.meters = metrics::with_local_recorder(&recorder, || fixture.meters());
            let entry = [(fetched[0].receipt, 0)].into_iter();
            let held = keeper.in_flight.enter(entry, taken_over, Instant::now());
            fixture.acknowledge(fetched[0].receipt).await;
            assert!(keeper.extend_all().await);
            assert!(held[0].as_ref().unwrap().is_only_copy());
            let metrics = recorder.snapshotter().snapshot().into_vec();
            let of = |(key, _, _, value)| {
                let key: metrics_util::CompositeKey = key;
                (key.key().name() == "redstart_lost_entries_total").then_some(value)
            };
            let lost: Vec<_> = metrics.into_iter().filter_map(of).collect();
            assert_eq!(
                lost,
                [DebugValue::Counter(counted)],
                "taken over: {taken_over}"
            );
        }
    }

    #[test]
    fn two_extensions_may_fail_before_a_lease_expires() {
        for lease in [1, 30, 3600].map(Duration::from_secs) {
            assert!(pause(lease) * 3 <= lease && pause(lease) * 4 > lease);
        }
    }

    #[tokio::test]
    async fn a_lost_lease_cancels_its_handler_and_leaves_the_others() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(2).await;
        let keeper = fixture.lease_keeper();
        let entries = fetched.iter().map(|one| (one.receipt, 0));
        let leases: Vec<_> = keeper
            .in_flight
            .enter(entries, false, Instant::now())
            .into_iter()
            .flatten()
            .collect();
        assert!(keeper.extend_all().await);
        assert!(!leases.iter().any(|lease| lease.is_cancelled()));

        fixture.take_over(fetched[0].receipt).await;
        assert!(keeper.extend_all().await, "the store answered");
        assert!(leases[0].is_lost() && !leases[1].is_cancelled());
        let (left, _) = keeper.in_flight.hand_outs();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].id, fetched[1].receipt);
    }

    /// A keeper of one delivery, and that delivery's lease.
    async fn keeping(
        fixture: &Fixture,
        lease: Duration,
    ) -> (Arc<LeaseKeeper>, Arc<crate::api::lease::Lease>) {
        let fetched = fixture.fetch(1).await;
        let mut keeper = fixture.lease_keeper();
        keeper.lease = Arc::new(GroupLease::new(lease));
        let entries = fetched.iter().map(|one| (one.receipt, 0));
        let held = keeper.in_flight.enter(entries, false, Instant::now());
        let held = held.into_iter().flatten().next().unwrap();
        (Arc::new(keeper), held)
    }

    #[tokio::test]
    async fn a_lease_without_contact_cancels_its_handler() {
        let fixture = Fixture::new().await;
        let (keeper, held) = keeping(&fixture, Duration::from_millis(30)).await;
        for _ in 0..10_000 {
            fixture.script.fail("deliveries.extend", Failure::NotDone);
        }
        let running = tokio::spawn(Arc::clone(&keeper).run(CancellationToken::new()));
        Fixture::until("the handler to be cancelled", async || held.is_cancelled()).await;
        assert!(held.is_lost() && keeper.in_flight.len() == 0);
        running.abort();
    }

    #[tokio::test]
    async fn one_failed_extension_cancels_no_handler() {
        let fixture = Fixture::new().await;
        let (keeper, held) = keeping(&fixture, Duration::from_secs(60)).await;
        fixture.script.fail("deliveries.extend", Failure::NotDone);
        let running = tokio::spawn(Arc::clone(&keeper).run(CancellationToken::new()));
        // Each change of the lease makes the keeper extend at once.
        let (mut seconds, mut extended) = (60, 0);
        Fixture::until("an extension after the failed one", async || {
            seconds += 1;
            let lease = Duration::from_secs(seconds);
            let set = fixture.store.topics().set_lease(&other(), lease).await;
            assert_eq!(set.unwrap(), lease);
            keeper
                .lease
                .set(&*fixture.store, &fixture.member)
                .await
                .unwrap();
            let calls = fixture.script.calls().into_iter();
            extended += calls.filter(|call| *call == "deliveries.extend").count();
            extended >= 2
        })
        .await;
        assert!(!held.is_cancelled());
        running.abort();
    }
}
