//! What a monitor measures of topics and groups, at one moment.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Serialize, Serializer};

use crate::domain::{EntryId, Error, ErrorKind, Group, Timestamp, Topic};
use crate::operate::doctor::{Doctor, pending_for};
use crate::operate::owned;
use crate::operate::topics::Topics;
use crate::store::{
    GroupAt, GroupProgress, GroupStatus, LogProgress, Partition, ScheduledPage, TopicStatus,
};

/// How many topics are measured side by side.
const SIDE_BY_SIDE: usize = 4;

/// What a topic stores, and how far its groups are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TopicGauges {
    /// The topic.
    pub topic: Topic,
    /// Entries in its log.
    pub entries: u64,
    /// Entries that its log has received so far; `None` where the store does not know, or the user may
    /// not look.
    pub appended: Option<u64>,
    /// Unsettled messages that the topic keeps for its groups. Exact from four fifths of the limit
    /// on; below, at least this many.
    pub backlog: u64,
    /// The backlog at which publishing fails; `None` where the limit is off.
    pub backlog_limit: Option<u64>,
    /// Its groups, by name.
    pub groups: Vec<GroupGauges>,
}

/// How far a group is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupGauges {
    /// The group.
    pub group: Group,
    /// Entries not yet delivered to it.
    pub lag: u64,
    /// Entries of the log that it was given so far, or skipped; `None` where the store does not know,
    /// or the user may not look. A restart of the server can lower it.
    pub delivered: Option<u64>,
    /// Deliveries that its consumers have and have not settled.
    pub in_flight: u64,
    /// Retries and snoozed messages: scheduled, or due and not yet read again.
    pub scheduled: u64,
    /// Dead letters.
    pub dead: u64,
    /// Consumers that called the store within [`Topics::LIVE_WITHIN`].
    pub consumers: u64,
    /// The age of the oldest entry that was not delivered yet; `None` where there is none, or where
    /// the user may not look.
    #[serde(rename = "oldestUndeliveredMs", serialize_with = "millis")]
    pub oldest_undelivered: Option<Duration>,
    /// How long the oldest delivery in flight has been so at most: since its entry exists and its
    /// consumer runs. `None` where there is none, or where the user may not look.
    #[serde(rename = "oldestInFlightMs", serialize_with = "millis")]
    pub oldest_in_flight: Option<Duration>,
    /// Milliseconds until the next scheduled retry is due, negative once it is due and not promoted;
    /// `None` where none is scheduled.
    #[serde(rename = "nextRetryMs")]
    pub next_retry: Option<i64>,
    /// Failed messages of an owned group, each of which holds back the later messages of its key; `None`
    /// for a shared group.
    pub held_back: Option<u64>,
    /// Partitions of an owned group that no member owns; `None` for a shared group.
    pub ownerless: Option<u64>,
}

/// How old the oldest messages of a group are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupAges {
    /// The group.
    pub group: Group,
    /// As [`GroupGauges::oldest_undelivered`].
    #[serde(rename = "oldestUndeliveredMs", serialize_with = "millis")]
    pub oldest_undelivered: Option<Duration>,
    /// As [`GroupGauges::oldest_in_flight`].
    #[serde(rename = "oldestInFlightMs", serialize_with = "millis")]
    pub oldest_in_flight: Option<Duration>,
    /// As [`GroupGauges::next_retry`].
    #[serde(rename = "nextRetryMs")]
    pub next_retry: Option<i64>,
}

/// A duration as whole milliseconds.
pub(super) fn millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let whole = |one: &Duration| u64::try_from(one.as_millis()).unwrap_or(u64::MAX);
    duration.as_ref().map(whole).serialize(serializer)
}

