//! A sequence of entries, and a group's cursor over it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{ConsumerName, EntryId};
use crate::store::{Attempts, DeliveryId, Fetched, Fields, Holder, Kind, Lane};

/// The id that follows `last` at a time in milliseconds: it always grows.
pub(super) fn next_id(last: EntryId, now: u64) -> EntryId {
    let fresh = EntryId::new(now, 0);
    if fresh > last { fresh } else { after(last) }
}

/// The smallest id above another.
fn after(id: EntryId) -> EntryId {
    match id.sequence.checked_add(1) {
        Some(sequence) => EntryId::new(id.millis, sequence),
        None => EntryId::new(id.millis.saturating_add(1), 0),
    }
}

/// Entries by growing ids. Only the oldest entries are ever removed.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    entries: VecDeque<(EntryId, Fields)>,
    last: EntryId,
}

impl Sequence {
    pub(super) fn push(&mut self, now: u64, fields: Fields) -> EntryId {
        let id = next_id(self.last, now);
        self.last = id;
        self.entries.push_back((id, fields));
        id
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The newest id ever given; its entry may be gone.
    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    pub(super) fn newest(&self) -> Option<EntryId> {
        self.entries.back().map(|(id, _)| *id)
    }

    /// The newest entries, oldest first.
    pub(super) fn latest(&self, max: usize) -> impl Iterator<Item = &(EntryId, Fields)> {
        self.entries.range(self.entries.len().saturating_sub(max)..)
    }

    /// Entries before an id, or all, newest first.
    pub(super) fn before(&self, id: Option<EntryId>) -> impl Iterator<Item = &(EntryId, Fields)> {
        let end = id.map_or(self.entries.len(), |id| {
            self.entries.partition_point(|(known, _)| *known < id)
        });
        self.entries.range(..end).rev()
    }

    /// How many entries there are from an id on.
    pub(super) fn len_from(&self, id: EntryId) -> u64 {
        let before = self.entries.partition_point(|(known, _)| *known < id);
        (self.entries.len() - before) as u64
    }

    fn get(&self, id: EntryId) -> Option<&Fields> {
        let at = self.entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.entries.get(at).map(|(_, fields)| fields)
    }

    /// Entries after an id, oldest first.
    pub(super) fn after(&self, id: Option<EntryId>) -> impl Iterator<Item = &(EntryId, Fields)> {
        let first = id.map_or(0, |id| {
            self.entries.partition_point(|(known, _)| *known <= id)
        });
        self.entries.range(first..)
    }

    /// Removes the oldest entry while `goes` says so, given its id and how many entries there are.
    pub(super) fn trim(&mut self, goes: impl Fn(EntryId, u64) -> bool) -> u64 {
        let mut removed = 0;
        while let Some((id, _)) = self.entries.front() {
            if !goes(*id, self.len()) {
                break;
            }
            self.entries.pop_front();
            removed += 1;
        }
        removed
    }
}

/// The state of an entry that a consumer was given and has not settled.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) consumer: ConsumerName,
    /// When its lease began; `None` after a release.
    pub(super) since: Option<Instant>,
    /// The attempts so far; `None` for a fetched entry without a mark.
    pub(super) attempts: Option<Attempts>,
}

impl Pending {
    pub(super) fn release(&mut self, attempts: Option<Attempts>) {
        self.since = None;
        self.attempts = Some(attempts.or(self.attempts).unwrap_or_default());
    }
}

/// The number of a source among those of a reader, and its lane.
pub(super) type Origin = (u16, Lane);

/// How far a group has come in a sequence.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    pub(super) delivered: EntryId,
    pub(super) pending: BTreeMap<EntryId, Pending>,
}

/// The entries of one lane whose lease had expired.
#[derive(Debug, Default)]
pub(super) struct TakenOver {
    pub(super) taken: Vec<Fetched>,
    pub(super) next: EntryId,
    pub(super) missing: u64,
}

impl Cursor {
    /// How many entries the group was not given yet.
    pub(super) fn lag(&self, sequence: &Sequence) -> u64 {
        sequence.after(Some(self.delivered)).size_hint().0 as u64
    }

    /// The smallest id that the group still needs, of an entry now or later.
    pub(super) fn floor(&self) -> EntryId {
        let next = after(self.delivered);
        let first = self.pending.keys().next();
        first.map_or(next, |first| next.min(*first))
    }

