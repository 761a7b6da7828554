//! Summaries: how many dead letters a group has, and of which causes.

use std::collections::HashSet;

use serde::Serialize;

use crate::domain::{Cause, CountBy, EntryId, Error, Group, Timestamp, Topic};
use crate::operate::dead_letters::handle::DeadLetters;
use crate::operate::dead_letters::notes::CauseNote;
use crate::store::{Counted, GroupAt};

/// One cause of a group's dead letters, with a dead letter to look at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CauseSummary {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: Group,
    /// The cause and its count.
    #[serde(flatten)]
    pub cause: Cause,
    /// When the first message died of it.
    pub first_died: Option<Timestamp>,
    /// When the last message died of it.
    pub last_died: Option<Timestamp>,
    /// The id of a dead letter that exists; `None` when neither the first nor the last does.
    pub sample: Option<EntryId>,
    /// An operator's note on it.
    pub note: Option<CauseNote>,
}

/// The most frequent causes of a group's dead letters.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupSummary {
    /// How many dead letters the group has.
    pub count: u64,
    /// The most frequent causes.
    pub causes: Vec<CauseSummary>,
    /// How many rarer causes there are.
    pub rarer: usize,
}

/// How many dead letters of a group share a type, a tenant or an hour.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CountSummary {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: Group,
    /// The type, the tenant or the hour; empty for messages without one.
    pub name: String,
    /// How many dead letters.
    pub count: u64,
}

impl DeadLetters {
    /// Sums up a group's dead letters by cause: the `max` most frequent ones.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn summary(
        &self,
        topic: &Topic,
        group: &Group,
        max: usize,
    ) -> Result<GroupSummary, Error> {
        let Counted {
            items: mut causes,
            others,
        } = self.counted_causes(topic, group).await?;
        let count = match others {
            0 => causes.iter().map(|cause| cause.count).sum(),
            _ => self.port().count(&GroupAt::of(topic, group)).await?,
        };
        let others = usize::try_from(others).unwrap_or(usize::MAX);
        let rarer = causes.len().saturating_sub(max).saturating_add(others);
        causes.truncate(max);
        let lasts: Vec<EntryId> = causes.iter().map(|cause| cause.last).collect();
        let found = self.heads(topic, group, &lasts).await?;
        let mut found: HashSet<EntryId> = found.into_iter().map(|(id, _)| id).collect();
        let gone = causes.iter().filter(|cause| !found.contains(&cause.last));
        let firsts: Vec<EntryId> = gone.map(|cause| cause.first).collect();
        let firsts = self.heads(topic, group, &firsts).await?;
        found.extend(firsts.into_iter().map(|(id, _)| id));
        let notes = self.notes(topic, group).await?;
        let note = |cause: &Cause| {
            let mut notes = notes.iter();
            notes.find(|note| note.fingerprint == cause.fingerprint)
        };
        let exists = |id: &EntryId| found.contains(id);
        let summary = |cause: Cause| CauseSummary {
            topic: topic.clone(),
            group: group.clone(),
            first_died: cause.first.time(),
            last_died: cause.last.time(),
            sample: [cause.last, cause.first].into_iter().find(exists),
            note: note(&cause).cloned(),
            cause,
        };
        Ok(GroupSummary {
            count,
            causes: causes.into_iter().map(summary).collect(),
            rarer,
        })
    }

    /// Sums up a group's dead letters by type, tenant or hour: the `max` most frequent ones, or
    /// the newest `max` hours in their order.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn summary_by(
        &self,
        topic: &Topic,
        group: &Group,
        by: CountBy,
        max: usize,
    ) -> Result<Vec<CountSummary>, Error> {
        let mut counts = self.counts(topic, group, by).await?;
        if by == CountBy::Hour {
            let older = counts.len().saturating_sub(max);
            counts.drain(..older);
        } else {
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            counts.truncate(max);
        }
        let summary = |(name, count)| CountSummary {
            topic: topic.clone(),
            group: group.clone(),
            name,
            count,
        };
        Ok(counts.into_iter().map(summary).collect())
    }
}
