//! Scheduled retries over partitions: merged by due time.

use super::merge::{Listed, Portion, due_after, merged};
use super::{Partitioned, bare_delivery, delivery_in, group_at, scatter};
use crate::domain::{BoxFuture, EntryId, Error, Timestamp};
use crate::store::source::{DeliveryId, GroupAt, Lane, Partition};
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

/// A place by due time, then by partition, then as the partition has it.
type Place = (Timestamp, u16, DeliveryId);

fn place(due: Timestamp, receipt: DeliveryId) -> Place {
    (due, receipt.id.partition(), receipt)
}

impl Listed for Scheduled {
    type Place = Place;

    fn place(&self) -> Place {
        place(self.due, self.receipt)
    }

    fn weight(&self) -> usize {
        self.redelivery.len()
    }
}

impl Partitioned {
    async fn list_spread(
        &self,
        at: &GroupAt,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> Result<ScheduledPage, Error> {
        let next = |partition: Partition, after: Option<Place>, max| -> BoxFuture<'_, _> {
            Box::pin(async move {
                let at = group_at(at, partition.number());
                let number = partition.number();
                // No entry has the smallest id.
                let first = DeliveryId::new(Lane::Log, EntryId::default());
                let after = match after.map(|place| due_after(place, number, first)) {
                    Some(None) => return Ok(Portion::none()),
                    after => after.flatten(),
                };
                let after = after.map(|(due, receipt)| (due, bare_delivery(receipt)));
                let page = self.inner.schedule().list(&at, after, max).await?;
                let entries = page.entries.into_iter().map(|one| Scheduled {
                    receipt: delivery_in(one.receipt, number),
                    ..one
                });
                Ok(Portion::page(entries.collect(), page.now))
            })
        };
        let partitions = self.partitions_meant(&at.partition).await?;
        let after = after.map(|(due, receipt)| place(due, receipt));
        let (entries, now) = merged(partitions, after, max, next).await?;
        let now = now.unwrap_or_else(|| self.now());
        Ok(ScheduledPage { now, entries })
    }

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
