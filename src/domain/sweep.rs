//! A sweep: one action on many dead letters, with its selection, pace and limits.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::dead_filter::DeadLetterFilter;
use super::dead_letter::{DeadLetterSummary, Reason};
use super::entry_id::EntryId;
use super::error::{Error, ErrorKind};
use super::names::Topic;
use super::pace::Pace;

/// A failure limit applies from this many redriven messages on: a share of fewer says nothing.
const FEW: u64 = 20;

/// The most bytes of an operator's name.
pub(crate) const MAX_OPERATOR: usize = 200;

/// The most bytes of a note.
pub(crate) const MAX_NOTE: usize = 2_000;

/// What a sweep does to dead letters.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SweepAction {
    /// Brings them back to the group that failed them; attempts restart at 1.
    Redrive,
    /// Publishes them to another topic, and so to all its groups; attempts restart at 1.
    Publish(Topic),
    /// Removes them for good.
    Purge,
}

/// As journals and metrics name it.
impl fmt::Display for SweepAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redrive => "redrive",
            Self::Publish(_) => "publish",
            Self::Purge => "purge",
        })
    }
}

/// The dead letters that an operation takes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Selection {
    /// The dead letters with these ids.
    Ids(Vec<EntryId>),
    /// The dead letters that match the filter and existed when the operation began.
    Matching(Box<DeadLetterFilter>),
}

/// Why a sweep leaves a dead letter in place.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SkipReason {
    /// The dead letter does not match the filter.
    NotMatching,
    /// The message is undecodable and would only die again. A redrive takes it when the selection
    /// names its reason or its id; it cannot be published.
    Undecodable,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMatching => "outside the selection",
            Self::Undecodable => "undecodable and would only die again",
        })
    }
}

/// An operation on many dead letters of one group.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use redstart::dead_letters::{DeadLetterFilter, Reason, Sweep};
///
/// let exhausted = DeadLetterFilter::default().with_reason(Reason::Exhausted);
/// let sweep = Sweep::redrive(exhausted)
///     .with_rate(500, Duration::from_secs(30))
///     .with_failure_limit(0.1)
///     .with_operator("ann");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Sweep {
    pub(crate) action: SweepAction,
    pub(crate) selection: Selection,
    pub(crate) rate: Option<(u32, Duration)>,
    pub(crate) failure_limit: Option<f64>,
    pub(crate) operator: String,
    pub(crate) watermark: Option<EntryId>,
    /// The newest dead letter that the sweep may take of each partition that has one; `None` before a
    /// plan looks at them.
    pub(crate) newest: Option<Vec<EntryId>>,
    pub(crate) note: String,
}

impl Sweep {
    fn new(action: SweepAction, selection: impl Into<Selection>) -> Self {
        let mut selection = selection.into();
        if let Selection::Ids(ids) = &mut selection {
            // The counts are of dead letters, so an id that is named twice counts once.
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(*id));
        }
        Self {
            action,
            selection,
            rate: None,
            failure_limit: None,
            operator: String::new(),
            watermark: None,
            newest: None,
            note: String::new(),
        }
    }

    /// Brings dead letters back to the group that failed them, and to no other.
    pub fn redrive(selection: impl Into<Selection>) -> Self {
        Self::new(SweepAction::Redrive, selection)
    }

    /// Publishes dead letters to another topic and removes them here.
    ///
    /// The two are separate steps, but the topic remembers each dead letter for ten minutes:
    /// neither another operator nor a resumed operation publishes one twice within that time. An
    /// undecodable dead letter stays, and so does one that is too large or that a publish hook
    /// refuses by a rule; the sweep counts these as skipped. Any other error ends the sweep, after it
    /// has removed the dead letters that it published.
    pub fn publish(to: Topic, selection: impl Into<Selection>) -> Self {
        Self::new(SweepAction::Publish(to), selection)
    }

    /// Removes dead letters for good.
    pub fn purge(selection: impl Into<Selection>) -> Self {
        Self::new(SweepAction::Purge, selection)
    }

    /// Limits the sweep to `per_second` dead letters a second. The rate grows evenly from a tenth
    /// of that during `ramp`. Default: no limit.
    pub fn with_rate(mut self, per_second: u32, ramp: Duration) -> Self {
        self.rate = Some((per_second, ramp));
        self
    }

    /// Stops the sweep when more than this share (0 to 1) of its redriven messages died again.
    /// Applies from twenty redriven messages on. Default: the sweep never stops.
    ///
    /// Needs a rate: without one the sweep moves all before the first can die again.
    pub fn with_failure_limit(mut self, share: f64) -> Self {
        self.failure_limit = Some(share);
        self
    }

    /// Names the operator for the journal; at most 200 bytes.
    pub fn with_operator(mut self, operator: impl Into<String>) -> Self {
        self.operator = operator.into();
        self
    }

    /// Adds a note to the journal, such as the number of a ticket; at most 2,000 bytes.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Takes no dead letter with a greater id, however many die before the sweep begins. A page that
    /// asks for confirmation passes the id that its preview showed, see
    /// [`PlannedSweep::watermark`](crate::dead_letters::PlannedSweep::watermark). Default: the newest
    /// dead letter when the sweep begins. A selection of ids is bounded by itself.
    pub fn with_watermark(mut self, id: EntryId) -> Self {
        self.watermark = Some(id);
        self
    }

    /// What the sweep does.
    #[must_use]
    pub fn action(&self) -> &SweepAction {
        &self.action
    }

    /// The dead letters that the sweep takes.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Checks the settings against the rules. Every call that takes a sweep checks it first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`]: a failure limit outside 0 to 1 or without a rate, a rate of 0, an
    /// operator's name of more than 200 bytes, or a note of more than 2,000 bytes.
    pub fn validate(&self) -> Result<(), Error> {
        let invalid = |what, rule: &str| Err(Error::new(ErrorKind::Invalid, what, rule));
        match (self.failure_limit, self.rate) {
            (Some(share), _) if !(0.0..=1.0).contains(&share) => {
                invalid("failure limit", "must lie between 0 and 1")
            }
            (Some(_), None) => invalid(
                "failure limit",
                "needs a rate: without one the sweep moves all before the first can die again",
            ),
            _ if matches!(self.rate, Some((0, _))) => invalid("rate", "must be at least 1"),
            _ if self.operator.len() > MAX_OPERATOR => {
                invalid("operator", "must be at most 200 bytes")
            }
            _ if self.note.len() > MAX_NOTE => invalid("note", "must be at most 2,000 bytes"),
            _ => Ok(()),
        }
    }

    pub(crate) fn pace(&self) -> Option<Pace> {
        self.rate.map(|(rate, ramp)| Pace::new(rate, ramp))
    }

    /// Whether the sweep takes a selected dead letter, and if not, why.
    pub(crate) fn wants(&self, summary: &DeadLetterSummary) -> Result<(), SkipReason> {
        let may_go = match (&self.action, &self.selection) {
            (SweepAction::Purge, _) | (SweepAction::Redrive, Selection::Ids(_)) => true,
            (SweepAction::Redrive, Selection::Matching(filter)) => {
                filter.names(Reason::Undecodable)
            }
            (SweepAction::Publish(_), _) => false,
        };
        if summary.reason == Reason::Undecodable && !may_go {
            return Err(SkipReason::Undecodable);
        }
        Ok(())
    }

    /// Whether more redriven messages died again than the failure limit allows.
    pub(crate) fn is_failing(&self, moved: u64, died_again: u64) -> bool {
        self.failure_limit
            .is_some_and(|share| moved >= FEW && died_again as f64 > share * moved as f64)
    }
}

