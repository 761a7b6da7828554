//! Dead letters: looking, taking out, putting in, and the journal of who did that.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::adapter::{MemoryAdapter, turn};
use super::promote::redo_entry;
use super::store::GroupState;
use crate::domain::BoxFuture;
use crate::domain::{
    Cause, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error, Group, Topic, hour_name,
};
use crate::store::{
    DeadLetterStore, Disposition, Found, IdRange, JournalRow, LONGEST_JOURNAL, LONGEST_SEARCH,
    Record, Restoring,
};
use crate::wire::redelivery::{DEAD_LETTER_FIELD, OPERATION_FIELD};

const HOUR: u64 = 3_600_000;

impl MemoryAdapter {
    /// Looks at a group; what there is to see of one that does not exist is nothing.
    fn grave<T: Default>(
        &self,
        topic: &Topic,
        group: &Group,
        look: impl FnOnce(&mut GroupState) -> T,
    ) -> T {
        self.with(|space| space.group(topic, group).map(look).unwrap_or_default())
    }

    fn take_some(
        &self,
        topic: &Topic,
        group: &Group,
        items: &[(EntryId, Disposition)],
        operation: Option<Uuid>,
    ) -> Vec<bool> {
        let now = self.shared.now();
        let (taken, arrived) = self.with(|space| {
            let none = || (vec![false; items.len()], None);
            let Some(topic) = space.topics.get_mut(topic) else {
                return none();
            };
            let Some(group) = topic.groups.get_mut(group) else {
                return none();
            };
            let by = operation.map(|id| id.to_string()).unwrap_or_default();
            let mut take = |(id, onward): &(EntryId, Disposition)| {
                let Some(record) = group.dead.remove(id) else {
                    return false;
                };
                let entry = match onward {
                    Disposition::Discard => return true,
                    Disposition::Requeue => vec![
                        (Bytes::from_static(DEAD_LETTER_FIELD), record.body),
                        (Bytes::from_static(OPERATION_FIELD), Bytes::from(by.clone())),
                    ],
                    Disposition::RequeueAs(redelivery) => redo_entry(redelivery.clone()),
                };
                group.redo.push(now, entry);
                true
            };
            let taken: Vec<bool> = items.iter().map(&mut take).collect();
            if let Some(row) = operation.and_then(|id| group.journal.get_mut(&id)) {
                row.taken += taken.iter().filter(|taken| **taken).count() as u64;
                row.cursor = items.last().map(|(id, _)| *id).or(row.cursor);
            }
            (taken, Some(Arc::clone(&topic.arrived)))
        });
        if let Some(arrived) = arrived {
            arrived.notify_waiters();
        }
        taken
    }

    fn look_for(
        &self,
        topic: &Topic,
        group: &Group,
        span: IdRange,
        filter: &DeadLetterFilter,
        max: usize,
    ) -> Found {
        let from = span.after.map_or(Bound::Unbounded, Bound::Excluded);
        let until = span.until.unwrap_or(EntryId {
            millis: u64::MAX,
            sequence: u64::MAX,
        });
        self.grave(topic, group, |group| {
            let mut found = Found::default();
            let records = group.dead.range((from, Bound::Unbounded));
            for (id, record) in records.take_while(|(id, _)| **id <= until) {
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
        })
    }

    fn put_in(
        &self,
        topic: &Topic,
        group: &Group,
        records: &[Restoring],
        again: bool,
    ) -> Vec<Option<EntryId>> {
        let now = self.shared.now();
        let put = |group: &mut GroupState| {
            let mut ids = Vec::with_capacity(records.len());
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
                if here || (known.is_some() && !again) {
                    ids.push(None);
                    continue;
                }
                let id = group.bury(record.clone(), now);
                group.restored.insert(identity.clone(), id);
                ids.push(Some(id));
            }
            ids
        };
        self.with(|space| {
            space
                .group(topic, group)
                .map_or_else(|| vec![None; records.len()], put)
        })
    }

    fn count_causes(&self, topic: &Topic, group: &Group) -> Vec<Cause> {
        self.grave(topic, group, |group| {
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
            causes
        })
    }

    fn tally(&self, topic: &Topic, group: &Group, by: CountBy) -> Vec<(String, u64)> {
        self.grave(topic, group, |group| {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for (id, Record { head, .. }) in &group.dead {
                let name = match by {
                    CountBy::Type => head.message_type.clone(),
                    CountBy::Tenant => head.tenant.clone().unwrap_or_default(),
                    CountBy::Hour => hour_name(id.millis / HOUR),
                };
                *counts.entry(name).or_default() += 1;
            }
            counts.into_iter().collect()
        })
    }
}

impl DeadLetterStore for MemoryAdapter {
    fn search<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        span: IdRange,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Found, Error>> {
        turn(move || Ok(self.look_for(topic, group, span, filter, max)))
    }

    fn find<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Record)>, Error>> {
        turn(move || {
            Ok(self.grave(topic, group, |group| {
                let find = |id: &EntryId| Some((*id, group.dead.get(id)?.clone()));
                ids.iter().filter_map(find).collect()
            }))
        })
    }

    fn newest<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        turn(move || {
            Ok(self.grave(topic, group, |group| {
                group.dead.last_key_value().map(|(id, _)| *id)
            }))
        })
    }

    fn move_out<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        items: &'a [(EntryId, Disposition)],
        _: &'a [(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || Ok(self.take_some(topic, group, items, operation)))
    }

    fn restore<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        records: &'a [Restoring],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Option<EntryId>>, Error>> {
        turn(move || Ok(self.put_in(topic, group, records, again)))
    }

    fn causes<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<Cause>, Error>> {
        turn(move || Ok(self.count_causes(topic, group)))
    }

    fn counts<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, Error>> {
        turn(move || Ok(self.tally(topic, group, by)))
    }

    fn begin_operation<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        operation: Uuid,
        order: String,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.grave(topic, group, |group| {
                let row = JournalRow {
                    id: operation,
                    order,
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
        topic: &'a Topic,
        group: &'a Group,
        operation: Uuid,
        result: String,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.grave(topic, group, |group| {
                if let Some(row) = group.journal.get_mut(&operation) {
                    row.result = Some(result);
                }
            });
            Ok(())
        })
    }

    fn journal<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<JournalRow>, Error>> {
        turn(move || {
            Ok(self.grave(topic, group, |group| {
                group.journal.values().cloned().collect()
            }))
        })
    }
}
