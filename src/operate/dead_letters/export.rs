//! Reading many whole dead letters, to export them.

use std::collections::VecDeque;

use futures_util::future::join_all;

use crate::domain::{DeadLetter, EntryId, Error, Group, Selection, Topic};
use crate::operate::dead_letters::handle::DeadLetters;
use crate::operate::dead_letters::plan::PlannedSweep;
use crate::operate::dead_letters::sweep::range_of;
use crate::store::GroupAt;
use crate::store::batch::pages;

/// How many dead letters a page holds at most.
const PAGE: usize = 500;

/// The whole dead letters of a selection, page by page. A page holds about four megabytes of records
/// at most; a heavier dead letter is on a page of its own.
#[derive(Debug)]
pub struct DeadLetterPages {
    dead_letters: DeadLetters,
    topic: Topic,
    group: Group,
    selection: Selection,
    /// How many ids of a selection by id came so far.
    ids: usize,
    after: Option<EntryId>,
    /// The newest dead letter of each partition that has one, when the export began: what dies later
    /// stays out.
    newest: Option<Vec<EntryId>>,
    /// The bound of a planned sweep on all partitions.
    watermark: Option<EntryId>,
    /// The pages that a look has found and that are still to be read.
    found: VecDeque<Vec<EntryId>>,
    ended: bool,
}

impl DeadLetters {
    /// Opens the whole dead letters of a selection, oldest first or in the order of its ids: those that
    /// exist at the first call of [`next`](DeadLetterPages::next). Messages that die meanwhile are left
    /// out.
    #[must_use]
    pub fn pages(&self, topic: &Topic, group: &Group, selection: &Selection) -> DeadLetterPages {
        DeadLetterPages {
            dead_letters: self.clone(),
            topic: topic.clone(),
            group: group.clone(),
            selection: selection.clone(),
            ids: 0,
            after: None,
            newest: None,
            watermark: None,
            found: VecDeque::new(),
            ended: false,
        }
    }

    /// Opens the whole dead letters that a planned sweep takes, and no other, to keep a copy of them.
    #[must_use]
    pub fn pages_of(&self, planned: &PlannedSweep) -> DeadLetterPages {
        let pages = self.pages(&planned.topic, &planned.group, &planned.selection);
        DeadLetterPages {
            newest: planned.newest(),
            watermark: planned.watermark,
            ..pages
        }
    }

    /// The newest dead letter of each partition that has one. The ids of two partitions follow two
    /// clocks, so none of them bounds what another partition has.
    pub(super) async fn newest_of_each(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<Vec<EntryId>, Error> {
        let parts = self.parts(topic, group).await?;
        let newest = join_all(parts.iter().map(|at| self.port().newest(at))).await;
        let newest: Result<Vec<_>, Error> = newest.into_iter().collect();
        Ok(newest?.into_iter().flatten().collect())
    }

    /// Cuts ids into portions whose records are read at once, without too much memory.
    pub(super) async fn portions(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<VecDeque<Vec<EntryId>>, Error> {
        if ids.len() <= 1 {
            return Ok(ids.iter().map(|id| vec![*id]).collect());
        }
        let weights = self.port().weigh(&GroupAt::of(topic, group), ids).await?;
        let weighed: Vec<(EntryId, u64)> = ids.iter().copied().zip(weights).collect();
        let weight = |(_, bytes): &(EntryId, u64)| usize::try_from(*bytes).unwrap_or(usize::MAX);
        let portions = pages(&weighed, weight).into_iter();
        Ok(portions
            .map(|portion| portion.iter().map(|(id, _)| *id).collect())
            .collect())
    }
}

impl DeadLetterPages {
    /// Reads the next page; `None` at the end. A page can be empty.
    ///
    /// # Errors
    ///
    /// [`Decode`](crate::ErrorKind::Decode) for a record that this version cannot read, and the kinds of the
    /// connection.
    pub async fn next(&mut self) -> Result<Option<Vec<DeadLetter>>, Error> {
        if self.found.is_empty() {
            if self.ended {
                return Ok(None);
            }
            self.find_more().await?;
        }
        let ids = self.found.pop_front().unwrap_or_default();
        let letters = self.dead_letters.get(&self.topic, &self.group, &ids);
        letters.await.map(Some)
    }

    async fn find_more(&mut self) -> Result<(), Error> {
        let (topic, group) = (&self.topic, &self.group);
        if self.newest.is_none() && matches!(self.selection, Selection::Matching(_)) {
            self.newest = Some(self.dead_letters.newest_of_each(topic, group).await?);
        }
        let ids: Vec<EntryId> = match &self.selection {
            Selection::Ids(ids) => {
                let rest = &ids[self.ids..];
                let some = &rest[..rest.len().min(PAGE)];
                self.ids += some.len();
                self.ended = self.ids == ids.len();
                some.to_vec()
            }
            Selection::Matching(filter) => {
                let newest = self.newest.as_deref().unwrap_or_default();
                let watermark = self.watermark.or(newest.iter().copied().max());
                let Some(range) = range_of(filter, self.after, watermark) else {
                    self.ended = true;
                    return Ok(());
                };
                let at = GroupAt::of(topic, group);
                let port = self.dead_letters.port();
                let found = port.search(&at, range, filter, PAGE).await?;
                self.after = found.next();
                self.ended = self.after.is_none();
                let is_bounded = |id: &EntryId| {
                    let same = |one: &&EntryId| one.partition() == id.partition();
                    newest.iter().find(same).is_some_and(|newest| id <= newest)
                };
                let ids = found.items.iter().map(|(id, _)| *id);
                ids.filter(is_bounded).collect()
            }
        };
        self.found = self.dead_letters.portions(topic, group, &ids).await?;
        Ok(())
    }
}
