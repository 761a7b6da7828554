//! The roles of the port on a Redis server; each concern in a file of its own.

use std::time::Duration;

use super::adapter::RedisAdapter;
use crate::domain::{BoxFuture, ConsumerName, EntryId, Error, Timestamp, Topic, TopicSettings};
use crate::store::{
    Appended, Commits, ConsumerStatus, Deliveries, DeliveryId, Fate, Fields, GroupAt, GroupRemoval,
    Inspect, Log, Member, NewEntry, Partition, Promoted, ReclaimCursor, Reclaimed, Replies,
    Schedule, ScheduledPage, ServerInfo, StartFrom, TopicStatus, Topics, Trimmed,
};

impl Topics for RedisAdapter {
    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<TopicSettings, Error>> {
        Box::pin(self.create_topic(topic, settings))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Topic>, Error>> {
        Box::pin(self.list_topics())
    }

    fn create_group<'a>(
        &'a self,
        at: &'a GroupAt,
        start: StartFrom,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.ensure_group(at.topic(), &at.group, start))
    }

    fn remove_group<'a>(
        &'a self,
        at: &'a GroupAt,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        Box::pin(self.take_away_group(at.topic(), &at.group, quiet, force))
    }

    fn trim<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Trimmed, Error>> {
        Box::pin(self.trim_log(at.topic()))
    }

    fn trim_redelivery<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.trim_redelivery_stream(at.topic(), &at.group))
    }

    fn prune_consumers<'a>(
        &'a self,
        at: &'a GroupAt,
        idle: Duration,
        only: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.drop_consumers(at.topic(), &at.group, idle, only))
    }
}

impl Log for RedisAdapter {
    fn append<'a>(
        &'a self,
        at: &'a Partition,
        entries: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        Box::pin(async move { Ok(self.append_entries(at.topic(), entries).await) })
    }

    fn append_once<'a>(
        &'a self,
        at: &'a Partition,
        window: Duration,
        entries: &'a [NewEntry],
    ) -> BoxFuture<'a, Result<Vec<Result<Appended, Error>>, Error>> {
        Box::pin(async move { Ok(self.append_identified(at.topic(), window, entries).await) })
    }

    fn browse<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.browse_log(at.topic(), after, max))
    }

    fn latest<'a>(
        &'a self,
        at: &'a Partition,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(self.latest_entries(at.topic(), max))
    }

    fn newest<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        Box::pin(self.newest_entry(at.topic()))
    }
}

impl Deliveries for RedisAdapter {
    fn commit<'a>(
        &'a self,
        by: &'a Member,
        commits: &'a Commits,
    ) -> BoxFuture<'a, Result<Replies, Error>> {
        Box::pin(async move {
            let acks = self.ack(by, commits.acks()).await;
            Ok(Replies {
                acks: acks.map(|()| Fate::Done),
                fenced: self.commit_fenced(by, commits.fenced()).await,
            })
        })
    }

    fn extend<'a>(
        &'a self,
        by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.change_leases("extend", by, receipts))
    }

    fn pending_of<'a>(
        &'a self,
        by: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>> {
        Box::pin(self.list_pending(by, max))
    }

    fn reclaim<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        Box::pin(self.take_over(by, lease, cursor, max))
    }
}

impl Schedule for RedisAdapter {
    fn promote<'a>(
        &'a self,
        at: &'a GroupAt,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        Box::pin(self.promote_due(at.topic(), &at.group, max))
    }

    fn list<'a>(
        &'a self,
        at: &'a GroupAt,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<ScheduledPage, Error>> {
        Box::pin(self.list_scheduled(at.topic(), &at.group, after, max))
    }

    fn run_now<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.take_scheduled("run retries now", "run", at.topic(), &at.group, receipts))
    }

    fn cancel<'a>(
        &'a self,
        at: &'a GroupAt,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(self.take_scheduled("cancel", "cancel", at.topic(), &at.group, receipts))
    }
}

impl Inspect for RedisAdapter {
    fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.ping_publisher())
    }

    fn servers(&self) -> BoxFuture<'_, Result<Vec<ServerInfo>, Error>> {
        Box::pin(async { Ok(vec![self.ask_server().await?]) })
    }

    fn status<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>> {
        Box::pin(self.topic_status(at.topic()))
    }

    fn consumers<'a>(
        &'a self,
        at: &'a GroupAt,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, Error>> {
        Box::pin(self.list_consumers(at.topic(), &at.group))
    }
}
