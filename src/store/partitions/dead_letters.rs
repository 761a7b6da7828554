//! Dead letters over partitions: each stays in the partition of its message. Lists merge by id, counts are
//! sums, and an operation has a row in the journal of each partition.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};

use uuid::Uuid;

use super::search::range_in;
use super::{Partitioned, bare, group_at, scatter};
use crate::domain::{
    BoxFuture, Cause, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error, crc16,
};
use crate::store::source::GroupAt;
use crate::store::{
    Counted, DeadLetters, Disposition, Found, IdRange, JournalRow, Restored, Restoring,
};
use crate::wire::Record;

type Summary = (EntryId, DeadLetterSummary);

/// A row of each partition as one. The operation has come as far as on the partition where it is furthest
/// behind, so that a resumed one misses nothing.
fn join_rows(one: JournalRow, other: JournalRow) -> JournalRow {
    JournalRow {
        id: one.id,
        order: one.order,
        taken: one.taken + other.taken,
        cursor: match (one.cursor, other.cursor) {
            (Some(one), Some(other)) => Some(one.min(other)),
            _ => None,
        },
        result: one.result.or(other.result),
    }
}

impl DeadLetters for Partitioned {
    fn search<'a>(
        &'a self,
        at: &'a GroupAt,
        range: IdRange,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Found, Error>> {
        if self.is_single(&at.partition) {
            return self
                .inner
                .dead_letters()
                .search(at, range_in(range, 0), filter, max);
        }
        Box::pin(self.search_spread(at, range, filter, max))
    }

