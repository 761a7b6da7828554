//! The backend port on a Redis server; each concern in a file of its own.

use std::time::Duration;

use bytes::Bytes;

use super::keys::Keys;
use super::kv::RedisKv;
use super::migrate::Migrations;
use super::net::{Link, Pool, Server, TlsSettings};
use crate::domain::BoxFuture;
use crate::domain::{
    Clock, ConsumerName, EntryId, Error, Group, Namespace, SystemClock, Timestamp, Topic,
    TopicSettings,
};
use crate::store::{
    Appended, ConsumerStatus, DeadLetterStore, DeliveryId, Fields, GroupRemoval, Identified,
    Member, Opened, Promoted, ReclaimCursor, Reclaimed, Schedule, ServerInfo, Settlement,
    StartFrom, Store, TopicStatus, Trimmed,
};

/// Topics as Redis Streams.
#[derive(Debug)]
pub(crate) struct RedisAdapter {
    pub(super) server: Server,
    pub(super) pool: Pool,
    pub(super) keys: Keys,
    pub(super) publisher: Link,
    /// Reads what operators look through.
    pub(super) looker: Link,
}

impl RedisAdapter {
    /// Prepares the adapter; connections are made when they are needed.
    pub(crate) fn new(
        url: &str,
        tls: &TlsSettings,
        namespace: Option<Namespace>,
    ) -> Result<Self, Error> {
        let server = Server::new(url, tls)?;
        Ok(Self {
            pool: Pool::new(server.clone()),
            publisher: Link::new(server.clone(), "redstart:pub"),
            looker: Link::new(server.clone(), "redstart:look"),
            keys: Keys::new(namespace),
            server,
        })
    }

    /// The migrations of the namespace, on the same pool.
    pub(crate) fn migrations(&self) -> Migrations {
        Migrations::on(self.pool.clone(), self.keys.clone())
    }

    /// The key-value store on the same pool.
    pub(crate) fn kv(&self) -> RedisKv {
        RedisKv::on(self.pool.clone(), self.keys.clone())
    }
}

impl Store for RedisAdapter {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn clock(&self) -> &dyn Clock {
        &SystemClock
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.ping_publisher())
    }

    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<TopicSettings, Error>> {
        Box::pin(self.create_topic(topic, settings))
    }

    fn append<'a>(
        &'a self,
        topic: &'a Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> BoxFuture<'a, Vec<Result<EntryId, Error>>> {
        Box::pin(self.append_entries(topic, entries))
    }

    fn append_once<'a>(
        &'a self,
        topic: &'a Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> BoxFuture<'a, Vec<Result<Appended, Error>>> {
        Box::pin(async move { self.append_identified(topic, window, &entries).await })
    }

    fn create_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        start: StartFrom,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.ensure_group(topic, group, start))
    }

    fn open<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(self.open_reader(member))
    }

    fn acknowledge<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.ack(member, receipts))
    }

    fn settle<'a>(
        &'a self,
        member: &'a Member,
        settlements: &'a [Settlement],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.settle_all(member, settlements))
    }

    fn extend<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.change_leases("extend", member, receipts))
    }

    fn release<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async move {
            let held = self.change_leases("release", member, receipts).await?;
            Ok(held.into_iter().filter(|held| *held).count() as u64)
        })
    }

    fn pending_of<'a>(
        &'a self,
        member: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>> {
        Box::pin(self.list_pending(member, max))
    }

    fn reclaim<'a>(
        &'a self,
        member: &'a Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        Box::pin(self.take_over(member, lease, cursor, max))
    }

    fn promote<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        Box::pin(self.promote_due(topic, group, max))
    }

    fn trim<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Trimmed, Error>> {
        Box::pin(self.trim_log(topic))
    }

    fn trim_redelivery<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.trim_redelivery_stream(topic, group))
    }

    fn prune_consumers<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        idle: Duration,
        only: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.drop_consumers(topic, group, idle, only))
    }

    fn scheduled<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<Schedule, Error>> {
        Box::pin(self.list_scheduled(topic, group, after, max))
    }

    fn run_now<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.take_scheduled("run retries now", "run", topic, group, receipts))
    }

    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.take_scheduled("cancel", "cancel", topic, group, receipts))
    }

    fn consumers<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, Error>> {
        Box::pin(self.list_consumers(topic, group))
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        Box::pin(self.take_away_group(topic, group, quiet, force))
    }

    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>> {
        Box::pin(async { self.ask_server().await.map(Some) })
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>, Error>> {
        Box::pin(self.list_topics())
    }

    fn status<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>> {
        Box::pin(self.topic_status(topic))
    }

    fn browse<'a>(
        &'a self,
        topic: &'a Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.browse_log(topic, after, max))
    }

    fn latest<'a>(
        &'a self,
        topic: &'a Topic,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.latest_entries(topic, max))
    }

    fn newest<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        Box::pin(self.newest_entry(topic))
    }

    fn dead_letters(&self) -> &dyn DeadLetterStore {
        self
    }
}
