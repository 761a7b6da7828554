//! The state of topics and groups over partitions: sums, and lists by name.

use std::collections::BTreeMap;

use super::merge::join_groups;
use super::{Partitioned, delivery_in};
use crate::domain::{BoxFuture, Error, Group, Migration, Placement};
use crate::store::source::{GroupAt, Partition};
use crate::store::{
    ConsumerStatus, GroupProgress, GroupStatus, Inspect, LogProgress, ServerInfo, TopicStatus,
};

impl Partitioned {
    /// Asks partition 0 first: it knows how many there are.
    async fn whole_status(&self, at: &Partition) -> Result<Option<TopicStatus>, Error> {
        let inspect = self.inner.inspect();
        let first = inspect
            .status(&Partition::numbered(at.topic(), at.number()))
            .await?;
        let Some(mut whole) = first else {
            return Ok(None);
        };
        if at.is_whole() {
            let count = whole.settings.partitions();
            self.note(at.topic(), Some(count));
            if count > 1 {
                self.add_others(at, &mut whole).await?;
            }
        }
        for group in whole.groups.iter_mut().filter(|group| group.owned) {
            let of_group = GroupAt::of(at.topic(), &group.group);
            group.consumers = self.members_of(&of_group).await?.len() as u64;
        }
        Ok(Some(whole))
    }

    /// Adds the partitions from 1 on to the status of partition 0.
    async fn add_others(&self, at: &Partition, whole: &mut TopicStatus) -> Result<(), Error> {
        let others = self.each(at, |store, at| {
            Box::pin(async move {
                match at.number() {
                    0 => Ok(None),
                    _ => store.inspect().status(&at).await,
                }
            })
        });
        let mut groups: BTreeMap<Group, GroupStatus> = BTreeMap::new();
        for status in std::mem::take(&mut whole.groups) {
            groups.insert(status.group.clone(), status);
        }
        for status in others.await?.into_iter().filter_map(|(_, status)| status) {
            whole.entries += status.entries;
            whole.later += status.later;
            for group in status.groups {
                let joined = match groups.remove(&group.group) {
                    Some(known) => join_groups(known, group),
                    None => group,
                };
                groups.insert(joined.group.clone(), joined);
            }
        }
        whole.groups = groups.into_values().collect();
        Ok(())
    }
}

/// Adds the partition to all ids.
fn stamp(mut progress: LogProgress, number: u16) -> LogProgress {
    progress.last = progress.last.in_partition(number);
    for group in &mut progress.groups {
        group.delivered = group.delivered.in_partition(number);
        for one in &mut group.unsettled {
            one.id = delivery_in(one.id, number);
        }
    }
    progress
}

/// The progress over two partitions. A group has come as far as on the partition where it has come
/// furthest; a caller that needs more asks each partition.
fn join_progress(mut one: LogProgress, other: LogProgress) -> LogProgress {
    one.last = one.last.max(other.last);
    one.appended = sum(one.appended, other.appended);
    one.trimmed = one.trimmed.min(other.trimmed);
    for group in other.groups {
        match one
            .groups
            .iter_mut()
            .find(|known| known.group == group.group)
        {
            Some(known) => join_group(known, group),
            None => one.groups.push(group),
        }
    }
    one.groups.sort_by(|a, b| a.group.cmp(&b.group));
    one
}

fn join_group(known: &mut GroupProgress, other: GroupProgress) {
    known.delivered = known.delivered.max(other.delivered);
    known.read = sum(known.read, other.read);
    known.lease = known.lease.max(other.lease);
    known.unsettled.extend(other.unsettled);
    known.unsettled.sort_by_key(|one| (one.id.lane, one.id.id));
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one? + other?)
}

impl Inspect for Partitioned {
    fn ping(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.inspect().ping()
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.inspect().try_write()
    }

    fn servers(&self) -> BoxFuture<'_, Result<Vec<ServerInfo>, Error>> {
        self.inner.inspect().servers()
    }

    fn server_of<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Option<String>, Error>> {
        self.inner.inspect().server_of(at)
    }

    fn migrations(&self) -> BoxFuture<'_, Result<Vec<Migration>, Error>> {
        self.inner.inspect().migrations()
    }

    fn placement(&self) -> BoxFuture<'_, Result<Option<Placement>, Error>> {
        self.inner.inspect().placement()
    }

    fn status<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>> {
        Box::pin(self.whole_status(at))
    }

    fn progress<'a>(
        &'a self,
        at: &'a Partition,
    ) -> BoxFuture<'a, Result<Option<LogProgress>, Error>> {
        if self.is_single(at) {
            return self.inner.inspect().progress(at);
        }
        Box::pin(async move {
            let all = self.each(at, |store, at| {
                Box::pin(async move { store.inspect().progress(&at).await })
            });
            let all = all.await?.into_iter();
            let all = all.filter_map(|(number, progress)| Some(stamp(progress?, number)));
            Ok(all.reduce(join_progress))
        })
    }

    fn consumers<'a>(
        &'a self,
        at: &'a GroupAt,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, Error>> {
        Box::pin(async move {
            let all = match self.is_single(&at.partition) {
                true => self.inner.inspect().consumers(at).await?,
                false => {
                    let all = self.each_group(at, |store, at| {
                        Box::pin(async move { store.inspect().consumers(&at).await })
                    });
                    let all = all.await?.into_iter();
                    all.flat_map(|(_, consumers)| consumers).collect()
                }
            };
            let mut consumers: BTreeMap<_, ConsumerStatus> = BTreeMap::new();
            // The members of an owned group are no consumers of its streams.
            for member in self.members_of(at).await? {
                consumers.insert(member.clone(), ConsumerStatus::new(member));
            }
            for one in all {
                let known = consumers.entry(one.consumer.clone());
                known
                    .and_modify(|known| {
                        known.in_flight += one.in_flight;
                        known.idle_for = known.idle_for.min(one.idle_for);
                    })
                    .or_insert(one);
            }
            Ok(consumers.into_values().collect())
        })
    }
}
