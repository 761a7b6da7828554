//! Gives deliveries back that this consumer does not finish: no attempt counts.

use std::sync::atomic::Ordering;

use crate::domain::Error;
use crate::store::{Attempts, Commit, Commits, DeliveryId, Fate, Replies};
use crate::worker::core::Core;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::queue::Queued;
use crate::worker::ownership::OwnedGroup;

impl Core {
    /// Releases deliveries; no attempt counts. Returns how many this consumer still had.
    pub(crate) async fn release(
        &self,
        ids: impl Iterator<Item = DeliveryId>,
    ) -> Result<u64, Error> {
        let release = |id| match self.in_flight.begun_before(id) {
            Some(before) => Commit::release_counted(id, before),
            None => Commit::release(id),
        };
        let commits: Commits = ids.map(release).collect();
        if commits.is_empty() {
            return Ok(0);
        }
        let fates = self.commit_releases(&commits).await?;
        Ok(fates.iter().filter(|fate| **fate == Fate::Done).count() as u64)
    }

    /// Releases deliveries, as the commits say.
    pub(crate) async fn commit_releases(&self, commits: &Commits) -> Result<Vec<Fate>, Error> {
        let replies = self.store.deliveries().commit(&self.member, commits).await;
        let replies = replies.and_then(Replies::answered);
        replies.inspect_err(|error| self.in_flight.note_late_releases(error, commits))
    }

    /// Takes queued deliveries of some partitions of an owned group back from the workers, because another
    /// process gets these partitions.
    pub(crate) fn take_back(&self, is_given: impl Fn(u16) -> bool) {
        let is_of = |one: &Queued| is_given(one.fetched.receipt.id.partition());
        let mut waiting = self.queue.remove_if(is_of);
        waiting.extend(self.suspects.remove_if(is_of));
        drop(self.capacity.slots(waiting.len()));
        let hand_outs = waiting.iter().map(|one| HandOut {
            id: one.fetched.receipt,
            token: one.lease.token(),
        });
        if let Some(owned) = &self.owned {
            self.put_back(owned, hand_outs);
        }
    }

    /// Returns deliveries of an owned group that no handler has begun.
    pub(crate) fn put_back(&self, owned: &OwnedGroup, hand_outs: impl Iterator<Item = HandOut>) {
        self.put_back_by(hand_outs, |all| owned.put_back(all));
    }

    /// The same for deliveries whose attempts may be marked in the store: no attempt counts.
    pub(crate) fn put_back_marked(
        &self,
        owned: &OwnedGroup,
        hand_outs: impl Iterator<Item = HandOut>,
    ) {
        self.put_back_by(hand_outs, |all| owned.put_back_marked(all));
    }

    fn put_back_by(
        &self,
        hand_outs: impl Iterator<Item = HandOut>,
        put_back: impl FnOnce(&mut dyn Iterator<Item = (DeliveryId, Attempts)>),
    ) {
        // Skips a delivery that was handed out again: its handler may run.
        let current: Vec<_> = hand_outs.filter(|one| self.in_flight.has(*one)).collect();
        if self.stop.is_cancelled() {
            let count = current.len() as u64;
            self.put_back.fetch_add(count, Ordering::Relaxed);
        }
        // The partition first: a recovery puts back what it has handed out and nothing here has in flight.
        // A lost lease is known here only once: the partition must learn that its attempt was no crash.
        let before = |one: &HandOut| Some((one.id, self.in_flight.begun_before(one.id)?));
        put_back(&mut current.iter().filter_map(before));
        self.in_flight.remove(current);
        self.meters.in_flight.set(self.in_flight.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use crate::api::SubscribeOptions;
    use crate::store::{Begin, Holder};
    use crate::worker::fixture::Fixture;

    #[tokio::test]
    async fn a_cancelled_attempt_is_given_back_uncounted() {
        let fixture = Fixture::new().await;
        let id = fixture.fetch(1).await[0].receipt;
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        // Another consumer has crashed with it.
        let now = Instant::now();
        core.in_flight.enter([(id, 1)].into_iter(), true, now);
        let begins = [Begin {
            delivery: id,
            attempts: 2.into(),
        }];
        let begun = fixture
            .store
            .deliveries()
            .begin(&core.member, &begins)
            .await;
        assert_eq!(begun.unwrap(), [Holder::Member]);
        assert_eq!(core.release([id].into_iter()).await.unwrap(), 1);
        assert_eq!(fixture.given_back().await, [(id, 1)]);
    }
}
