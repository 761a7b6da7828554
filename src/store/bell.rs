//! How a store tells the runtime that something of a group may have changed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::rings::Rings;

/// What a bell rings for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Ring {
    /// Entries of the log or of the group's redelivery stream.
    Entries,
    /// Entries of the redelivery stream. [`Entries`](Self::Entries) rings with it.
    Redeliveries,
    /// Scheduled retries and messages for later.
    Due,
    /// The members of an owned group, and what they own. Rings with partition 0.
    Owners,
}

/// Tells that something of one group may have changed.
///
/// A ring is a hint: of the changes since a look at least the first one rings, and a ring may come without a
/// change. After a ring that nobody looks at, later changes may ring only a second later. While the
/// store cannot hear of changes, [`hears`](Self::hears) is false, and the runtime looks at regular
/// times. When the store begins or ceases to hear, everything rings.
#[derive(Debug, Default)]
pub struct Bell {
    hears: AtomicBool,
    entries: Rings,
    redeliveries: Rings,
    due: Rings,
    owners: Rings,
    /// This bell rings with each of them.
    parts: Vec<Arc<Bell>>,
    /// The bells that this one is a part of.
    wholes: Mutex<Vec<Weak<Bell>>>,
    is_part: AtomicBool,
}

impl Bell {
    /// A bell that rings with each of several, and hears while all of them do.
    #[must_use]
    pub fn over(parts: Vec<Arc<Self>>) -> Arc<Self> {
        let whole = Arc::new(Self {
            parts,
            ..Self::default()
        });
        for part in &whole.parts {
            let mut wholes = part.wholes.lock().unwrap_or_else(PoisonError::into_inner);
            wholes.retain(|whole| whole.strong_count() > 0);
            wholes.push(Arc::downgrade(&whole));
            part.is_part.store(true, Ordering::SeqCst);
        }
        whole
    }

    fn of(&self, ring: Ring) -> &Rings {
        match ring {
            Ring::Entries => &self.entries,
            Ring::Redeliveries => &self.redeliveries,
            Ring::Due => &self.due,
            Ring::Owners => &self.owners,
        }
    }

    /// Whether changes ring now.
    pub fn hears(&self) -> bool {
        match &self.parts[..] {
            [] => self.hears.load(Ordering::Acquire),
            parts => parts.iter().all(|part| part.hears()),
        }
    }

    /// How often it has rung. Read this before a look, and wait with it after the look.
    pub fn count(&self, ring: Ring) -> u64 {
        self.of(ring).count()
    }

    /// Waits until it has rung since [`count`](Self::count) answered `seen`. Cancel safe.
    pub async fn rung_since(&self, ring: Ring, seen: u64) {
        self.of(ring).since(seen).await;
    }

    /// Rings. Adapters call this.
    pub fn ring(&self, ring: Ring) {
        self.of(ring).ring();
        if ring == Ring::Redeliveries {
            self.entries.ring();
        }
        if self.is_part.load(Ordering::SeqCst) {
            let wholes = self.wholes.lock().unwrap_or_else(PoisonError::into_inner);
            for whole in wholes.iter().filter_map(Weak::upgrade) {
                whole.ring(ring);
            }
        }
    }

    /// Says whether changes ring from now on, and rings for everything. Adapters call this
    /// when they begin or cease to hear, and when rings may have been lost.
    pub fn set_hears(&self, hears: bool) {
        self.hears.store(hears, Ordering::Release);
        self.ring(Ring::Redeliveries);
        self.ring(Ring::Due);
        self.ring(Ring::Owners);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_ring_between_the_count_and_the_wait_is_not_lost() {
        let bell = Bell::default();
        let seen = bell.count(Ring::Entries);
        assert_eq!(bell.rung_since(Ring::Entries, seen).now_or_never(), None);
        bell.ring(Ring::Due);
        assert_eq!(bell.rung_since(Ring::Entries, seen).now_or_never(), None);
        bell.ring(Ring::Entries);
        bell.rung_since(Ring::Entries, seen).await;
    }

    #[tokio::test]
    async fn a_bell_over_others_rings_with_each_and_hears_with_all() {
        let parts = [Arc::<Bell>::default(), Arc::default()];
        let whole = Bell::over(parts.to_vec());
        for part in &parts {
            assert!(!whole.hears());
            part.set_hears(true);
            let seen = whole.count(Ring::Entries);
            part.ring(Ring::Due);
            assert_eq!(whole.rung_since(Ring::Entries, seen).now_or_never(), None);
            part.ring(Ring::Entries);
            whole.rung_since(Ring::Entries, seen).await;
        }
        assert!(whole.hears());
        let seen = whole.count(Ring::Due);
        parts[0].set_hears(false);
        whole.rung_since(Ring::Due, seen).await;
        assert!(!whole.hears());
    }

    #[tokio::test]
    async fn everything_rings_when_the_store_begins_or_ceases_to_hear() {
        let bell = Bell::default();
        for hears in [true, true, false] {
            let seen =
                [Ring::Entries, Ring::Redeliveries, Ring::Due].map(|ring| (ring, bell.count(ring)));
            bell.set_hears(hears);
            assert_eq!(bell.hears(), hears);
            for (ring, seen) in seen {
                bell.rung_since(ring, seen).await;
            }
        }
    }
}