    /// Gives a consumer entries that no consumer was given yet.
    pub(super) fn take(
        &mut self,
        sequence: &Sequence,
        (source, lane): Origin,
        consumer: &ConsumerName,
        max: usize,
    ) -> Vec<Fetched> {
        let since = Some(Instant::now());
        let mut fetched = Vec::new();
        for (id, fields) in sequence.after(Some(self.delivered)).take(max) {
            let pending = Pending {
                consumer: consumer.clone(),
                since,
                attempts: None,
            };
            self.pending.insert(*id, pending);
            fetched.push(Fetched {
                source,
                receipt: DeliveryId { lane, id: *id },
                fields: fields.clone(),
                attempts: Attempts::default(),
                kind: Kind::Fresh,
            });
        }
        if let Some(last) = fetched.last() {
            self.delivered = last.receipt.id;
        }
        fetched
    }

    /// The pending entry, where the consumer holds it.
    pub(super) fn pending_of(
        &mut self,
        id: EntryId,
        consumer: &ConsumerName,
    ) -> Option<&mut Pending> {
        self.pending
            .get_mut(&id)
            .filter(|pending| pending.consumer == *consumer)
    }

    /// Who holds an entry, as a consumer sees it.
    pub(super) fn holder(&self, id: EntryId, consumer: &ConsumerName) -> Holder {
        match self.pending.get(&id) {
            Some(pending) if pending.consumer == *consumer => Holder::Member,
            Some(_) => Holder::Other,
            None => Holder::Nobody,
        }
    }

    /// Gives a consumer entries that others have held for longer than a lease.
    pub(super) fn take_over(
        &mut self,
        sequence: &Sequence,
        (source, lane): Origin,
        consumer: &ConsumerName,
        (lease, unmarked): (Duration, u32),
        from: EntryId,
        max: usize,
    ) -> TakenOver {
        let now = Instant::now();
        let mut result = TakenOver::default();
        let mut gone = Vec::new();
        for (id, pending) in self.pending.range_mut(from..) {
            if result.taken.len() >= max {
                result.next = *id;
                break;
            }
            let expired = pending
                .since
                .is_none_or(|since| now.saturating_duration_since(since) >= lease);
            if !expired {
                continue;
            }
            let Some(fields) = sequence.get(*id) else {
                gone.push(*id);
                continue;
            };
            pending.consumer = consumer.clone();
            pending.since = Some(now);
            let attempts = *pending.attempts.get_or_insert(unmarked.into());
            result.taken.push(Fetched {
                source,
                receipt: DeliveryId { lane, id: *id },
                fields: fields.clone(),
                attempts,
                kind: Kind::Fresh,
            });
        }
        result.missing = gone.len() as u64;
        for id in gone {
            self.pending.remove(&id);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64, sequence: u64) -> EntryId {
        EntryId::new(millis, sequence)
    }

    #[test]
    fn ids_grow_while_the_clock_stands_or_goes_back() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.push(0, Vec::new()), id(0, 1));
        assert_eq!(sequence.push(7, Vec::new()), id(7, 0));
        assert_eq!(sequence.push(7, Vec::new()), id(7, 1));
        assert_eq!(sequence.push(3, Vec::new()), id(7, 2));
        assert_eq!(next_id(id(7, u64::MAX), 7), id(8, 0));
    }

    #[test]
    fn a_cursor_knows_its_lag_and_its_floor() {
        let consumer = ConsumerName::new("c").unwrap();
        let mut sequence = Sequence::default();
        for _ in 0..5 {
            sequence.push(1, Vec::new());
        }
        let mut cursor = Cursor::default();
        assert_eq!(cursor.lag(&sequence), 5);
        assert_eq!(
            cursor.take(&sequence, (0, Lane::Log), &consumer, 3).len(),
            3
        );
        assert_eq!(cursor.lag(&sequence), 2);
        cursor.pending.remove(&id(1, 0));
        assert_eq!(cursor.floor(), id(1, 1));
        assert_eq!(sequence.trim(|id, _| id < cursor.floor()), 1);
        cursor.pending.clear();
        assert_eq!(cursor.floor(), id(1, 3));
        assert_eq!(cursor.lag(&sequence), 2);
    }
}
