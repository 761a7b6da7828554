//! Plans of sweeps: what a sweep will do, for an operator to confirm.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{EntryId, Error, Group, Selection, Sweep, SweepAction, Topic};
use crate::operate::dead_letters::handle::DeadLetters;
use crate::operate::dead_letters::preview::Preview;
use crate::operate::dead_letters::report::{SweepEnd, SweepProgress, SweepReport};
use crate::operate::plan::{Confirmed, Plan};

/// What a planned sweep will do. [`Display`](fmt::Display) says it in one line for each fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedSweep {
    /// The topic.
    pub topic: Topic,
    /// The group whose dead letters the sweep takes.
    pub group: Group,
    /// `redrive`, `publish` or `purge`.
    pub action: String,
    /// The topic to which the sweep publishes the dead letters.
    pub to: Option<Topic>,
    /// The dead letters that the sweep takes.
    pub selection: Selection,
    /// The newest dead letter that the sweep may take: what dies later stays. `None` for ids, and
    /// where the group had no dead letters.
    pub watermark: Option<EntryId>,
    /// How many, and why not others.
    #[serde(flatten)]
    pub preview: Preview,
    #[serde(skip)]
    sweep: Sweep,
}

impl PlannedSweep {
    /// The newest dead letter of each partition that had one when the plan was made; `None` for ids.
    pub(super) fn newest(&self) -> Option<Vec<EntryId>> {
        self.sweep.newest.clone()
    }

    /// Whether the sweep finds nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.preview.matching == 0
    }
}

impl fmt::Display for PlannedSweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matching = self.preview.matching;
        let letters = counted(matching, "dead letter", "dead letters");
        match &self.sweep.action {
            SweepAction::Redrive => write!(f, "will redrive {letters} to group {}", self.group)?,
            SweepAction::Publish(to) => {
                write!(
                    f,
                    "will publish {letters} to {to}, and so to all its groups"
                )?;
            }
            SweepAction::Purge => write!(f, "will remove {letters} for good")?,
        }
        if let (Some(oldest), Some(newest)) = (self.preview.oldest, self.preview.newest) {
            write!(f, "\n  oldest {oldest}, newest {newest}")?;
        }
        for (reason, count) in &self.preview.skipped {
            write!(f, "\nwill skip {count}: {reason}")?;
        }
        if self.preview.missing > 0 {
            let ids = counted(self.preview.missing, "id does", "ids do");
            write!(f, "\n{ids} not exist")?;
        }
        Ok(())
    }
}

/// What a look that may have ended early found.
#[cfg(feature = "console")]
#[derive(Debug)]
pub(crate) struct BoundedLook {
    pub(crate) planned: PlannedSweep,
    /// How many dead letters the look reached before its time was over; `None`: it reached all.
    pub(crate) searched: Option<u64>,
}

/// A count and its noun.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

impl DeadLetters {
    /// Plans a sweep: checks it, previews it, and says which word confirms it. A purge asks for
    /// the count of dead letters; a redrive and a publish ask for nothing.
    ///
    /// A plan takes the dead letters that exist now, or up to the watermark of the sweep, so that
    /// those that an operator sees, exports, confirms and moves are the same. What dies until the
    /// plan runs stays.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a sweep that breaks a rule, and the kinds of
    /// the connection.
    pub async fn plan(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: Sweep,
    ) -> Result<Plan<PlannedSweep>, Error> {
        let (planned, _) = self.planned(topic, group, sweep, None).await?;
        let asks = planned.sweep.action == SweepAction::Purge && planned.preview.matching > 0;
        let confirmation = asks.then(|| planned.preview.matching.to_string());
        Ok(Plan::new(planned, confirmation))
    }

    /// As [`plan`](Self::plan), for people who look first: ends the look after `within`. Nobody can
    /// confirm its result, because the counts may be too small.
    #[cfg(feature = "console")]
    pub(crate) async fn look_within(
        &self,
        topic: &Topic,
        group: &Group,
        sweep: Sweep,
        within: Duration,
    ) -> Result<BoundedLook, Error> {
        let looked = self.planned(topic, group, sweep, Some(within)).await?;
        let (planned, (searched, ended_early)) = looked;
        Ok(BoundedLook {
            planned,
            searched: ended_early.then_some(searched),
        })
    }

