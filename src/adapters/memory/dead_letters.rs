//! Dead letters, and the journal of operators' changes to them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::adapter::{MemoryAdapter, turn};
use super::state::{GroupState, redelivery_entry};
use crate::domain::{
    BoxFuture, Cause, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error, hour_name,
};
use crate::store::{
    Counted, DeadLetters, Disposition, Found, GroupAt, IdRange, JournalRow, LONGEST_JOURNAL,
    LONGEST_SEARCH, Record, Restored, Restoring,
};
use crate::wire::redelivery::{DEAD_LETTER_FIELD, OPERATION_FIELD};

const HOUR: u64 = 3_600_000;

impl MemoryAdapter {
    /// Works on a group; the answer is the default where the group does not exist.
    fn in_group<T: Default>(&self, at: &GroupAt, work: impl FnOnce(&mut GroupState) -> T) -> T {
        self.with(|space| space.group(at).map(work).unwrap_or_default())
    }

    fn move_each(
        &self,
        at: &GroupAt,
        items: &[(EntryId, Disposition)],
        operation: Option<Uuid>,
    ) -> Vec<bool> {
        let now = self.shared.now();
        let (moved, arrived) = self.with(|space| {
            let none = || (vec![false; items.len()], None);
            let Some(topic) = space.topics.get_mut(&at.partition) else {
                return none();
            };
            let Some(group) = topic.groups.get_mut(&at.group) else {
                return none();
            };
            let by = operation.map(|id| id.to_string()).unwrap_or_default();
            let mut move_out = |(id, disposition): &(EntryId, Disposition)| {
                let Some(record) = group.dead.remove(id) else {
                    return false;
                };
                let entry = match disposition {
                    Disposition::Discard => return true,
                    Disposition::Requeue => vec![
                        (Bytes::from_static(DEAD_LETTER_FIELD), record.body),
                        (Bytes::from_static(OPERATION_FIELD), Bytes::from(by.clone())),
                    ],
                    Disposition::RequeueAs(redelivery) => redelivery_entry(redelivery.clone()),
                };
                group.redelivery.push(now, entry);
                true
            };
            let moved: Vec<bool> = items.iter().map(&mut move_out).collect();
            if let Some(row) = operation.and_then(|id| group.journal.get_mut(&id)) {
                row.taken += moved.iter().filter(|moved| **moved).count() as u64;
                row.cursor = items.last().map(|(id, _)| *id).or(row.cursor);
            }
            (moved, Some(Arc::clone(&topic.arrived)))
        });
        if let Some(arrived) = arrived {
            arrived.notify_waiters();
        }
        moved
    }

    fn search_group(
        &self,
        at: &GroupAt,
        range: IdRange,
        filter: &DeadLetterFilter,
        max: usize,
    ) -> Found {
        let from = range.after.map_or(Bound::Unbounded, Bound::Excluded);
        self.in_group(at, |group| {
            let until = range.until.unwrap_or(EntryId::new(u64::MAX, u64::MAX));
            // A range whose end lies before its beginning is empty, and no range of a map.
            if range.after.is_some_and(|after| until <= after) {
                return Found::default();
            }
            let records = group.dead.range((from, Bound::Included(until)));
            if range.newest_first {
                search(records.rev(), filter, max)
            } else {
                search(records, filter, max)
            }
        })
    }

    fn restore_each(&self, at: &GroupAt, records: &[Restoring], again: bool) -> Vec<Restored> {
        let now = self.shared.now();
        let restore = |group: &mut GroupState| {
            let mut results = Vec::with_capacity(records.len());
            for Restoring {
                identity,
                own,
                record,
            } in records
            {
                let own = own.and_then(|id| group.dead.get(&id));
                let known = group.restored.get(identity);
                let here = own.is_some_and(|own| own.body == record.body)
                    || known.is_some_and(|id| group.dead.contains_key(id));
                results.push(if here {
                    Restored::Present
                } else if known.is_some() && !again {
                    Restored::Gone
                } else {
                    let id = group.dead_letter(record.clone(), now);
                    group.restored.insert(identity.clone(), id);
                    Restored::Added(id)
                });
            }
            results
        };
        self.with(|space| {
            space
                .group(at)
                .map_or_else(|| vec![Restored::Gone; records.len()], restore)
        })
    }

    fn count_causes(&self, at: &GroupAt) -> Counted<Cause> {
        self.in_group(at, |group| {
            let mut causes: BTreeMap<(&str, &str), Cause> = BTreeMap::new();
            for (id, Record { head, .. }) in &group.dead {
                match causes.entry((head.reason.as_str(), &head.fingerprint)) {
                    Entry::Vacant(place) => {
                        place.insert(Cause {
                            reason: head.reason,
                            fingerprint: head.fingerprint.clone(),
                            count: 1,
                            first: *id,
                            last: *id,
                        });
                    }
                    Entry::Occupied(mut place) => {
                        place.get_mut().count += 1;
                        place.get_mut().last = *id;
                    }
                }
            }
            let mut causes: Vec<Cause> = causes.into_values().collect();
            causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
            Counted::first(causes)
        })
    }

