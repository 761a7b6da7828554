//! How many entries to ask for at once, by their size.
//!
//! Capacity counts messages, and a link carries bytes: a read of a hundred messages of 900 KiB takes
//! 18 seconds at 5 MiB/s, and the lease of the last one runs all that time. A read therefore asks for
//! about four megabytes, and for less after one that failed or was slow.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::store::Fetched;

/// How many bytes one read should bring, on a good link.
const MOST: usize = 4 * 1024 * 1024;
/// The size that entries are taken to have before the first read.
const FIRST: usize = 64 * 1024;
/// A read of several entries that takes longer is slow. It does not wait: the entries are there.
const SLOW: Duration = Duration::from_secs(1);

/// The size of recent entries, and how many bytes the link carries well.
#[derive(Debug)]
pub(crate) struct Weight {
    average: AtomicUsize,
    budget: AtomicUsize,
}

impl Default for Weight {
    fn default() -> Self {
        Self {
            average: AtomicUsize::new(FIRST),
            budget: AtomicUsize::new(MOST),
        }
    }
}

impl Weight {
    /// How many entries to ask for where the capacity allows `max`; one at least.
    pub(crate) fn limit(&self, max: usize) -> usize {
        let average = self.average.load(Ordering::Relaxed).max(1);
        let fitting = self.budget.load(Ordering::Relaxed) / average;
        max.min(fitting.max(1))
    }

    /// Notes a read or a claim that took this long.
    pub(crate) fn note(&self, fetched: &[Fetched], took: Duration) {
        if fetched.is_empty() {
            return;
        }
        let fields = fetched.iter().flat_map(|one| &one.fields);
        let bytes: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
        let (mean, before) = (bytes / fetched.len(), self.average.load(Ordering::Relaxed));
        // Follows larger entries at once and smaller ones slowly.
        let average = mean.max(before - before.saturating_sub(mean) / 4);
        if average != before {
            self.average.store(average, Ordering::Relaxed);
        }
        if fetched.len() > 1 && took > SLOW {
            self.ask_for_less();
        } else if self.budget.load(Ordering::Relaxed) < MOST {
            let double = |budget: usize| Some((budget * 2).min(MOST));
            let _ = self
                .budget
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, double);
        }
    }

    /// Halves what a read should bring, after one that failed or was slow.
    pub(crate) fn ask_for_less(&self) {
        let halve = |budget: usize| Some((budget / 2).max(1));
        let _ = self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, halve);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntryId;
    use crate::store::{Attempts, DeliveryId, Kind, Lane};

    const QUICK: Duration = Duration::from_millis(1);

    fn fetched(count: usize, size: usize) -> Vec<Fetched> {
        let one = |sequence| Fetched {
            source: 0,
            receipt: DeliveryId {
                lane: Lane::Log,
                id: EntryId::new(1, sequence),
            },
            fields: vec![(bytes::Bytes::new(), vec![0; size].into())],
            attempts: Attempts::default(),
            kind: Kind::Fresh,
        };
        (0..count as u64).map(one).collect()
    }

    #[test]
    fn a_read_of_large_entries_asks_for_few_and_one_of_small_entries_for_all() {
        let weight = Weight::default();
        assert_eq!(weight.limit(1000), 64, "before the first read");
        weight.note(&fetched(2, 1024 * 1024), QUICK);
        assert_eq!(weight.limit(1000), 4);
        weight.note(&fetched(1, 100 * 1024 * 1024), QUICK);
        assert_eq!(weight.limit(1000), 1);
        for _ in 0..64 {
            weight.note(&fetched(10, 100), QUICK);
        }
        assert_eq!(weight.limit(1000), 1000);
        weight.note(&[], Duration::from_secs(9));
        assert_eq!(weight.limit(1000), 1000, "nothing was there to read");
    }

    #[test]
    fn after_a_failed_or_a_slow_read_the_next_asks_for_less_until_reads_are_quick() {
        let weight = Weight::default();
        weight.note(&fetched(4, 1024 * 1024), QUICK);
        weight.ask_for_less();
        assert_eq!(weight.limit(1000), 2);
        weight.note(&fetched(2, 1024 * 1024), Duration::from_secs(2));
        assert_eq!(weight.limit(1000), 1);
        // One entry may have come at the end of a long wait.
        weight.note(&fetched(1, 1024 * 1024), Duration::from_secs(2));
        assert_eq!(weight.limit(1000), 2);
        weight.note(&fetched(2, 1024 * 1024), QUICK);
        assert_eq!(weight.limit(1000), 4);
        for _ in 0..100 {
            weight.ask_for_less();
        }
        assert_eq!(weight.limit(1000), 1);
    }
}
