//! How far the log of a topic is settled: the facts for the findings on backlog, trimming and unread entries.

use crate::domain::{EntryId, Error, Timestamp};
use crate::operate::doctor::{Doctor, groups};
use crate::operate::log_pages;
use crate::store::{GroupProgress, Lane, LogProgress, Partition, TopicStatus};

/// Up to how many settled entries the doctor counts, to tell how many are not. Retention can keep many
/// more.
const MOST_SETTLED: u64 = 1_000;
const PAGE: usize = 50;

impl Doctor {
    /// What a topic keeps for its groups, as its backlog limit counts it: exact where that is close to
    /// the limit, else at least this much.
    pub(in crate::operate) async fn backlog(
        &self,
        at: &Partition,
        status: &TopicStatus,
        progress: Option<&LogProgress>,
    ) -> Result<u64, Error> {
        let settled = match progress {
            Some(progress) => self.settled(at, status, progress).await?,
            None => None,
        };
        Ok(groups::backlog_of(status, settled))
    }

    /// Counts the entries before the first that a group has not settled. Only for a topic that may be
    /// close to its limit: the store keeps no such count.
    pub(super) async fn settled(
        &self,
        at: &Partition,
        status: &TopicStatus,
        progress: &LogProgress,
    ) -> Result<Option<u64>, Error> {
        if !groups::is_close(groups::backlog_of(status, Some(0)), status) {
            return Ok(None);
        }
        if !at.is_whole() || status.settings.partitions() == 1 {
            return self.settled_of(at, progress).await;
        }
        let mut sum = 0;
        for at in status.partitions() {
            let Some(progress) = self.store.inspect().progress(&at).await? else {
                continue;
            };
            match self.settled_of(&at, &progress).await? {
                Some(count) => sum += count,
                None => return Ok(None),
            }
        }
        Ok(Some(sum))
    }

    /// The same of one partition.
    async fn settled_of(
        &self,
        at: &Partition,
        progress: &LogProgress,
    ) -> Result<Option<u64>, Error> {
        let Some(floor) = progress.groups.iter().map(groups::floor).min() else {
            return Ok(None);
        };
        let (mut count, mut after) = (0, None);
        while count < MOST_SETTLED {
            let page = log_pages::after(&*self.store, at, after, PAGE).await?;
            let before = page.iter().take_while(|(id, _)| *id < floor).count();
            count += before as u64;
            if page.is_empty() || before < page.len() {
                return Ok(Some(count));
            }
            after = page.last().map(|(id, _)| *id);
        }
        Ok(None)
    }

    /// The time of the entry that makes the settled entries many, if they are.
    pub(super) async fn many_settled(
        &self,
        at: &Partition,
        entries: u64,
        progress: &LogProgress,
    ) -> Result<Option<Timestamp>, Error> {
        let floor = progress.groups.iter().map(groups::floor).min();
        let Some(floor) = floor.filter(|_| entries > groups::MANY_SETTLED as u64) else {
            return Ok(None);
        };
        let (mut after, mut left) = (None, groups::MANY_SETTLED);
        // Heavy entries come in smaller pages.
        while left > 0 {
            let page = log_pages::after(&*self.store, at, after, left).await?;
            let Some((last, _)) = page.last() else {
                return Ok(None);
            };
            (after, left) = (Some(*last), left.saturating_sub(page.len()));
        }
        Ok(after.filter(|last| *last < floor).and_then(EntryId::time))
    }

    /// When the oldest entry was published that a group has not settled.
    pub(super) async fn first_unsettled(
        &self,
        at: &Partition,
        group: &GroupProgress,
        lag: u64,
    ) -> Result<Option<Timestamp>, Error> {
        let mut in_log = group
            .unsettled
            .iter()
            .filter(|one| one.id.lane == Lane::Log);
        match in_log.next() {
            Some(first) => Ok(first.id.id.time()),
            None if lag > 0 => self.first_after(at, Some(group.delivered)).await,
            None => Ok(None),
        }
    }

    /// When the first entry after an id was published.
    pub(super) async fn first_after(
        &self,
        at: &Partition,
        after: Option<EntryId>,
    ) -> Result<Option<Timestamp>, Error> {
        let first = self.store.log().browse(at, after, 1).await?;
        Ok(first.first().and_then(|(id, _)| id.time()))
    }
}
