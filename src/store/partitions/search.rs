//! A search among the dead letters of all partitions.

use super::Partitioned;
use super::merge::{after_in, until_in};
use crate::domain::{DeadLetterFilter, EntryId, Error};
use crate::store::source::GroupAt;
use crate::store::{Found, IdRange};

pub(super) fn range_in(range: IdRange, number: u16) -> IdRange {
    IdRange {
        after: after_in(range.after, number),
        until: until_in(range.until, number),
        ..range
    }
}

impl Partitioned {
    pub(super) async fn search_spread(
        &self,
        at: &GroupAt,
        range: IdRange,
        filter: &DeadLetterFilter,
        max: usize,
    ) -> Result<Found, Error> {
        let searched = self.each(&at.partition, |store, partition| {
            let range = range_in(range, partition.number());
            let group = at.group.clone();
            let at = GroupAt { partition, group };
            Box::pin(async move { store.dead_letters().search(&at, range, filter, max).await })
        });
        let found = searched.await?.into_iter().map(|(number, mut found)| {
            found.last = found.last.map(|id| id.in_partition(number));
            for (id, _) in &mut found.items {
                *id = id.in_partition(number);
            }
            found
        });
        Ok(merge_found(found.collect(), range.newest_first, max))
    }
}

/// Merges what the partitions found. Nothing follows the place up to which the first unfinished search has
/// come.
///
/// A partition where everything matched counts what the merged list has of it. Of another one nobody knows
/// how much it examined up to the place: what lies beyond is examined, and counted, by the next call again.
fn merge_found(parts: Vec<Found>, newest_first: bool, max: usize) -> Found {
    let is_before = |one: EntryId, other: EntryId| match newest_first {
        true => one > other,
        false => one < other,
    };
    let unfinished = parts.iter().filter(|part| part.more);
    let unfinished = unfinished.filter_map(|part| part.last);
    let mut end = unfinished.reduce(|a, b| if is_before(b, a) { b } else { a });
    let items = parts.iter().flat_map(|part| &part.items);
    let mut ids: Vec<EntryId> = items.map(|(id, _)| *id).collect();
    ids.sort_unstable();
    if newest_first {
        ids.reverse();
    }
    ids.retain(|id| end.is_none_or(|end| !is_before(end, *id)));
    if ids.len() > max
        && let Some(last) = max.checked_sub(1)
    {
        end = Some(ids[last]);
    }
    let looked = parts.iter().filter_map(|part| part.last);
    let last = end.or_else(|| looked.reduce(|a, b| if is_before(a, b) { b } else { a }));
    let mut all = Found {
        last,
        more: end.is_some(),
        ..Found::default()
    };
    for mut part in parts {
        let all_match = part.looked == part.items.len() as u64;
        part.items
            .retain(|(id, _)| end.is_none_or(|end| !is_before(end, *id)));
        all.looked += match all_match {
            true => part.items.len() as u64,
            false => part.looked,
        };
        all.items.extend(part.items);
    }
    all.items.sort_by_key(|(id, _)| *id);
    if newest_first {
        all.items.reverse();
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bare;
    use super::*;
    use crate::domain::{DeadLetterSummary, Reason};

    /// The dead letters of some partitions; those with an even number match.
    struct Letters {
        ids: Vec<EntryId>,
        longest_search: usize,
        filters: bool,
    }

    impl Letters {
        fn matches(&self, id: EntryId) -> bool {
            !self.filters || id.sequence.is_multiple_of(2)
        }

        /// As an adapter searches a partition.
        fn search(&self, number: u16, range: IdRange, max: usize) -> Found {
            let range = range_in(range, number);
            let own = self.ids.iter().filter(|id| id.partition() == number);
            let mut own: Vec<EntryId> = own.map(|id| bare(*id)).collect();
            own.retain(|id| range.after.is_none_or(|after| *id > after));
            own.retain(|id| range.until.is_none_or(|until| *id <= until));
            own.sort_unstable();
            if range.newest_first {
                own.reverse();
            }
            let mut found = Found::default();
            for id in &own {
                if found.items.len() == max || found.looked == self.longest_search as u64 {
                    break;
                }
                found.looked += 1;
                found.last = Some(id.in_partition(number));
                if self.matches(*id) {
                    let head = DeadLetterSummary {
                        reason: Reason::Rejected,
                        fingerprint: String::new(),
                        message_type: String::new(),
                        tenant: None,
                        correlation: None,
                        message_id: None,
                        error: String::new(),
                        attempts: 1,
                        redriven: 0,
                        redriven_by: None,
                        imported_from: None,
                    };
                    found.items.push((id.in_partition(number), head));
                }
            }
            found.more = found.looked < own.len() as u64;
            found
        }
    }

    proptest! {
        #[test]
        fn pages_are_full_in_order_and_complete(
            ids in prop::collection::btree_set((1..4_u64, 0..4_u64, 0..4_u16), 0..40),
            max in 1..9_usize, longest_search in prop_oneof![1..9_usize, Just(40)],
            (filters, newest_first) in any::<(bool, bool)>(),
        ) {
            let ids = ids.into_iter().map(|(millis, sequence, at)| {
                EntryId::new(millis, sequence).in_partition(at)
            });
            let letters = Letters { ids: ids.collect(), longest_search, filters };
            let (mut seen, mut looked) = (Vec::new(), 0);
            let mut rest = Some(IdRange { newest_first, ..IdRange::default() });
            while let Some(range) = rest {
                let parts = (0..4).map(|number| letters.search(number, range, max));
                let found = merge_found(parts.collect(), newest_first, max);
                prop_assert!(found.items.len() <= max);
                // A page is short where a search has come to its bound, and at the end.
                if found.more && longest_search >= 40 {
                    prop_assert_eq!(found.items.len(), max);
                }
                seen.extend(found.items.iter().map(|(id, _)| *id));
                looked += found.looked;
                rest = found.next().and_then(|id| range.beyond(id));
            }
            let mut wanted = letters.ids.clone();
            wanted.retain(|id| letters.matches(*id));
            wanted.sort_unstable();
            if newest_first {
                wanted.reverse();
            }
            prop_assert_eq!(seen, wanted);
            let all = letters.ids.len() as u64;
            prop_assert!(looked >= all, "{} of {}", looked, all);
            prop_assert!(filters || looked == all, "{} of {}", looked, all);
        }
    }
}