impl From<DeadLetterFilter> for Selection {
    fn from(filter: DeadLetterFilter) -> Self {
        Self::Matching(Box::new(filter))
    }
}

impl From<EntryId> for Selection {
    fn from(id: EntryId) -> Self {
        Self::Ids(vec![id])
    }
}

impl From<Vec<EntryId>> for Selection {
    fn from(ids: Vec<EntryId>) -> Self {
        Self::Ids(ids)
    }
}

/// As its text.
impl Serialize for Selection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// In words, for people.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids(ids) if ids.len() == 1 => write!(f, "{}", ids[0]),
            Self::Ids(ids) => write!(f, "{} ids", ids.len()),
            Self::Matching(filter) => filter.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_named_twice_counts_once() {
        let ids: Vec<EntryId> = ["2-1", "1-1", "2-1"].map(|id| id.parse().unwrap()).into();
        let sweep = Sweep::purge(ids.clone());
        assert_eq!(sweep.selection(), &Selection::Ids(ids[..2].to_vec()));
    }

    fn summary(reason: Reason) -> DeadLetterSummary {
        DeadLetterSummary {
            reason,
            fingerprint: String::new(),
            message_type: String::new(),
            tenant: None,
            correlation: None,
            message_id: None,
            error: String::new(),
            attempts: 1,
            redriven: 0,
            redriven_by: None,
            imported_from: None,
        }
    }

    #[test]
    fn a_sweep_takes_undecodable_messages_only_by_name() {
        let id = EntryId::default();
        let undecodable = summary(Reason::Undecodable);
        let everything = || DeadLetterFilter::default();
        let named = everything().with_reason(Reason::Undecodable);
        let wants = |sweep: Sweep| sweep.wants(&undecodable);
        assert_eq!(
            wants(Sweep::redrive(everything())),
            Err(SkipReason::Undecodable)
        );
        assert_eq!(wants(Sweep::redrive(named)), Ok(()));
        assert_eq!(wants(Sweep::redrive(vec![id])), Ok(()));
        assert_eq!(wants(Sweep::purge(everything())), Ok(()));
        let elsewhere = Topic::new("other").unwrap();
        let named = everything().with_reason(Reason::Undecodable);
        let published = wants(Sweep::publish(elsewhere, named));
        assert_eq!(
            published,
            Err(SkipReason::Undecodable),
            "there is no envelope to publish"
        );
    }

    #[test]
    fn a_failure_limit_ignores_the_first_few() {
        let sweep = Sweep::redrive(vec![]).with_failure_limit(0.1);
        assert!(!sweep.is_failing(19, 19));
        assert!(sweep.is_failing(20, 3));
        assert!(!sweep.is_failing(20, 2), "not more than the share");
        assert!(!Sweep::redrive(vec![]).is_failing(1000, 1000));
    }

    #[test]
    fn rules_are_checked_and_named() {
        let sweep = || Sweep::redrive(vec![]);
        let rated = || sweep().with_rate(10, Duration::ZERO);
        for (bad, what) in [
            (sweep().with_failure_limit(0.5), "needs a rate"),
            (rated().with_failure_limit(1.5), "between 0 and 1"),
            (rated().with_failure_limit(f64::NAN), "between 0 and 1"),
            (sweep().with_rate(0, Duration::ZERO), "at least 1"),
            (sweep().with_operator("x".repeat(201)), "200 bytes"),
        ] {
            let error = bad.validate().unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        rated().with_failure_limit(0.5).validate().unwrap();
    }
}
