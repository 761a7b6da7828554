//! Topics and groups over partitions.

use std::time::Duration;

use super::merge::{first_in, join_groups};
use super::{Partitioned, group_at, half_done, member_at};
use crate::domain::{BoxFuture, ConsumerName, Error, ErrorKind, Topic, TopicSettings};
use crate::store::source::{GroupAt, Member, Partition};
use crate::store::{
    GroupProgress, GroupRemoval, GroupReset, GroupStatus, Inspect, ResetTo, StartFrom,
    TopicRemoval, Topics, Trimmed,
};

/// Within which time a live consumer has called the store.
const LIVES: Duration = Duration::from_secs(150);

impl Partitioned {
    /// Removes a group from its partitions, from partition 0 last. Without `force` it first looks at
    /// all of them, because a removal from several partitions is not one step.
    async fn remove_spread(
        &self,
        at: &GroupAt,
        quiet: Duration,
        force: bool,
    ) -> Result<Option<GroupRemoval>, Error> {
        let partitions = self.partitions_meant(&at.partition).await?;
        if !force && partitions.len() > 1 {
            let stands = self.stands(at, quiet).await?;
            if let Some(found) = &stands
                && needed(&found.status) + found.live_consumers > 0
            {
                return Ok(stands);
            }
        }
        let mut whole: Option<GroupRemoval> = None;
        for partition in partitions.iter().rev() {
            let at = group_at(at, partition.number());
            let removal = self.inner.topics().remove_group(&at, quiet, force);
            let some_done = whole.as_ref().is_some_and(|whole| whole.removed);
            let removal = removal.await.map_err(|error| half_done(error, some_done))?;
            let Some(found) = removal else { continue };
            let kept = !found.removed;
            if kept && some_done {
                return Err(stirred("remove group", &at));
            }
            whole = Some(match whole {
                None => found,
                Some(before) => GroupRemoval {
                    removed: before.removed && found.removed,
                    live_consumers: before.live_consumers.max(found.live_consumers),
                    status: join_groups(before.status, found.status),
                },
            });
            if kept {
                break;
            }
        }
        Ok(whole)
    }

    /// Where a group stands on all partitions; `None` where it does not exist.
    async fn stands(&self, at: &GroupAt, quiet: Duration) -> Result<Option<GroupRemoval>, Error> {
        let inspect: &dyn Inspect = self;
        let Some(topic) = inspect.status(&at.partition).await? else {
            return Ok(None);
        };
        let Some(status) = topic.groups.into_iter().find(|one| one.group == at.group) else {
            return Ok(None);
        };
        let consumers = inspect.consumers(at).await?;
        let live = consumers.iter().filter(|one| one.idle_for < quiet).count();
        Ok(Some(GroupRemoval {
            removed: false,
            status,
            live_consumers: live as u64,
        }))
    }

