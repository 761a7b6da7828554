//! Reading many whole dead letters, to export them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::{DeadLetter, EntryId, Error, Group, Selection, Topic};
use crate::operate::dead_letters::handle::DeadLetters;
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
    /// The pages that a look has found and that are still to be read.
    found: VecDeque<Vec<EntryId>>,
    ended: bool,
}

impl DeadLetters {
    /// Opens the whole dead letters of a selection, oldest first or in the order of its ids. Take
    /// a [`snapshot`](Self::snapshot) first to leave out messages that die meanwhile.
    #[must_use]
    pub fn pages(&self, topic: &Topic, group: &Group, selection: &Selection) -> DeadLetterPages {
        DeadLetterPages {
            dead_letters: self.clone(),
            topic: topic.clone(),
            group: group.clone(),
            selection: selection.clone(),
            ids: 0,
            after: None,
            found: VecDeque::new(),
            ended: false,
        }
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

    /// Bounds a selection to the dead letters that exist now.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn snapshot(
        &self,
        topic: &Topic,
        group: &Group,
        selection: Selection,
    ) -> Result<Selection, Error> {
        let Selection::Matching(filter) = selection else {
            return Ok(selection);
        };
        let newest = self.newest(topic, group).await?;
        // A filter's bound is a whole millisecond, in which more messages may die: wait it out.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let (_, until) = filter.bounds();
        Ok(match newest.and_then(EntryId::time) {
            Some(time) if until.is_none_or(|until| Some(until) > newest) => {
                filter.with_until(time).into()
            }
            _ => Selection::Matching(filter),
        })
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
        let ids: Vec<EntryId> = match &self.selection {
            Selection::Ids(ids) => {
                let rest = &ids[self.ids..];
                let some = &rest[..rest.len().min(PAGE)];
                self.ids += some.len();
                self.ended = self.ids == ids.len();
                some.to_vec()
            }
            Selection::Matching(filter) => {
                let page = self
                    .dead_letters
                    .list(topic, group, filter, self.after, PAGE)
                    .await?;
                self.after = page.next;
                self.ended = page.next.is_none();
                page.items.iter().map(|(id, _)| *id).collect()
            }
        };
        self.found = self.dead_letters.portions(topic, group, &ids).await?;
        Ok(())
    }
}
