//! Accepts deliveries that were handed to this consumer, and queues them for the workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::lease::Lease;
use crate::store::{Fetched, Kind};
use crate::worker::core::Core;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::queue::Queued;
use crate::worker::ownership::OwnedGroup;

/// How long a message waits whose handler of an earlier hand-out still runs.
const RUNS_STILL: Duration = Duration::from_millis(100);

impl Core {
    /// Enters fetched deliveries, those of an owned group by what came before them.
    pub(crate) fn accept_all(&self, fetched: Vec<Fetched>, since: Instant) -> usize {
        if self.owned.is_none() {
            return self.accept(fetched, false, since);
        }
        let is_fresh = |one: &Fetched| one.kind == Kind::Fresh;
        let (fresh, again): (Vec<_>, Vec<_>) = fetched.into_iter().partition(is_fresh);
        self.accept(again, true, since) + self.accept(fresh, false, since)
    }

    /// Enters fetched deliveries and queues them for the workers; skips those in flight already.
    /// Returns how many were new. `taken_over` says that other hand-outs came before; `since` is a
    /// time before the store handed them out.
    pub(crate) fn accept(&self, fetched: Vec<Fetched>, taken_over: bool, since: Instant) -> usize {
        let entries = fetched.iter().map(|one| (one.receipt, one.attempts));
        let leases = self.in_flight.enter(entries, taken_over, since);
        let new = leases.iter().flatten().count();
        if let Some(first) = fetched.first()
            && new > 0
            && self.tracks.count() > 1
        {
            // One track has fetched all of them.
            self.tracks.of(first.receipt).stir.note_accepted();
        }
        self.capacity.occupy(new);
        if let Some(owned) = &self.owned {
            self.bind(owned, &fetched, &leases);
        }
        let queued = fetched.into_iter().zip(leases);
        let queued = queued.filter_map(|(fetched, lease)| {
            let lease = lease?;
            Some(Queued {
                fetched,
                lease,
                again: None,
            })
        });
        if taken_over {
            let alone_from = alone_from(self.options.retry.max_attempts());
            let (suspects, queued): (Vec<_>, Vec<_>) =
                queued.partition(|one| one.lease.before().unexplained() >= alone_from);
            self.suspects.push(suspects.into_iter());
            self.queue.push(queued.into_iter());
        } else {
            self.queue.push(queued);
        }
        if new > 0 {
            self.stir.note_accepted();
        }
        self.meters.delivered.increment(new as u64);
        self.meters.in_flight.set(self.in_flight.len() as f64);
        new
    }

    /// Ties deliveries to the time in which this process owns their partitions.
    fn bind(&self, owned: &OwnedGroup, fetched: &[Fetched], leases: &[Option<Arc<Lease>>]) {
        for (fetched, lease) in fetched.iter().zip(leases) {
            let id = fetched.receipt;
            match (lease, owned.handed_out_in(id)) {
                (Some(lease), Some(tenure)) => lease.bind(tenure),
                // Its time has ended meanwhile. The partition may be back, and hands it out again.
                (Some(lease), None) => {
                    let token = lease.token();
                    self.in_flight.lose([HandOut { id, token }]);
                }
                // A handler of an earlier hand-out still runs here.
                (None, _) => owned.put_back_later(id, RUNS_STILL),
            }
        }
    }
}

/// How many crashes make a message run alone: two, or one where the next would be the last.
fn alone_from(max_attempts: u32) -> u32 {
    max_attempts.saturating_sub(1).clamp(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SubscribeOptions;
    use crate::store::Attempts;
    use crate::worker::fixture::{Fixture, hand_out};

    #[test]
    fn a_message_runs_alone_behind_two_crashes_or_before_its_last_attempt() {
        assert_eq!([1, 2, 3, 8].map(alone_from), [1, 1, 2, 2]);
    }

    #[tokio::test]
    async fn messages_behind_crashes_wait_in_a_queue_of_their_own() {
        let fixture = Fixture::new().await;
        let mut fetched = fixture.fetch(3).await;
        for (crashes, one) in (0..).zip(&mut fetched) {
            one.attempts = Attempts::from(crashes);
        }
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, true);
        let (suspects, others) = (
            core.suspects.next_up_to(9).await,
            core.queue.next_up_to(9).await,
        );
        let crashes = |queued: &[Queued]| {
            queued
                .iter()
                .map(|one| one.lease.before().begun)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (crashes(&suspects), crashes(&others)),
            (vec![2], vec![0, 1])
        );
    }
}