    /// The members of an owned group; none of a shared one. Partition 0 knows them.
    pub(super) async fn members_of(&self, at: &GroupAt) -> Result<Vec<ConsumerName>, Error> {
        if !self.inner.capabilities().ownership {
            return Ok(Vec::new());
        }
        match self.inner.owners().roster(&group_at(at, 0)).await {
            Ok(roster) => Ok(roster.members),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Moves a group on its partitions, from partition 0 on. It first looks at all of them, because a
    /// consumer is active only where it has messages.
    async fn reset_spread(
        &self,
        at: &GroupAt,
        to: ResetTo,
        quiet: Duration,
    ) -> Result<Option<GroupReset>, Error> {
        let partitions = self.partitions_meant(&at.partition).await?;
        if partitions.len() > 1
            && let Some(found) = self.stands(at, quiet).await?
            && found.live_consumers > 0
        {
            let cursor = self.group_progress(at).await?.map(|group| group.delivered);
            let cursor = cursor.unwrap_or_default();
            return Ok(Some(GroupReset::new(cursor, found.live_consumers)));
        }
        let mut whole: Option<GroupReset> = None;
        for partition in partitions {
            let number = partition.number();
            let to = match to {
                ResetTo::Entry(id) => ResetTo::Entry(first_in(id, number)),
                to => to,
            };
            let at = group_at(at, number);
            let some_done = whole.is_some_and(|whole| whole.moved);
            let reset = self.inner.topics().reset_group(&at, to, quiet).await;
            let reset = reset.map_err(|error| half_done(error, some_done))?;
            let Some(reset) = reset else { continue };
            if !reset.moved && some_done {
                return Err(stirred("reset group", &at));
            }
            let (before, after) = (
                reset.before.in_partition(number),
                reset.after.in_partition(number),
            );
            let kept = !reset.moved;
            whole = Some(match whole {
                None => GroupReset {
                    before,
                    after,
                    ..reset
                },
                Some(all) => GroupReset {
                    moved: all.moved && reset.moved,
                    live_consumers: all.live_consumers.max(reset.live_consumers),
                    before: all.before.max(before),
                    after: all.after.max(after),
                },
            });
            if kept {
                break;
            }
        }
        Ok(whole)
    }
}

impl Partitioned {
    /// How far a group has come on all partitions.
    async fn group_progress(&self, at: &GroupAt) -> Result<Option<GroupProgress>, Error> {
        let inspect: &dyn Inspect = self;
        let progress = inspect.progress(&at.partition).await?;
        let mut groups = progress.into_iter().flat_map(|log| log.groups);
        Ok(groups.find(|group| group.group == at.group))
    }

    /// Sets one lease on all partitions. A partition sees only those consumers that have messages of it,
    /// so a shorter lease first waits for the consumers of all partitions.
    async fn set_lease_spread(&self, by: &Member, asked: Duration) -> Result<Duration, Error> {
        let stored = self.group_progress(&by.at).await?;
        let stored = stored.and_then(|group| group.lease).unwrap_or_default();
        let lease = match asked < stored && self.relies_on(by, stored).await? {
            true => stored,
            false => asked,
        };
        let set = self.write_each(&by.at.partition, |store, at| {
            Box::pin(async move {
                let by = member_at(by, at.number());
                store.topics().set_lease(&by, lease).await
            })
        });
        let set = set.await?;
        // A consumer may have come to one of them meanwhile.
        let longest = set.iter().map(|(_, lease)| *lease).max().unwrap_or(lease);
        for (number, _) in set.into_iter().filter(|(_, lease)| *lease < longest) {
            let by = member_at(by, number);
            let raised = self.inner.topics().set_lease(&by, longest).await;
            raised.map_err(|error| half_done(error, true))?;
        }
        Ok(longest)
    }

    /// Whether another consumer may rely on a lease, on any partition.
    async fn relies_on(&self, by: &Member, lease: Duration) -> Result<bool, Error> {
        let inspect: &dyn Inspect = self;
        let consumers = inspect.consumers(&by.at).await?;
        let mut others = consumers.iter().filter(|one| one.consumer != by.consumer);
        Ok(others.any(|one| one.idle_for < lease.max(LIVES)))
    }
}

/// The error of an operation that a consumer interrupted between two partitions.
fn stirred(operation: &'static str, at: &GroupAt) -> Error {
    let rule = "a consumer became active meanwhile: earlier partitions are done, this one and those after \
                it are not; run it again once the consumer has stopped";
    Error::new(ErrorKind::OutcomeUnknown, operation, rule).on(at.to_string())
}

fn needed(status: &GroupStatus) -> u64 {
    status.lag + status.in_flight + status.scheduled + status.dead
}

impl Topics for Partitioned {
    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<TopicSettings, Error>> {
        Box::pin(async move {
            let held = self.inner.topics().ensure_topic(topic, settings).await?;
            self.note(topic, Some(held.partitions()));
            Ok(held)
        })
    }

    fn change_settings<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<Option<TopicSettings>, Error>> {
        self.inner.topics().change_settings(topic, settings)
    }

    fn remove_topic<'a>(
        &'a self,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Option<TopicRemoval>, Error>> {
        Box::pin(async move {
            let removal = self.inner.topics().remove_topic(topic).await?;
            if removal.is_none_or(|removal| removal.removed) {
                self.note(topic, None);
            }
            Ok(removal)
        })
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<u16>, Error>> {
        Box::pin(async move {
            let count = self.inner.topics().partitions(topic).await?;
            self.note(topic, count);
            Ok(count)
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Topic>, Error>> {
        self.inner.topics().list()
    }

    fn create_group<'a>(
        &'a self,
        at: &'a GroupAt,
        start: StartFrom,
    ) -> BoxFuture<'a, Result<(), Error>> {
        if self.is_single(&at.partition) {
            return self.inner.topics().create_group(at, start);
        }
        Box::pin(async move {
            let made = self.write_each_group(at, |store, at| {
                Box::pin(async move { store.topics().create_group(&at, start).await })
            });
            made.await.map(|_| ())
        })
    }

    fn set_lease<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Duration, Error>> {
        if self.is_single(&by.at.partition) {
            return self.inner.topics().set_lease(by, lease);
        }
        Box::pin(self.set_lease_spread(by, lease))
    }

    fn remove_group<'a>(
        &'a self,
        at: &'a GroupAt,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        Box::pin(self.remove_spread(at, quiet, force))
    }

    fn reset_group<'a>(
        &'a self,
        at: &'a GroupAt,
        to: ResetTo,
        quiet: Duration,
    ) -> BoxFuture<'a, Result<Option<GroupReset>, Error>> {
        Box::pin(self.reset_spread(at, to, quiet))
    }

