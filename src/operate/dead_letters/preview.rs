//! Previews: what a sweep would do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::domain::{EntryId, Error, Group, Selection, SkipReason, Sweep, Topic};
use crate::operate::dead_letters::handle::DeadLetters;
use crate::operate::dead_letters::sweep::{PAGE, range_of};

/// What a sweep would do.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Preview {
    /// How many dead letters the sweep would move or remove.
    pub matching: u64,
    /// How many dead letters the sweep would leave in place, by reason. As JSON it has every
    /// reason.
    #[serde(serialize_with = "every_reason")]
    pub skipped: BTreeMap<SkipReason, u64>,
    /// How many of the selected ids do not exist.
    pub missing: u64,
    /// The oldest dead letter that the sweep would move or remove.
    pub oldest: Option<EntryId>,
    /// The newest dead letter that the sweep would move or remove.
    pub newest: Option<EntryId>,
}

fn every_reason<S: Serializer>(
    skipped: &BTreeMap<SkipReason, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let zeros = [SkipReason::NotMatching, SkipReason::Undecodable].map(|reason| (reason, 0));
    let mut all = BTreeMap::from(zeros);
    all.extend(skipped);
    all.serialize(serializer)
}

impl Preview {
    fn enter(&mut self, id: EntryId, wanted: Result<(), SkipReason>) {
        match wanted {
            Ok(()) => {
                self.matching += 1;
                self.oldest = Some(self.oldest.map_or(id, |oldest| oldest.min(id)));
                self.newest = self.newest.max(Some(id));
            }
            Err(reason) => *self.skipped.entry(reason).or_default() += 1,
        }
    }
}

impl DeadLetters {
    /// Says what a sweep would do, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a sweep that breaks a rule, and the kinds of
    /// the connection.
    pub async fn preview(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: &Sweep,
    ) -> Result<Preview, Error> {
        Ok(self.look(topic, group, sweep, None).await?.preview)
    }

    /// Looks what a sweep would do, no longer than `within` and at one portion at least.
    pub(super) async fn look(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: &Sweep,
        within: Option<Duration>,
    ) -> Result<Looked, Error> {
        sweep.validate()?;
        let mut looked = Looked::default();
        match &sweep.selection {
            Selection::Ids(ids) => {
                for (id, summary) in self.heads(topic, group, ids).await? {
                    looked.searched += 1;
                    looked.preview.enter(id, sweep.wants(&summary));
                }
                looked.preview.missing = ids.len() as u64 - looked.searched;
            }
            Selection::Matching(filter) => {
                let began = Instant::now();
                // Each partition by itself: its ids follow the clock of its server.
                for at in self.parts(topic, group).await? {
                    let is_late = || within.is_some_and(|within| began.elapsed() >= within);
                    if looked.searched > 0 && is_late() {
                        looked.ended_early = true;
                        break;
                    }
                    let until = self.watermark(&at, sweep).await?;
                    let mut rest = range_of(filter, None, until);
                    while let Some(range) = rest {
                        let found = self.port().search(&at, range, filter, PAGE).await?;
                        looked.searched += found.looked;
                        for (id, summary) in &found.items {
                            looked.preview.enter(*id, sweep.wants(summary));
                        }
                        rest = found.next().and_then(|id| range.beyond(id));
                        if is_late() && rest.is_some() {
                            looked.ended_early = true;
                            break;
                        }
                    }
                }
                let preview = &mut looked.preview;
                let matching = preview.matching + preview.skipped.values().sum::<u64>();
                if looked.searched > matching {
                    let others = looked.searched - matching;
                    preview.skipped.insert(SkipReason::NotMatching, others);
                }
            }
        }
        Ok(looked)
    }
}

/// What a look at a selection found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) preview: Preview,
    /// How many dead letters it looked at.
    pub(super) searched: u64,
    pub(super) ended_early: bool,
}
