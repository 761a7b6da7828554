//! What this consumer holds: from being fetched until it is settled in the store.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::api::lease::Lease;
use crate::store::DeliveryId;

#[derive(Debug, Default)]
pub(crate) struct InFlight {
    table: Mutex<FxHashMap<DeliveryId, Arc<Lease>>>,
}

impl InFlight {
    fn table(&self) -> MutexGuard<'_, FxHashMap<DeliveryId, Arc<Lease>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters what was fetched; `None` for what is held already.
    pub(crate) fn enter(
        &self,
        receipts: impl Iterator<Item = DeliveryId>,
    ) -> Vec<Option<Arc<Lease>>> {
        let mut table = self.table();
        let enter = |receipt| match table.entry(receipt) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => Some(Arc::clone(vacant.insert(Arc::default()))),
        };
        receipts.map(enter).collect()
    }

    /// The store knows how they ended.
    pub(crate) fn leave(&self, receipts: impl IntoIterator<Item = DeliveryId>) {
        let mut table = self.table();
        for receipt in receipts {
            table.remove(&receipt);
        }
    }

    /// Others hold them now: their handlers are told. Returns how many were still running.
    pub(crate) fn lose(&self, receipts: impl IntoIterator<Item = DeliveryId>) -> u64 {
        let mut table = self.table();
        let mut running = 0;
        for receipt in receipts {
            // One that has finished was settled while its lease was being looked at.
            if let Entry::Occupied(held) = table.entry(receipt)
                && !held.get().is_finished()
            {
                let lease = held.remove();
                lease.lose();
                running += 1;
            }
        }
        running
    }

    /// Tells every handler that its result is no longer wanted.
    pub(crate) fn cancel(&self) {
        for lease in self.table().values() {
            lease.cancel();
        }
    }

    pub(crate) fn contains(&self, receipt: DeliveryId) -> bool {
        self.table().contains_key(&receipt)
    }

    pub(crate) fn all(&self) -> Vec<DeliveryId> {
        self.table().keys().copied().collect()
    }

    /// Whether its handler has returned, and only the store does not know yet.
    pub(crate) fn is_finished(&self, receipt: DeliveryId) -> bool {
        let table = self.table();
        table.get(&receipt).is_some_and(|lease| lease.is_finished())
    }

    /// How many handlers were called and have not returned.
    pub(crate) fn running(&self) -> u64 {
        let table = self.table();
        let runs = |lease: &&Arc<Lease>| lease.is_running();
        table.values().filter(runs).count() as u64
    }

    /// Those whose handler has not returned.
    pub(crate) fn unfinished(&self) -> Vec<DeliveryId> {
        let table = self.table();
        let open = table.iter().filter(|(_, lease)| !lease.is_finished());
        open.map(|(receipt, _)| *receipt).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.table().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntryId;
    use crate::store::Lane;

    fn receipt(sequence: u64) -> DeliveryId {
        let id = EntryId {
            millis: 1,
            sequence,
        };
        DeliveryId {
            lane: Lane::Log,
            id,
        }
    }

    fn enter(held: &InFlight, sequences: &[u64]) -> Vec<Option<Arc<Lease>>> {
        held.enter(sequences.iter().map(|sequence| receipt(*sequence)))
    }

    #[test]
    fn what_is_held_is_not_entered_twice() {
        let held = InFlight::default();
        assert!(enter(&held, &[1])[0].is_some());
        assert!(enter(&held, &[1])[0].is_none());
        held.leave([receipt(1)]);
        assert!(enter(&held, &[1])[0].is_some());
    }

    #[test]
    fn losing_cancels_a_running_handler_and_spares_a_finished_one() {
        let held = InFlight::default();
        let leases: Vec<_> = enter(&held, &[1, 2]).into_iter().flatten().collect();
        leases[1].finish();
        assert_eq!(held.lose([receipt(1), receipt(2), receipt(3)]), 1);
        assert!(leases[0].is_cancelled() && leases[0].is_lost());
        assert!(!leases[1].is_cancelled() && !leases[1].is_lost());
        assert_eq!(held.all(), [receipt(2)]);
        assert_eq!(held.unfinished(), []);
    }
}