    fn trim<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Trimmed, Error>> {
        if self.is_single(at) {
            return self.inner.topics().trim(at);
        }
        Box::pin(async move {
            let trimmed = self.each(at, |store, at| {
                Box::pin(async move { store.topics().trim(&at).await })
            });
            let mut sum = Trimmed {
                known: true,
                ..Trimmed::default()
            };
            for (_, one) in trimmed.await? {
                sum.removed += one.removed;
                sum.length += one.length;
                sum.backlog += one.backlog;
                sum.known &= one.known;
            }
            Ok(sum)
        })
    }

    fn trim_in_turn<'a>(
        &'a self,
        at: &'a Partition,
        pause: Duration,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        if self.is_single(at) {
            return self.inner.topics().trim_in_turn(at, pause);
        }
        Box::pin(async move {
            let trimmed = self.each(at, |store, at| {
                Box::pin(async move { store.topics().trim_in_turn(&at, pause).await })
            });
            Ok(trimmed.await?.into_iter().map(|(_, removed)| removed).sum())
        })
    }

    fn trim_redelivery<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<(), Error>> {
        if self.is_single(&at.partition) {
            return self.inner.topics().trim_redelivery(at);
        }
        Box::pin(async move {
            let trimmed = self.write_each_group(at, |store, at| {
                Box::pin(async move { store.topics().trim_redelivery(&at).await })
            });
            trimmed.await.map(|_| ())
        })
    }

    fn prune_consumers<'a>(
        &'a self,
        at: &'a GroupAt,
        idle: Duration,
        only: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        if self.is_single(&at.partition) {
            return self.inner.topics().prune_consumers(at, idle, only);
        }
        Box::pin(async move {
            let pruned = self.write_each_group(at, |store, at| {
                Box::pin(async move { store.topics().prune_consumers(&at, idle, only).await })
            });
            // A consumer is known on every partition.
            let most = pruned.await?.into_iter().map(|(_, pruned)| pruned).max();
            Ok(most.unwrap_or(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::tests::Four;
    use super::*;
    use crate::domain::{Group, ScheduleId, When};
    use crate::store::{Attendance, Store as _};

    const DAY: Duration = Duration::from_secs(86_400);
    const MINUTE: Duration = Duration::from_secs(60);

    async fn lags(four: &Four) -> Vec<u64> {
        let mut lags = Vec::new();
        for number in 0..4 {
            let at = Partition::numbered(four.at.topic(), number);
            let status = four.store.inspect().status(&at).await.unwrap().unwrap();
            lags.push(status.groups.iter().map(|group| group.lag).sum());
        }
        lags
    }

    #[tokio::test]
    async fn members_of_an_owned_group_are_listed_as_its_consumers() {
        let four = Four::new().await;
        let mut at = four.at.clone();
        at.group = Group::new("owned").unwrap();
        let owners = four.store.owners();
        for number in 0..4 {
            let at = group_at(&at, number);
            let created = owners.create(&at, StartFrom::Beginning).await;
            created.unwrap();
        }
        let names = async || -> Vec<String> {
            let listed = four.store.inspect().consumers(&at).await.unwrap();
            listed.iter().map(|one| one.consumer.to_string()).collect()
        };
        assert!(names().await.is_empty());
        let one = Member {
            at: group_at(&at, 0),
            ..four.member("one")
        };
        let attendance = Attendance {
            lease: DAY,
            ..Attendance::default()
        };
        owners.attend(&one, &attendance).await.unwrap();
        assert_eq!(names().await, ["one"]);
        let topics = four.store.topics();
        let kept = topics.remove_group(&at, DAY, false).await.unwrap().unwrap();
        assert_eq!((kept.removed, kept.live_consumers), (false, 1));
    }

    #[tokio::test]
    async fn a_consumer_of_one_partition_keeps_the_group_where_it_is() {
        let four = Four::new().await;
        four.append(2).await;
        four.fetch(&member_at(&four.member("one"), 3)).await;
        let topics = four.store.topics();
        let reset = topics.reset_group(&four.at, ResetTo::End, DAY).await;
        let reset = reset.unwrap().unwrap();
        assert_eq!((reset.moved, reset.live_consumers), (false, 1));
        assert_eq!((reset.before, reset.before.partition()), (reset.after, 3));
        assert_eq!(lags(&four).await, [2, 2, 2, 0]);
        let reset = topics.reset_group(&four.at, ResetTo::End, Duration::ZERO);
        assert!(reset.await.unwrap().unwrap().moved);
        assert_eq!(lags(&four).await, [0; 4]);
    }

    #[tokio::test]
    async fn a_consumer_of_one_partition_keeps_the_lease_of_all() {
        let four = Four::new().await;
        four.append(1).await;
        let (one, two) = (four.member("one"), four.member("two"));
        let topics = four.store.topics();
        assert_eq!(topics.set_lease(&two, DAY).await.unwrap(), DAY);
        four.fetch(&member_at(&two, 3)).await;
        assert_eq!(topics.set_lease(&one, MINUTE).await.unwrap(), DAY);
        let leases = async || {
            let mut leases = Vec::new();
            for number in 0..4 {
                let at = Partition::numbered(four.at.topic(), number);
                let log = four.store.inspect().progress(&at).await.unwrap().unwrap();
                leases.push(log.groups[0].lease.unwrap());
            }
            leases
        };
        assert_eq!(leases().await, [DAY; 4]);
        // One partition has lost its lease.
        let third = group_at(&four.at, 3);
        let forced = topics.remove_group(&third, DAY, true).await;
        assert!(forced.unwrap().unwrap().removed);
        topics.create_group(&third, StartFrom::End).await.unwrap();
        let set = topics.set_lease(&member_at(&two, 3), MINUTE).await;
        assert_eq!(set.unwrap(), MINUTE);
        four.append(1).await;
        four.fetch(&member_at(&two, 0)).await;
        assert_eq!(topics.set_lease(&one, MINUTE).await.unwrap(), DAY);
        assert_eq!(leases().await, [DAY; 4]);
    }

    #[tokio::test]
    async fn a_write_that_some_partitions_have_done_certainly_is_of_unknown_outcome() {
        let four = Four::new().await;
        let (topics, at) = (four.store.topics(), &four.at);
        let id = [ScheduleId::new("a").unwrap()];
        for kind in [ErrorKind::Unavailable, ErrorKind::Refused] {
            four.take_away(2, kind);
            let later = four.store.later();
            let errors = [
                topics.create_group(at, StartFrom::End).await.err(),
                later.cancel(&at.partition, &id).await.err(),
                later
                    .reschedule(&at.partition, &id[0], When::After(DAY))
                    .await
                    .err(),
                four.store
                    .dead_letters()
                    .begin_operation(at, Uuid::nil(), "order")
                    .await
                    .err(),
                topics
                    .reset_group(at, ResetTo::End, Duration::ZERO)
                    .await
                    .err(),
                topics.remove_group(at, Duration::ZERO, true).await.err(),
            ];
            for error in errors {
                assert!(error.unwrap().is_outcome_unknown());
            }
            four.bring_back();
            topics.create_group(at, StartFrom::End).await.unwrap();
        }
        // Partition 0 is moved first, and removed last.
        four.take_away(0, ErrorKind::Unavailable);
        let reset = topics.reset_group(at, ResetTo::End, Duration::ZERO).await;
        assert_eq!(reset.unwrap_err().kind(), ErrorKind::Unavailable);
        four.take_away(3, ErrorKind::Unavailable);
        let removal = topics.remove_group(at, Duration::ZERO, true).await;
        assert_eq!(removal.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
