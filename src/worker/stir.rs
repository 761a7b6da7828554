//! What gives the background jobs of a subscription something to do, so that they need not look at
//! regular times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::store::{Bell, Ring, Rings};

/// How long a job waits although nothing stirs. The bell makes a lost connection good itself, so this
/// is for faults that nobody thought of.
pub(crate) const LOOK_ANYWAY: Duration = Duration::from_secs(60 * 60);

/// The deliveries that come in, and the bell of the group.
#[derive(Debug, Default)]
pub(crate) struct Stir {
    /// Without one, the store cannot tell of changes.
    bell: Option<Arc<Bell>>,
    /// Counts reads and reclaims that brought deliveries.
    accepted: Rings,
    /// One more than the rings before the last read that found nothing; 0 before the first.
    read_all: AtomicU64,
}

/// A moment in the life of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Moment {
    entries: u64,
    accepted: u64,
}

impl Stir {
    pub(crate) fn new(bell: Option<Arc<Bell>>) -> Self {
        Self {
            bell,
            ..Self::default()
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let bell = self.bell.as_ref();
        Moment {
            entries: bell.map_or(0, |bell| bell.count(Ring::Entries)),
            accepted: self.accepted.count(),
        }
    }

    /// Whether changes of the group ring.
    pub(crate) fn is_heard(&self) -> bool {
        self.bell.as_ref().is_some_and(|bell| bell.hears())
    }

    /// Notes that deliveries came in.
    pub(crate) fn note_accepted(&self) {
        self.accepted.ring();
    }

    /// Notes that a read that began at a moment found nothing: no entry that was there then waits for
    /// a first delivery.
    pub(crate) fn note_nothing_read(&self, began: Moment) {
        let entries = began.entries.wrapping_add(1);
        self.read_all.store(entries, Ordering::SeqCst);
    }

    /// Whether nothing waits for a first delivery, since no entry has come after a read found nothing.
    pub(crate) fn has_read_all(&self, now: Moment) -> bool {
        self.is_heard() && self.read_all.load(Ordering::SeqCst) == now.entries.wrapping_add(1)
    }

    /// Waits until deliveries have come in since a moment. Cancel safe.
    pub(crate) async fn accepted_since(&self, moment: Moment) {
        self.accepted.since(moment.accepted).await;
    }

    /// Waits until something stirs: an entry, a delivery, or the bell ceases to hear. Looks after an
    /// hour anyway, or after `at_most`. Cancel safe.
    pub(crate) async fn since(&self, moment: Moment, at_most: Option<Duration>) {
        let anyway = at_most.unwrap_or(LOOK_ANYWAY).min(LOOK_ANYWAY);
        let rung = async {
            match &self.bell {
                Some(bell) => bell.rung_since(Ring::Entries, moment.entries).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = rung => {}
            () = self.accepted.since(moment.accepted) => {}
            // Spread out, because subscriptions that begin together would look together.
            () = sleep(anyway.mul_f64(0.75 + fastrand::f64() / 4.0)) => {}
        }
    }

    /// How often scheduled retries have changed.
    pub(crate) fn due_count(&self) -> u64 {
        let bell = self.bell.as_ref();
        bell.map_or(0, |bell| bell.count(Ring::Due))
    }

    /// Waits until scheduled retries have changed, or the bell begins or ceases to hear. Cancel safe.
    pub(crate) async fn due_since(&self, seen: u64) {
        match &self.bell {
            Some(bell) => bell.rung_since(Ring::Due, seen).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_ring_after_the_read_that_found_nothing_means_that_something_may_wait() {
        let bell = Arc::<Bell>::default();
        let stir = Stir::new(Some(Arc::clone(&bell)));
        bell.set_hears(true);
        let began = stir.now();
        assert!(!stir.has_read_all(began), "nothing was read");
        stir.note_nothing_read(began);
        assert!(stir.has_read_all(stir.now()));
        bell.ring(Ring::Entries);
        assert!(!stir.has_read_all(stir.now()));
        stir.note_nothing_read(stir.now());
        bell.set_hears(false);
        assert!(!stir.has_read_all(began), "a deaf bell tells nothing");
    }

    #[tokio::test]
    async fn a_ring_and_a_delivery_stir() {
        let bell = Arc::<Bell>::default();
        let stir = Stir::new(Some(Arc::clone(&bell)));
        let moment = stir.now();
        assert_eq!(stir.since(moment, None).now_or_never(), None);
        bell.ring(Ring::Due);
        assert_eq!(stir.since(moment, None).now_or_never(), None);
        bell.ring(Ring::Entries);
        stir.since(moment, None).await;
        let moment = stir.now();
        assert_eq!(stir.accepted_since(moment).now_or_never(), None);
        stir.note_accepted();
        stir.since(moment, None).await;
        stir.accepted_since(moment).await;
    }
}
