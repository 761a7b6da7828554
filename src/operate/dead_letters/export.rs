//! Reading many whole dead letters, to export them.

use std::time::Duration;

use crate::domain::{DeadLetter, EntryId, Error, Group, Selection, Topic};
use crate::operate::dead_letters::handle::DeadLetters;

/// How many dead letters a page holds at most.
const PAGE: usize = 500;

/// The whole dead letters of a selection, page by page.
#[derive(Debug)]
pub struct DeadLetterPages<'a> {
    dead_letters: &'a DeadLetters,
    topic: &'a Topic,
    group: &'a Group,
    selection: &'a Selection,
    /// How many ids of a selection by id came so far.
    ids: usize,
    after: Option<EntryId>,
    ended: bool,
}

impl DeadLetters {
    /// Opens the whole dead letters of a selection, oldest first or in the order of its ids. Take
    /// a [`snapshot`](Self::snapshot) first to leave out messages that die meanwhile.
    pub fn pages<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        selection: &'a Selection,
    ) -> DeadLetterPages<'a> {
        DeadLetterPages {
            dead_letters: self,
            topic,
            group,
            selection,
            ids: 0,
            after: None,
            ended: false,
        }
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

impl DeadLetterPages<'_> {
    /// Reads the next page; `None` at the end. A page can be empty.
    ///
    /// # Errors
    ///
    /// [`Decode`](crate::ErrorKind::Decode) for a record that this version cannot read, and the kinds of the
    /// connection.
    pub async fn next(&mut self) -> Result<Option<Vec<DeadLetter>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let (topic, group) = (self.topic, self.group);
        match self.selection {
            Selection::Ids(ids) => {
                let rest = &ids[self.ids..];
                let page = &rest[..rest.len().min(PAGE)];
                self.ids += page.len();
                self.ended = self.ids == ids.len();
                self.dead_letters.get(topic, group, page).await.map(Some)
            }
            Selection::Matching(filter) => {
                let page = self
                    .dead_letters
                    .list(topic, group, filter, self.after, PAGE)
                    .await?;
                let ids: Vec<EntryId> = page.items.iter().map(|(id, _)| *id).collect();
                let letters = self.dead_letters.get(topic, group, &ids).await?;
                self.after = page.next;
                self.ended = page.next.is_none();
                Ok(Some(letters))
            }
        }
    }
}