    fn count_by(&self, at: &GroupAt, by: CountBy) -> Counted<(String, u64)> {
        self.in_group(at, |group| {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for (id, Record { head, .. }) in &group.dead {
                let name = match by {
                    CountBy::Type => head.message_type.clone(),
                    CountBy::Tenant => head.tenant.clone().unwrap_or_default(),
                    CountBy::Hour => hour_name(id.millis / HOUR),
                };
                *counts.entry(name).or_default() += 1;
            }
            Counted::largest(counts.into_iter().collect(), by)
        })
    }
}

fn search<'a>(
    records: impl Iterator<Item = (&'a EntryId, &'a Record)>,
    filter: &DeadLetterFilter,
    max: usize,
) -> Found {
    let mut found = Found::default();
    for (id, record) in records {
        if found.items.len() >= max || found.looked >= LONGEST_SEARCH as u64 {
            found.more = true;
            break;
        }
        found.looked += 1;
        found.last = Some(*id);
        if filter.matches(*id, &record.head) {
            found.items.push((*id, record.head.clone()));
        }
    }
    found
}

impl DeadLetters for MemoryAdapter {
    fn search<'a>(
        &'a self,
        at: &'a GroupAt,
        range: IdRange,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Found, Error>> {
        turn(move || Ok(self.search_group(at, range, filter, max)))
    }

    fn find<'a>(
        &'a self,
        at: &'a GroupAt,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Record)>, Error>> {
        turn(move || {
            Ok(self.in_group(at, |group| {
                let find = |id: &EntryId| Some((*id, group.dead.get(id)?.clone()));
                ids.iter().filter_map(find).collect()
            }))
        })
    }

    fn weigh<'a>(
        &'a self,
        at: &'a GroupAt,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        turn(move || {
            let mut weights: Vec<u64> = self.in_group(at, |group| {
                let weigh = |id: &EntryId| group.dead.get(id).map_or(0, |one| one.body.len());
                ids.iter().map(|id| weigh(id) as u64).collect()
            });
            // A group that does not exist has none.
            weights.resize(ids.len(), 0);
            Ok(weights)
        })
    }

    fn count<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<u64, Error>> {
        turn(move || Ok(self.in_group(at, |group| group.dead.len() as u64)))
    }

    fn newest<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        turn(move || Ok(self.in_group(at, |group| group.dead.last_key_value().map(|(id, _)| *id))))
    }

    fn move_out<'a>(
        &'a self,
        at: &'a GroupAt,
        items: &'a [(EntryId, Disposition)],
        _: &'a [(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || Ok(self.move_each(at, items, operation)))
    }

    fn restore<'a>(
        &'a self,
        at: &'a GroupAt,
        records: &'a [Restoring],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Restored>, Error>> {
        turn(move || Ok(self.restore_each(at, records, again)))
    }

    fn causes<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Counted<Cause>, Error>> {
        turn(move || Ok(self.count_causes(at)))
    }

    fn counts<'a>(
        &'a self,
        at: &'a GroupAt,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Counted<(String, u64)>, Error>> {
        turn(move || Ok(self.count_by(at, by)))
    }

    fn hours<'a>(
        &'a self,
        at: &'a GroupAt,
        hours: &'a [u64],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        turn(move || {
            let mut counts: Vec<u64> = self.in_group(at, |group| {
                let of = |hour: u64| group.dead.keys().filter(move |id| id.millis / HOUR == hour);
                hours.iter().map(|hour| of(*hour).count() as u64).collect()
            });
            // A group that does not exist has none.
            counts.resize(hours.len(), 0);
            Ok(counts)
        })
    }

    fn begin_operation<'a>(
        &'a self,
        at: &'a GroupAt,
        operation: Uuid,
        order: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.in_group(at, |group| {
                let row = JournalRow {
                    id: operation,
                    order: order.to_owned(),
                    taken: 0,
                    cursor: None,
                    result: None,
                };
                group.journal.insert(operation, row);
                while group.journal.len() > LONGEST_JOURNAL {
                    group.journal.pop_first();
                }
            });
            Ok(())
        })
    }

    fn end_operation<'a>(
        &'a self,
        at: &'a GroupAt,
        operation: Uuid,
        result: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.in_group(at, |group| {
                if let Some(row) = group.journal.get_mut(&operation) {
                    row.result = Some(result.to_owned());
                }
            });
            Ok(())
        })
    }

    fn notes<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Vec<(String, String)>, Error>> {
        turn(move || Ok(self.in_group(at, |group| group.notes.clone().into_iter().collect())))
    }

    fn set_note<'a>(
        &'a self,
        at: &'a GroupAt,
        name: &'a str,
        note: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.in_group(at, |group| {
                match note {
                    Some(note) => group.notes.insert(name.to_owned(), note.to_owned()),
                    None => group.notes.remove(name),
                };
            });
            Ok(())
        })
    }

    fn journal<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Vec<JournalRow>, Error>> {
        turn(move || Ok(self.in_group(at, |group| group.journal.values().cloned().collect())))
    }
}