impl Topics {
    /// Measures every topic of the namespace and its groups, sorted by name. Changes nothing; the
    /// rights of a viewer are enough.
    ///
    /// The work grows with the number of groups, so a monitor shares one measurement among its
    /// readers.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn gauges(&self) -> Result<Vec<TopicGauges>, Error> {
        let topics = self.store.topics().list().await?;
        stream::iter(topics)
            .map(|topic| async move { self.topic_gauges(&topic).await })
            .buffered(SIDE_BY_SIDE)
            .try_filter_map(|gauges| async move { Ok(gauges) })
            .try_collect()
            .await
    }

    /// Measures how old the oldest messages of a topic's groups are, sorted by name; empty when the
    /// topic does not exist. Changes nothing; the rights of a viewer are enough.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn ages(&self, topic: &Topic) -> Result<Vec<GroupAges>, Error> {
        let at = Partition::of(topic);
        let Some(status) = self.store.inspect().status(&at).await? else {
            return Ok(Vec::new());
        };
        let progress = self.progress_of_each(&status).await?;
        let mut all = Vec::with_capacity(status.groups.len());
        for group in &status.groups {
            let page = self.schedule(topic, &group.group).await?;
            all.push(self.group_ages(group, &progress, &page).await?);
        }
        Ok(all)
    }

    /// How far the groups have come; `None` where the user may not look. Such a user sees the counts,
    /// but no ages.
    pub(super) async fn progress(&self, at: &Partition) -> Result<Option<LogProgress>, Error> {
        match self.store.inspect().progress(at).await {
            Err(error) if error.kind() == ErrorKind::Refused => Ok(None),
            progress => progress,
        }
    }

    /// How far the groups have come on each partition.
    async fn progress_of_each(
        &self,
        status: &TopicStatus,
    ) -> Result<Vec<(Partition, Option<LogProgress>)>, Error> {
        let mut all = Vec::new();
        for at in status.partitions() {
            let progress = self.progress(&at).await?;
            all.push((at, progress));
        }
        Ok(all)
    }

    /// The first scheduled retry of a group, and the time by the store's clock.
    pub(super) async fn schedule(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<ScheduledPage, Error> {
        let at = GroupAt::of(topic, group);
        self.store.schedule().list(&at, None, 1).await
    }

    async fn group_ages(
        &self,
        status: &GroupStatus,
        partitions: &[(Partition, Option<LogProgress>)],
        page: &ScheduledPage,
    ) -> Result<GroupAges, Error> {
        let now = page.now;
        let (mut undelivered, mut in_flight) = (None, None);
        for (at, progress) in partitions {
            let Some(progress) = of_group(progress.as_ref(), &status.group) else {
                continue;
            };
            if status.lag > 0 {
                let first = self.first_after(at, progress.delivered).await?;
                undelivered = undelivered.max(first.map(|time| since(time, now)));
            }
            let unsettled = progress.unsettled.iter();
            in_flight = in_flight.max(unsettled.map(|one| pending_for(one, now)).max());
        }
        Ok(GroupAges {
            group: status.group.clone(),
            oldest_undelivered: undelivered,
            oldest_in_flight: in_flight,
            next_retry: page
                .entries
                .first()
                .map(|first| first.due.as_millis().saturating_sub(now.as_millis())),
        })
    }

    async fn topic_gauges(&self, topic: &Topic) -> Result<Option<TopicGauges>, Error> {
        let at = Partition::of(topic);
        let inspect = self.store.inspect();
        let Some(status) = inspect.status(&at).await? else {
            return Ok(None);
        };
        let progress = self.progress(&at).await?;
        let each = match status.settings.partitions() {
            1 => vec![(at.clone(), progress.clone())],
            _ => self.progress_of_each(&status).await?,
        };
        let doctor = Doctor::new(self.store.clone());
        let backlog = doctor.backlog(&at, &status, progress.as_ref()).await?;
        let mut groups = Vec::with_capacity(status.groups.len());
        for group in &status.groups {
            let progress = of_group(progress.as_ref(), &group.group);
            groups.push(self.group_gauges(topic, group, progress, &each).await?);
        }
        Ok(Some(TopicGauges {
            topic: topic.clone(),
            entries: status.entries,
            appended: progress.as_ref().and_then(|progress| progress.appended),
            backlog,
            backlog_limit: limit(&status),
            groups,
        }))
    }

    async fn group_gauges(
        &self,
        topic: &Topic,
        status: &GroupStatus,
        progress: Option<&GroupProgress>,
        partitions: &[(Partition, Option<LogProgress>)],
    ) -> Result<GroupGauges, Error> {
        let at = GroupAt::of(topic, &status.group);
        let consumers = self.store.inspect().consumers(&at).await?;
        let live = consumers
            .iter()
            .filter(|one| one.idle_for <= Self::LIVE_WITHIN);
        let page = self.schedule(topic, &status.group).await?;
        let ages = self.group_ages(status, partitions, &page).await?;
        let owned = match status.owned {
            true => owned::counts(&*self.store, &at).await?,
            false => None,
        };
        Ok(GroupGauges {
            group: status.group.clone(),
            lag: status.lag,
            delivered: progress.and_then(|progress| progress.read),
            in_flight: status.in_flight,
            scheduled: status.scheduled,
            dead: status.dead,
            consumers: live.count() as u64,
            oldest_undelivered: ages.oldest_undelivered,
            oldest_in_flight: ages.oldest_in_flight,
            next_retry: ages.next_retry,
            held_back: owned.map(|(held_back, _)| held_back),
            ownerless: owned.map(|(_, ownerless)| ownerless),
        })
    }

    /// When the first entry after an id was published.
    async fn first_after(&self, at: &Partition, id: EntryId) -> Result<Option<Timestamp>, Error> {
        let first = self.store.log().browse(at, Some(id), 1).await?;
        Ok(first.first().and_then(|(id, _)| id.time()))
    }
}

pub(super) fn of_group<'a>(
    progress: Option<&'a LogProgress>,
    group: &Group,
) -> Option<&'a GroupProgress> {
    let mut all = progress?.groups.iter();
    all.find(|one| one.group == *group)
}

fn limit(status: &TopicStatus) -> Option<u64> {
    Some(status.settings.backlog_limit()).filter(|limit| *limit != u64::MAX)
}

fn since(time: Timestamp, now: Timestamp) -> Duration {
    let millis = now.as_millis().saturating_sub(time.as_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