    fn find<'a>(
        &'a self,
        at: &'a GroupAt,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Record)>, Error>> {
        if ids.iter().all(|id| id.partition() == 0) {
            return self.inner.dead_letters().find(at, ids);
        }
        Box::pin(async move {
            // Absent ones are left out, so the answers are joined by their ids.
            let call = |number: u16, ids: Vec<EntryId>| -> BoxFuture<'a, _> {
                Box::pin(async move {
                    let at = group_at(at, number);
                    let found = self.inner.dead_letters().find(&at, &ids).await?;
                    let mut found: HashMap<EntryId, Record> = found.into_iter().collect();
                    let records = ids.iter().map(|id| {
                        let record = found.remove(id)?;
                        Some((id.in_partition(number), record))
                    });
                    Ok(records.collect::<Vec<_>>())
                })
            };
            let ids = ids.iter().map(|id| (id.partition(), bare(*id)));
            let found = scatter(ids, call, |_| None).await?;
            Ok(found.into_iter().flatten().collect())
        })
    }

    fn weigh<'a>(
        &'a self,
        at: &'a GroupAt,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        if ids.iter().all(|id| id.partition() == 0) {
            return self.inner.dead_letters().weigh(at, ids);
        }
        Box::pin(async move {
            let call = |number: u16, ids: Vec<EntryId>| -> BoxFuture<'a, _> {
                Box::pin(async move {
                    let at = group_at(at, number);
                    self.inner.dead_letters().weigh(&at, &ids).await
                })
            };
            let ids = ids.iter().map(|id| (id.partition(), bare(*id)));
            scatter(ids, call, |_| None).await
        })
    }

    fn newest<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.dead_letters().newest(at);
        }
        Box::pin(async move {
            let newest = self.each_group(at, |store, at| {
                Box::pin(async move { store.dead_letters().newest(&at).await })
            });
            let newest = newest.await?.into_iter();
            Ok(newest
                .filter_map(|(number, id)| Some(id?.in_partition(number)))
                .max())
        })
    }

    fn move_out<'a>(
        &'a self,
        at: &'a GroupAt,
        items: &'a [(EntryId, Disposition)],
        known: &'a [Summary],
        operation: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        if items.iter().all(|(id, _)| id.partition() == 0) {
            // What is known of others does not matter.
            let known: &[Summary] = match known.iter().all(|(id, _)| id.partition() == 0) {
                true => known,
                false => &[],
            };
            return self
                .inner
                .dead_letters()
                .move_out(at, items, known, operation);
        }
        Box::pin(async move {
            let call = |number: u16, items: Vec<(EntryId, Disposition)>| -> BoxFuture<'a, _> {
                Box::pin(async move {
                    let at = group_at(at, number);
                    let known = known.iter().filter(|(id, _)| id.partition() == number);
                    let known: Vec<Summary> =
                        known.map(|(id, head)| (bare(*id), head.clone())).collect();
                    let dead_letters = self.inner.dead_letters();
                    dead_letters.move_out(&at, &items, &known, operation).await
                })
            };
            let items = items.iter();
            let items = items.map(|(id, to)| (id.partition(), (bare(*id), to.clone())));
            scatter(items, call, |_| None).await
        })
    }

    fn restore<'a>(
        &'a self,
        at: &'a GroupAt,
        records: &'a [Restoring],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Restored>, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.dead_letters().restore(at, records, again);
        }
        Box::pin(async move {
            let count = self.count(at.topic()).await?;
            // A record returns to the partition that it was exported from.
            let place = |one: &Restoring| match one.own {
                _ if !at.partition.is_whole() => at.partition.number(),
                Some(id) if id.partition() < count => id.partition(),
                _ => crc16(one.identity.as_bytes()) % count,
            };
            let records = records.iter().map(|one| {
                let own = one.own.map(bare);
                (place(one), Restoring { own, ..one.clone() })
            });
            let call = |number: u16, records: Vec<Restoring>| -> BoxFuture<'a, _> {
                Box::pin(async move {
                    let at = group_at(at, number);
                    let restored = self
                        .inner
                        .dead_letters()
                        .restore(&at, &records, again)
                        .await?;
                    let stamp = |one: Restored| match one {
                        Restored::Added(id) => Restored::Added(id.in_partition(number)),
                        other => other,
                    };
                    Ok(restored.into_iter().map(stamp).collect())
                })
            };
            scatter(records, call, |_| None).await
        })
    }

    fn count<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<u64, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.dead_letters().count(at);
        }
        Box::pin(async move {
            let counts = self.each_group(at, |store, at| {
                Box::pin(async move { store.dead_letters().count(&at).await })
            });
            Ok(counts.await?.into_iter().map(|(_, count)| count).sum())
        })
    }

    fn causes<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Counted<Cause>, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.dead_letters().causes(at);
        }
        Box::pin(async move {
            let all = self.each_group(at, |store, at| {
                Box::pin(async move { store.dead_letters().causes(&at).await })
            });
            let (mut causes, mut others) = (BTreeMap::new(), 0);
            for (number, part) in all.await? {
                others += part.others;
                for mut cause in part.items {
                    cause.first = cause.first.in_partition(number);
                    cause.last = cause.last.in_partition(number);
                    let name = (cause.reason.as_str(), cause.fingerprint.clone());
                    match causes.entry(name) {
                        Entry::Vacant(place) => drop(place.insert(cause)),
                        Entry::Occupied(mut place) => {
                            let known: &mut Cause = place.get_mut();
                            known.count += cause.count;
                            known.first = known.first.min(cause.first);
                            known.last = known.last.max(cause.last);
                        }
                    }
                }
            }
            let mut causes: Vec<Cause> = causes.into_values().collect();
            causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
            let mut counted = Counted::first(causes);
            counted.others += others;
            Ok(counted)
        })
    }

    fn counts<'a>(
        &'a self,
        at: &'a GroupAt,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Counted<(String, u64)>, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.dead_letters().counts(at, by);
        }
        Box::pin(async move {
            let all = self.each_group(at, |store, at| {
                Box::pin(async move { store.dead_letters().counts(&at, by).await })
            });
            let (mut counts, mut others) = (BTreeMap::<String, u64>::new(), 0);
            for (_, part) in all.await? {
                others += part.others;
                for (name, count) in part.items {
                    *counts.entry(name).or_default() += count;
                }
            }
            let mut counted = Counted::largest(counts.into_iter().collect(), by);
            counted.others += others;
            Ok(counted)
        })
    }

    fn hours<'a>(
        &'a self,
        at: &'a GroupAt,
        hours: &'a [u64],
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.dead_letters().hours(at, hours);
        }
        Box::pin(async move {
            let all = self.each_group(at, |store, at| {
                Box::pin(async move { store.dead_letters().hours(&at, hours).await })
            });
            let mut sums = vec![0; hours.len()];
            for (_, counts) in all.await? {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            Ok(sums)
        })
    }

    fn begin_operation<'a>(
        &'a self,
        at: &'a GroupAt,
        operation: Uuid,
        order: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        if self.is_single(&at.partition) {
            return self
                .inner
                .dead_letters()
                .begin_operation(at, operation, order);
        }
        Box::pin(async move {
            let begun = self.write_each_group(at, |store, at| {
                Box::pin(async move {
                    store
                        .dead_letters()
                        .begin_operation(&at, operation, order)
                        .await
                })
            });
            begun.await.map(|_| ())
        })
    }

    fn end_operation<'a>(
        &'a self,
        at: &'a GroupAt,
        operation: Uuid,
        result: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        if self.is_single(&at.partition) {
            return self
                .inner
                .dead_letters()
                .end_operation(at, operation, result);
        }
        Box::pin(async move {
            let ended = self.write_each_group(at, |store, at| {
                Box::pin(async move {
                    store
                        .dead_letters()
                        .end_operation(&at, operation, result)
                        .await
                })
            });
            ended.await.map(|_| ())
        })
    }

    // Notes on a group lie in partition 0.
    fn notes<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Vec<(String, String)>, Error>> {
        self.inner.dead_letters().notes(at)
    }

    fn set_note<'a>(
        &'a self,
        at: &'a GroupAt,
        name: &'a str,
        note: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.dead_letters().set_note(at, name, note)
    }

    fn journal<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Vec<JournalRow>, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.dead_letters().journal(at);
        }
        Box::pin(async move {
            let all = self.each_group(at, |store, at| {
                Box::pin(async move { store.dead_letters().journal(&at).await })
            });
            // The ids of operations are in the order of time.
            let mut rows: BTreeMap<Uuid, JournalRow> = BTreeMap::new();
            for (number, part) in all.await? {
                for mut row in part {
                    row.cursor = row.cursor.map(|id| id.in_partition(number));
                    let joined = match rows.remove(&row.id) {
                        Some(known) => join_rows(known, row),
                        None => row,
                    };
                    rows.insert(joined.id, joined);
                }
            }
            Ok(rows.into_values().collect())
        })
    }
}
