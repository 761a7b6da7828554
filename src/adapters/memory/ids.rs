//! The ids of messages that were published once, each for its window.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use crate::domain::EntryId;

#[derive(Debug, Default)]
pub(super) struct Ids {
    /// The entry of each message, and when its window ends, in milliseconds.
    entries: HashMap<Uuid, (EntryId, u64)>,
    ends: BTreeSet<(u64, Uuid)>,
}

impl Ids {
    /// The entry of a message, where it was appended within a window before now.
    pub(super) fn within(&self, id: Uuid, window: u64, now: u64) -> Option<EntryId> {
        let (entry, _) = self.entries.get(&id)?;
        let age = now.saturating_sub(entry.millis);
        (age < window).then_some(*entry)
    }

    pub(super) fn remember(&mut self, id: Uuid, entry: EntryId, window: u64, now: u64) {
        while let Some((end, gone)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.ends.remove(&(end, gone));
            self.entries.remove(&gone);
        }
        let end = entry.millis.saturating_add(window);
        if let Some((_, before)) = self.entries.insert(id, (entry, end)) {
            self.ends.remove(&(before, id));
        }
        self.ends.insert((end, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_its_window_and_then_takes_no_memory() {
        let mut ids = Ids::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let entry = |millis| EntryId::new(millis, 0);
        ids.remember(one, entry(100), 10, 100);
        assert_eq!(ids.within(one, 10, 109), Some(entry(100)));
        assert_eq!(ids.within(one, 10, 110), None);
        assert_eq!(ids.within(two, 10, 100), None);
        // Remembered again after its window: only the later end counts.
        ids.remember(one, entry(112), 10, 112);
        ids.remember(two, entry(115), 10, 115);
        assert_eq!(ids.within(one, 10, 121), Some(entry(112)));
        ids.remember(two, entry(130), 10, 130);
        assert_eq!((ids.entries.len(), ids.ends.len()), (1, 1));
    }
}
