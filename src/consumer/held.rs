//! What this consumer holds: from being fetched until it is settled in the store.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::backend::Receipt;

/// The state of one delivery's lease, shared by the table, the worker and the user's code.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The handler was called.
    begun: AtomicBool,
    /// The handler has returned; only the store does not know yet.
    finished: AtomicBool,
    /// Another consumer holds the delivery.
    lost: AtomicBool,
    /// The handler's result is no longer wanted.
    cancelled: AtomicBool,
    told: Notify,
}

impl Lease {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) async fn cancelled(&self) {
        // Made before the look, so that it is told of what happens after it.
        let told = self.told.notified();
        if !self.is_cancelled() {
            told.await;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Held {
    table: Mutex<FxHashMap<Receipt, Arc<Lease>>>,
}

impl Held {
    fn table(&self) -> MutexGuard<'_, FxHashMap<Receipt, Arc<Lease>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters what was fetched; `None` for what is held already.
    pub(super) fn enter(&self, receipts: impl Iterator<Item = Receipt>) -> Vec<Option<Arc<Lease>>> {
        let mut table = self.table();
        let enter = |receipt| match table.entry(receipt) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => Some(Arc::clone(vacant.insert(Arc::default()))),
        };
        receipts.map(enter).collect()
    }

    /// The store knows how they ended.
    pub(super) fn leave(&self, receipts: impl IntoIterator<Item = Receipt>) {
        let mut table = self.table();
        for receipt in receipts {
            table.remove(&receipt);
        }
    }

    /// Others hold them now: their handlers are told. Returns how many were still running.
    pub(super) fn lose(&self, receipts: impl IntoIterator<Item = Receipt>) -> u64 {
        let mut table = self.table();
        let mut running = 0;
        for receipt in receipts {
            // One that has finished was settled while its lease was being looked at.
            if let Entry::Occupied(held) = table.entry(receipt)
                && !held.get().is_finished()
            {
                let lease = held.remove();
                lease.lost.store(true, Ordering::Release);
                lease.cancel();
                running += 1;
            }
        }
        running
    }

    /// Tells every handler that its result is no longer wanted.
    pub(super) fn cancel(&self) {
        for lease in self.table().values() {
            lease.cancel();
        }
    }

    pub(super) fn contains(&self, receipt: Receipt) -> bool {
        self.table().contains_key(&receipt)
    }

    pub(super) fn all(&self) -> Vec<Receipt> {
        self.table().keys().copied().collect()
    }

    /// Whether its handler has returned, and only the store does not know yet.
    pub(super) fn is_finished(&self, receipt: Receipt) -> bool {
        let table = self.table();
        table.get(&receipt).is_some_and(|lease| lease.is_finished())
    }

    /// How many handlers were called and have not returned.
    pub(super) fn running(&self) -> u64 {
        let table = self.table();
        let runs =
            |lease: &&Arc<Lease>| lease.begun.load(Ordering::Acquire) && !lease.is_finished();
        table.values().filter(runs).count() as u64
    }

    /// Those whose handler has not returned.
    pub(super) fn unfinished(&self) -> Vec<Receipt> {
        let table = self.table();
        let open = table.iter().filter(|(_, lease)| !lease.is_finished());
        open.map(|(receipt, _)| *receipt).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Lane;
    use crate::domain::EntryId;

    fn receipt(sequence: u64) -> Receipt {
        let id = EntryId {
            millis: 1,
            sequence,
        };
        Receipt {
            lane: Lane::Log,
            id,
        }
    }

    fn enter(held: &Held, sequences: &[u64]) -> Vec<Option<Arc<Lease>>> {
        held.enter(sequences.iter().map(|sequence| receipt(*sequence)))
    }

    #[test]
    fn what_is_held_is_not_entered_twice() {
        let held = Held::default();
        assert!(enter(&held, &[1])[0].is_some());
        assert!(enter(&held, &[1])[0].is_none());
        held.leave([receipt(1)]);
        assert!(enter(&held, &[1])[0].is_some());
    }

    #[test]
    fn losing_cancels_a_running_handler_and_spares_a_finished_one() {
        let held = Held::default();
        let leases: Vec<_> = enter(&held, &[1, 2]).into_iter().flatten().collect();
        leases[1].finish();
        assert_eq!(held.lose([receipt(1), receipt(2), receipt(3)]), 1);
        assert!(leases[0].is_cancelled() && leases[0].is_lost());
        assert!(!leases[1].is_cancelled() && !leases[1].is_lost());
        assert_eq!(held.all(), [receipt(2)]);
        assert_eq!(held.unfinished(), []);
    }

    #[tokio::test]
    async fn everyone_who_waits_is_told_and_who_comes_later_too() {
        let lease = Arc::new(Lease::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let lease = Arc::clone(&lease);
                tokio::spawn(async move { lease.cancelled().await })
            })
            .collect();
        tokio::task::yield_now().await;
        lease.cancel();
        for one in waiting {
            one.await.unwrap();
        }
        lease.cancelled().await;
    }
}
