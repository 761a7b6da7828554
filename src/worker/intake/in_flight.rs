//! The deliveries that this consumer holds, from the fetch until the store has settled them.

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

    /// Enters fetched deliveries. Returns the lease of each, `None` for one that is already here.
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

    /// Removes deliveries that the store has settled.
    pub(crate) fn remove(&self, receipts: impl IntoIterator<Item = DeliveryId>) {
        let mut table = self.table();
        for receipt in receipts {
            table.remove(&receipt);
        }
    }

    /// Removes deliveries that passed to other consumers and cancels their handlers. Returns how
    /// many handlers were still running.
    pub(crate) fn lose(&self, receipts: impl IntoIterator<Item = DeliveryId>) -> u64 {
        let mut table = self.table();
        let mut running = 0;
        for receipt in receipts {
            // The settler may have settled a finished one while its lease was being checked.
            if let Entry::Occupied(entry) = table.entry(receipt)
                && !entry.get().is_finished()
            {
                let lease = entry.remove();
                lease.lose();
                running += 1;
            }
        }
        running
    }

    /// Cancels every delivery: its result is no longer wanted.
    pub(crate) fn cancel_all(&self) {
        for lease in self.table().values() {
            lease.cancel();
        }
    }

    pub(crate) fn contains(&self, receipt: DeliveryId) -> bool {
        self.table().contains_key(&receipt)
    }

    pub(crate) fn ids(&self) -> Vec<DeliveryId> {
        self.table().keys().copied().collect()
    }

    /// Whether the handler has returned and the store has not settled the delivery yet.
    pub(crate) fn is_finished(&self, receipt: DeliveryId) -> bool {
        let table = self.table();
        table.get(&receipt).is_some_and(|lease| lease.is_finished())
    }

    /// The number of handlers that were called and have not returned.
    pub(crate) fn running(&self) -> u64 {
        let table = self.table();
        let running = |lease: &&Arc<Lease>| lease.is_running();
        table.values().filter(running).count() as u64
    }

    /// The deliveries whose handler has not returned.
    pub(crate) fn unfinished(&self) -> Vec<DeliveryId> {
        let table = self.table();
        let unfinished = table.iter().filter(|(_, lease)| !lease.is_finished());
        unfinished.map(|(receipt, _)| *receipt).collect()
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

    fn enter(in_flight: &InFlight, sequences: &[u64]) -> Vec<Option<Arc<Lease>>> {
        in_flight.enter(sequences.iter().map(|sequence| receipt(*sequence)))
    }

    #[test]
    fn a_delivery_is_entered_once() {
        let in_flight = InFlight::default();
        assert!(enter(&in_flight, &[1])[0].is_some());
        assert!(enter(&in_flight, &[1])[0].is_none());
        in_flight.remove([receipt(1)]);
        assert!(enter(&in_flight, &[1])[0].is_some());
    }

    #[test]
    fn losing_cancels_a_running_handler_and_spares_a_finished_one() {
        let in_flight = InFlight::default();
        let leases: Vec<_> = enter(&in_flight, &[1, 2]).into_iter().flatten().collect();
        leases[1].finish();
        assert_eq!(in_flight.lose([receipt(1), receipt(2), receipt(3)]), 1);
        assert!(leases[0].is_cancelled() && leases[0].is_lost());
        assert!(!leases[1].is_cancelled() && !leases[1].is_lost());
        assert_eq!(in_flight.ids(), [receipt(2)]);
        assert_eq!(in_flight.unfinished(), []);
    }
}
