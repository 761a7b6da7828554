//! The backend port on a store in memory; each concern in a file of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::store::{Shared, Space};
use crate::domain::BoxFuture;
use crate::domain::{
    Clock, ConsumerName, EntryId, Error, Group, Namespace, Timestamp, Topic, TopicSettings,
};
use crate::store::{
    Appended, ConsumerStatus, DeadLetterStore, DeliveryId, Fields, GroupRemoval, Identified,
    Member, Opened, Promoted, ReclaimCursor, Reclaimed, Schedule, Settlement, StartFrom, Store,
    TopicStatus, Trimmed,
};

/// The topics of one namespace of a store in memory.
#[derive(Clone, Debug)]
pub(super) struct MemoryAdapter {
    pub(super) shared: Arc<Shared>,
    namespace: Option<Namespace>,
}

impl MemoryAdapter {
    pub(super) fn new(shared: Arc<Shared>, namespace: Option<Namespace>) -> Self {
        Self { shared, namespace }
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Space) -> T) -> T {
        self.shared.with(&self.namespace, work)
    }
}

/// Does something when it is this task's turn. Nothing here ever waits, so a loop of calls would
/// otherwise keep its thread from all other tasks. Nothing is done when dropped before.
pub(super) fn turn<'a, T>(work: impl FnOnce() -> T + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(async move {
        tokio::task::coop::consume_budget().await;
        work()
    })
}

impl Store for MemoryAdapter {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    fn clock_set(&self) -> BoxFuture<'_, ()> {
        self.shared.clock.set()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
        turn(|| Ok(()))
    }

    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<TopicSettings, Error>> {
        turn(move || Ok(self.create_topic(topic, settings)))
    }

    fn append<'a>(
        &'a self,
        topic: &'a Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> BoxFuture<'a, Vec<Result<EntryId, Error>>> {
        turn(move || {
            let ids = self.append_entries(topic, entries);
            ids.into_iter().map(Ok).collect()
        })
    }

    fn append_once<'a>(
        &'a self,
        topic: &'a Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> BoxFuture<'a, Vec<Result<Appended, Error>>> {
        turn(move || {
            let appended = self.append_identified(topic, window, entries);
            appended.into_iter().map(Ok).collect()
        })
    }

    fn create_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        start: StartFrom,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.ensure_group(topic, group, start);
            Ok(())
        })
    }

    fn open<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Opened, Error>> {
        turn(move || Ok(self.open_reader(member)))
    }

    fn acknowledge<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.ack(member, receipts);
            Ok(())
        })
    }

    fn settle<'a>(
        &'a self,
        member: &'a Member,
        settlements: &'a [Settlement],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || Ok(self.settle_all(member, settlements)))
    }

    fn extend<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || {
            let since = Some(Instant::now());
            Ok(self.change_leases(member, receipts, |held| held.since = since))
        })
    }

    fn release<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<u64, Error>> {
        turn(move || {
            let held = self.change_leases(member, receipts, |held| {
                if held.since.take().is_some() {
                    held.deliveries = held.deliveries.saturating_sub(1);
                }
            });
            Ok(held.into_iter().filter(|held| *held).count() as u64)
        })
    }

    fn pending_of<'a>(
        &'a self,
        member: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>> {
        turn(move || self.list_pending(member, max))
    }

    fn reclaim<'a>(
        &'a self,
        member: &'a Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        turn(move || self.take_over(member, lease, cursor, max))
    }

    fn promote<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        turn(move || Ok(self.promote_due(topic, group, max)))
    }

    fn trim<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Trimmed, Error>> {
        turn(move || Ok(self.trim_log(topic)))
    }

    fn trim_redelivery<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.trim_redelivery_stream(topic, group);
            Ok(())
        })
    }

    fn prune_consumers<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        idle: Duration,
        only: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        turn(move || Ok(self.drop_consumers(topic, group, idle, only)))
    }

    fn scheduled<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<Schedule, Error>> {
        turn(move || Ok(self.list_scheduled(topic, group, after, max)))
    }

    fn run_now<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || Ok(self.run_scheduled_now(topic, group, receipts)))
    }

    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || Ok(self.cancel_scheduled(topic, group, receipts)))
    }

    fn consumers<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, Error>> {
        turn(move || Ok(self.list_consumers(topic, group)))
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        turn(move || Ok(self.take_away_group(topic, group, quiet, force)))
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>, Error>> {
        turn(|| Ok(self.list_topics()))
    }

    fn status<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>> {
        turn(move || Ok(self.topic_status(topic)))
    }

    fn browse<'a>(
        &'a self,
        topic: &'a Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        turn(move || Ok(self.browse_log(topic, after, max)))
    }

    fn newest<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        turn(move || Ok(self.newest_entry(topic)))
    }

    fn dead_letters(&self) -> &dyn DeadLetterStore {
        self
    }
}
