//! Deliveries over partitions: each goes back to the partition that its id names.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::{
    Partitioned, bare, bare_delivery, by_partition, delivery_in, member_at, scatter, worse,
};
use crate::domain::{BoxFuture, EntryId, Error};
use crate::store::source::{DeliveryId, Member};
use crate::store::{
    Begin, Commits, Deliveries, Fate, Fetched, Holder, ReclaimCursor, Reclaimed, Replies, Unmarked,
};

fn is_first(id: &DeliveryId) -> bool {
    id.id.partition() == 0
}

impl Partitioned {
    /// Commits on each partition at once. A call that failed leaves its own commits without an answer.
    async fn commit_spread(&self, by: &Member, commits: &Commits) -> Result<Replies, Error> {
        let acks = commits.acks().iter();
        let acks = by_partition(acks.map(|id| (id.id.partition(), bare_delivery(*id))));
        let fenced = commits.fenced().iter();
        let fenced = by_partition(fenced.map(|one| (one.delivery().id.partition(), one)));
        let mut parts: BTreeMap<u16, (Commits, Vec<usize>)> = BTreeMap::new();
        for (number, acks) in acks {
            let (part, _) = parts.entry(number).or_default();
            part.acks_mut().extend(acks.into_iter().map(|(_, id)| id));
        }
        for (number, fenced) in fenced {
            let (part, places) = parts.entry(number).or_default();
            for (place, commit) in fenced {
                part.push(commit.clone().of(bare_delivery(commit.delivery())));
                places.push(place);
            }
        }
        let calls = parts
            .into_iter()
            .map(|(number, (part, places))| async move {
                let by = member_at(by, number);
                let answer = self.inner.deliveries().commit(&by, &part).await;
                (part, places, answer)
            });
        let mut acks = Ok(Fate::Done);
        let mut answers: Vec<(usize, Result<Fate, Error>)> = Vec::new();
        for (part, places, answer) in join_all(calls).await {
            match answer {
                Ok(replies) => {
                    if !part.acks().is_empty() && !matches!(replies.acks, Ok(Fate::Done)) {
                        acks = acks.and(replies.acks);
                    }
                    answers.extend(places.into_iter().zip(replies.fenced));
                }
                Err(error) => {
                    if !part.acks().is_empty() {
                        acks = Err(error.clone());
                    }
                    answers.extend(places.into_iter().map(|place| (place, Err(error.clone()))));
                }
            }
        }
        answers.sort_by_key(|(place, _)| *place);
        let fenced = answers.into_iter().map(|(_, answer)| answer).collect();
        Ok(Replies { acks, fenced })
    }

    /// Takes over expired entries of one partition after the other, from where the last call has come
    /// to. The cursor of each lane names the partition.
    async fn claim_spread(
        &self,
        by: &Member,
        (lease, unmarked): (Duration, Unmarked),
        cursor: ReclaimCursor,
        max: usize,
    ) -> Result<Reclaimed, Error> {
        let partitions = self.partitions_meant(&by.at.partition).await?;
        let mut all = Reclaimed::default();
        let mut failure = None;
        let begin = cursor.log.partition().max(cursor.redelivery.partition());
        let mut at = cursor;
        for partition in &partitions {
            let number = partition.number();
            if number < begin {
                continue;
            }
            let place = |id: EntryId| match id.partition() == number {
                true => bare(id),
                false => EntryId::default(),
            };
            let inner = ReclaimCursor {
                log: place(at.log),
                redelivery: place(at.redelivery),
            };
            let by = member_at(by, number);
            let claim = self
                .inner
                .deliveries()
                .claim_expired(&by, lease, unmarked, inner, max);
            let claimed = match claim.await {
                Ok(claimed) => claimed,
                // The other partitions have expired entries, too.
                Err(error) => {
                    failure = Some(worse(failure, error));
                    continue;
                }
            };
            let stamp = |one: Fetched| Fetched {
                receipt: delivery_in(one.receipt, number),
                ..one
            };
            all.missing += claimed.missing;
            all.pending += claimed.pending;
            all.lease = all.lease.max(claimed.lease);
            all.taken.extend(claimed.taken.into_iter().map(stamp));
            if claimed.cursor != ReclaimCursor::default() {
                at = ReclaimCursor {
                    log: claimed.cursor.log.in_partition(number),
                    redelivery: claimed.cursor.redelivery.in_partition(number),
                };
                all.cursor = at;
                break;
            }
            if !all.taken.is_empty() && number + 1 < partitions.len() as u16 {
                // The caller's limit holds for a call.
                let next = EntryId::default().in_partition(number + 1);
                all.cursor = ReclaimCursor {
                    log: next,
                    redelivery: next,
                };
                break;
            }
        }
        if begin > 0 && partitions.len() > 1 {
            // Nobody knows what the partitions before hold now.
            all.pending = all.pending.max(1);
        }
        match failure {
            // The caller must know what it holds now.
            Some(error) if all.taken.is_empty() => Err(error),
            _ => Ok(all),
        }
    }
}

