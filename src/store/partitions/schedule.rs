//! Scheduled retries over partitions: merged by due time.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::{Partitioned, bare_delivery, delivery_in, group_at, scatter};
use crate::domain::{BoxFuture, EntryId, Error, Timestamp};
use crate::store::source::{DeliveryId, GroupAt, Lane};
use crate::store::{Promoted, Schedule, Scheduled, ScheduledPage, Store};

/// The sum of what two partitions moved, and the earlier of their next due times.
pub(super) fn join_promoted(one: Promoted, other: Promoted) -> Promoted {
    Promoted {
        moved: one.moved + other.moved,
        published: one.published + other.published,
        next: one.next.into_iter().chain(other.next).min(),
        missing: one.missing + other.missing,
    }
}

/// The merged order is by due time, then by partition, then as the partition has it. Returns the place
/// after which the entries of a partition come after a place of any partition.
fn after_in(
    after: Option<(Timestamp, DeliveryId)>,
    number: u16,
) -> Option<(Timestamp, DeliveryId)> {
    let (due, place) = after?;
    // No entry has the smallest id.
    let first = DeliveryId::new(Lane::Log, EntryId::default());
    match number.cmp(&place.id.partition()) {
        Ordering::Equal => Some((due, bare_delivery(place))),
        Ordering::Greater => Some((due, first)),
        Ordering::Less => {
            let later = Timestamp::from_millis(due.as_millis().saturating_add(1));
            Some((later.unwrap_or(due), first))
        }
    }
}

impl Partitioned {
    /// Lists in rounds: a round ends where the first page of a partition does.
    async fn list_spread(
        &self,
        at: &GroupAt,
        mut after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> Result<ScheduledPage, Error> {
        let (mut now, mut entries) = (None, Vec::new());
        loop {
            let pages = self.each(&at.partition, |store, partition| {
                let group = at.group.clone();
                let at = GroupAt { partition, group };
                let after = after_in(after, at.partition.number());
                Box::pin(async move { store.schedule().list(&at, after, max).await })
            });
            let mut all = Vec::new();
            for (number, page) in pages.await? {
                now = now.max(Some(page.now));
                let entries = page.entries.into_iter().map(|one| Scheduled {
                    receipt: delivery_in(one.receipt, number),
                    ..one
                });
                all.push(entries.collect());
            }
            let key = |one: &Scheduled| (one.due, one.receipt.id.partition());
            let round = merged(all, max - entries.len(), key);
            let Some(last) = round.last() else { break };
            after = Some((last.due, last.receipt));
            entries.extend(round);
            if entries.len() >= max {
                break;
            }
        }
        let now = now.unwrap_or_else(|| self.now());
        Ok(ScheduledPage { now, entries })
    }
}

/// Merges pages, each in its order. A page may end before its partition does, so nothing follows the end of
/// the first one that runs out.
pub(super) fn merged<T, K: Ord>(
    mut pages: Vec<VecDeque<T>>,
    max: usize,
    key: impl Fn(&T) -> K,
) -> Vec<T> {
    pages.retain(|page| !page.is_empty());
    let mut all = Vec::new();
    while all.len() < max {
        let first = pages.iter_mut().min_by_key(|page| page.front().map(&key));
        let Some(page) = first else { break };
        all.extend(page.pop_front());
        if page.is_empty() {
            break;
        }
    }
    all
}

impl Partitioned {
    /// Changes scheduled deliveries, each in its partition.
    fn change_each<'a>(
        &'a self,
        receipts: &'a [DeliveryId],
        change: impl Fn(u16, Vec<DeliveryId>) -> BoxFuture<'a, Result<Vec<bool>, Error>> + Send + 'a,
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        let receipts = receipts.iter();
        let receipts = receipts.map(|id| (id.id.partition(), bare_delivery(*id)));
        Box::pin(scatter(receipts, change, |_| None))
    }
}

impl Schedule for Partitioned {
    fn promote<'a>(
        &'a self,
        at: &'a GroupAt,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.schedule().promote(at, max);
        }
        Box::pin(async move {
            let promoted = self.each_group(at, |store, at| {
                Box::pin(async move { store.schedule().promote(&at, max).await })
            });
            let promoted = promoted.await?.into_iter().map(|(_, promoted)| promoted);
            Ok(promoted.fold(Promoted::default(), join_promoted))
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a GroupAt,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<ScheduledPage, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.schedule().list(at, after, max);
        }
        Box::pin(self.list_spread(at, after, max))
    }

    fn run_now<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        self.change_each(receipts, move |number, ids| {
            Box::pin(async move {
                let at = group_at(at, number);
                self.inner.schedule().run_now(&at, &ids).await
            })
        })
    }

    fn cancel<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        self.change_each(receipts, move |number, ids| {
            Box::pin(async move {
                let at = group_at(at, number);
                self.inner.schedule().cancel(&at, &ids).await
            })
        })
    }
}
