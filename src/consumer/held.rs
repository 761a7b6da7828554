//! What this consumer holds: from being fetched until it is settled in the store.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::backend::Receipt;

#[derive(Debug)]
struct Holding {
    cancelled: CancellationToken,
    /// The handler has returned; only the store does not know yet.
    finished: bool,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    table: Mutex<HashMap<Receipt, Holding>>,
}

impl Held {
    fn table(&self) -> MutexGuard<'_, HashMap<Receipt, Holding>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters what was fetched; `None` for what is held already.
    pub(super) fn enter(&self, receipts: &[Receipt]) -> Vec<Option<CancellationToken>> {
        let mut table = self.table();
        let enter = |receipt: &Receipt| {
            let std::collections::hash_map::Entry::Vacant(vacant) = table.entry(*receipt) else {
                return None;
            };
            let cancelled = CancellationToken::new();
            vacant.insert(Holding {
                cancelled: cancelled.clone(),
                finished: false,
            });
            Some(cancelled)
        };
        receipts.iter().map(enter).collect()
    }

    /// The handler has returned.
    pub(super) fn finish(&self, receipt: Receipt) {
        if let Some(holding) = self.table().get_mut(&receipt) {
            holding.finished = true;
        }
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
            if table.get(&receipt).is_some_and(|holding| !holding.finished)
                && let Some(holding) = table.remove(&receipt)
            {
                holding.cancelled.cancel();
                running += 1;
            }
        }
        running
    }

    /// Tells every handler that its result is no longer wanted.
    pub(super) fn cancel(&self) {
        for holding in self.table().values() {
            holding.cancelled.cancel();
        }
    }

    pub(super) fn contains(&self, receipt: Receipt) -> bool {
        self.table().contains_key(&receipt)
    }

    pub(super) fn all(&self) -> Vec<Receipt> {
        self.table().keys().copied().collect()
    }

    /// Those whose handler has not returned.
    pub(super) fn unfinished(&self) -> Vec<Receipt> {
        let table = self.table();
        let open = table.iter().filter(|(_, holding)| !holding.finished);
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

    #[test]
    fn what_is_held_is_not_entered_twice() {
        let held = Held::default();
        assert!(held.enter(&[receipt(1)])[0].is_some());
        assert!(held.enter(&[receipt(1)])[0].is_none());
        held.leave([receipt(1)]);
        assert!(held.enter(&[receipt(1)])[0].is_some());
    }

    #[test]
    fn losing_cancels_a_running_handler_and_spares_a_finished_one() {
        let held = Held::default();
        let tokens = held.enter(&[receipt(1), receipt(2)]);
        held.finish(receipt(2));
        assert_eq!(held.lose([receipt(1), receipt(2), receipt(3)]), 1);
        assert!(tokens[0].as_ref().unwrap().is_cancelled());
        assert!(!tokens[1].as_ref().unwrap().is_cancelled());
        assert_eq!(held.all(), [receipt(2)]);
        assert_eq!(held.unfinished(), []);
    }
}