impl Deliveries for Partitioned {
    fn commit<'a>(
        &'a self,
        by: &'a Member,
        commits: &'a Commits,
    ) -> BoxFuture<'a, Result<Replies, Error>> {
        let fenced = commits.fenced();
        if by.at.partition.number() == 0
            && commits.acks().iter().all(is_first)
            && fenced.iter().all(|one| is_first(&one.delivery()))
        {
            return self.inner.deliveries().commit(by, commits);
        }
        Box::pin(self.commit_spread(by, commits))
    }

    fn begin<'a>(
        &'a self,
        by: &'a Member,
        begins: &'a [Begin],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        if begins.iter().all(|one| is_first(&one.delivery)) {
            return self.inner.deliveries().begin(by, begins);
        }
        Box::pin(async move {
            let begins = begins.iter().map(|one| {
                let delivery = bare_delivery(one.delivery);
                (one.delivery.id.partition(), Begin { delivery, ..*one })
            });
            let call = |number, begins: Vec<Begin>| -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
                Box::pin(async move {
                    let by = member_at(by, number);
                    self.inner.deliveries().begin(&by, &begins).await
                })
            };
            scatter(begins, call, |_| None).await
        })
    }

    fn extend<'a>(
        &'a self,
        by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        if receipts.iter().all(is_first) {
            return self.inner.deliveries().extend(by, receipts);
        }
        Box::pin(async move {
            let receipts = receipts.iter();
            let receipts = receipts.map(|id| (id.id.partition(), bare_delivery(*id)));
            let call =
                |number, ids: Vec<DeliveryId>| -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
                    Box::pin(async move {
                        let by = member_at(by, number);
                        self.inner.deliveries().extend(&by, &ids).await
                    })
                };
            scatter(receipts, call, |_| None).await
        })
    }

    fn pending_of<'a>(
        &'a self,
        by: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>> {
        if self.is_single(&by.at.partition) {
            return self.inner.deliveries().pending_of(by, max);
        }
        Box::pin(async move {
            let pending = self.each(&by.at.partition, |store, at| {
                Box::pin(async move {
                    let by = member_at(by, at.number());
                    store.deliveries().pending_of(&by, max).await
                })
            });
            let pending = pending.await?.into_iter();
            let mut all: Vec<_> = pending
                .flat_map(|(number, ids)| ids.into_iter().map(move |id| delivery_in(id, number)))
                .collect();
            all.sort_by_key(|one| (one.lane, one.id));
            all.truncate(max);
            Ok(all)
        })
    }

    fn claim_expired<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
        unmarked: Unmarked,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        if self.is_single(&by.at.partition) {
            let deliveries = self.inner.deliveries();
            return deliveries.claim_expired(by, lease, unmarked, cursor, max);
        }
        Box::pin(self.claim_spread(by, (lease, unmarked), cursor, max))
    }
}