    async fn planned(
        &self,
        topic: &Topic,
        group: &Group,
        mut sweep: Sweep,
        within: Option<Duration>,
    ) -> Result<(PlannedSweep, (u64, bool)), Error> {
        sweep.validate()?;
        sweep.newest = None;
        let mut watermark = None;
        if matches!(sweep.selection, Selection::Matching(_)) {
            let newest = self.newest_of_each(topic, group).await?;
            let bound = |newest: EntryId| newest.min(sweep.watermark.unwrap_or(newest));
            watermark = newest.iter().copied().max().map(bound);
            sweep.newest = Some(newest);
        }
        sweep.watermark = watermark;
        let looked = self.look(topic, group, &sweep, within).await?;
        let planned = PlannedSweep {
            topic: topic.clone(),
            group: group.clone(),
            action: sweep.action.to_string(),
            to: match &sweep.action {
                SweepAction::Publish(to) => Some(to.clone()),
                _ => None,
            },
            selection: sweep.selection.clone(),
            watermark: sweep.watermark,
            preview: looked.preview,
            sweep,
        };
        Ok((planned, (looked.searched, looked.ended_early)))
    }

    /// Runs a confirmed sweep, see [`sweep`](Self::sweep). A plan without matching dead letters
    /// begins nothing: the journal gets no entry, and the report has the nil operation.
    ///
    /// # Errors
    ///
    /// The kinds of the connection, after which [`resume`](Self::resume) continues the sweep.
    ///
    /// # Cancel safety
    ///
    /// As [`sweep`](Self::sweep).
    pub async fn run(
        &self,
        plan: Confirmed<PlannedSweep>,
        progress: &(dyn Fn(SweepProgress) + Send + Sync),
    ) -> Result<SweepReport, Error> {
        let plan = plan.into_plan();
        if plan.is_empty() {
            return Ok(SweepReport {
                operation: Uuid::nil(),
                ended: SweepEnd::Done,
                progress: SweepProgress {
                    skipped: plan.preview.skipped.values().sum(),
                    missing: plan.preview.missing,
                    ..SweepProgress::default()
                },
            });
        }
        self.sweep(&plan.topic, &plan.group, plan.sweep, progress)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SkipReason;

    fn planned(sweep: Sweep, preview: Preview) -> PlannedSweep {
        PlannedSweep {
            topic: Topic::new("orders").unwrap(),
            group: Group::new("billing").unwrap(),
            action: sweep.action.to_string(),
            to: None,
            selection: sweep.selection.clone(),
            watermark: sweep.watermark,
            preview,
            sweep,
        }
    }

    #[test]
    fn a_plan_says_what_will_happen() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        let mut preview = Preview {
            matching: 2,
            missing: 1,
            oldest: Some(id("1-1")),
            newest: Some(id("2-2")),
            ..Preview::default()
        };
        preview.skipped.insert(SkipReason::Undecodable, 1);
        let redrive = planned(Sweep::redrive(id("1-1")), preview);
        assert_eq!(
            redrive.to_string(),
            "will redrive 2 dead letters to group billing\n  oldest 1-1, newest 2-2\n\
             will skip 1: undecodable and would only die again\n1 id does not exist"
        );
        let purge = planned(Sweep::purge(id("1-1")), Preview::default());
        assert_eq!(purge.to_string(), "will remove 0 dead letters for good");
        assert!(purge.is_empty() && !redrive.is_empty());
    }

    #[test]
    fn a_plan_serialises_in_the_tools_dialect() {
        let plan = planned(Sweep::purge(EntryId::default()), Preview::default());
        let json = serde_json::to_value(Plan::new(plan, Some("7".to_owned()))).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "topic": "orders", "group": "billing", "action": "purge", "to": null,
                "selection": "0-0", "watermark": null, "matching": 0, "missing": 0, "oldest": null, "newest": null,
                "skipped": {"notMatching": 0, "undecodable": 0}, "confirmation": "7",
            })
        );
    }
}
