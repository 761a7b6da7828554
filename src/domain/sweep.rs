//! An operation on many dead letters: what is to be done to which, and how carefully.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::dead_filter::DeadLetterFilter;
use super::dead_letter::{DeadLetterSummary, Reason};
use super::entry_id::EntryId;
use super::error::{Error, ErrorKind};
use super::names::Topic;
use super::pace::Pace;

/// How many must have been redriven before a share of them says anything.
const FEW: u64 = 20;

/// What is to be done to dead letters.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SweepAction {
    /// Back to the group that failed them; attempts begin anew.
    Redrive,
    /// To another topic, and so to all its groups; attempts begin anew.
    Publish(Topic),
    /// Away, for good.
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

/// Which dead letters an operation is about.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Selection {
    /// Those with these ids.
    Ids(Vec<EntryId>),
    /// Those that the filter matches and that were there when the operation began.
    Matching(Box<DeadLetterFilter>),
}

/// Why a dead letter is left where it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum SkipReason {
    /// It does not match the filter.
    NotMatching,
    /// It cannot be decoded and would only die again. A redrive takes it when its reason or its id
    /// is named.
    Undecodable,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMatching => "does not match",
            Self::Undecodable => "cannot be decoded and would only die again",
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
///     .by("ann");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Sweep {
    pub(crate) action: SweepAction,
    pub(crate) selection: Selection,
    pub(crate) rate: Option<(u32, Duration)>,
    pub(crate) stop_share: Option<f64>,
    pub(crate) by: String,
}

impl Sweep {
    fn new(action: SweepAction, selection: impl Into<Selection>) -> Self {
        let mut selection = selection.into();
        if let Selection::Ids(ids) = &mut selection {
            // Each once, however often it was named: counts are of dead letters.
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(*id));
        }
        Self {
            action,
            selection,
            rate: None,
            stop_share: None,
            by: String::new(),
        }
    }

    /// Brings dead letters back to the group that failed them, and to no other.
    pub fn redrive(selection: impl Into<Selection>) -> Self {
        Self::new(SweepAction::Redrive, selection)
    }

    /// Publishes dead letters to another topic and takes them out here.
    ///
    /// The two are not one step, but the topic remembers for ten minutes which dead letters it was
    /// given: neither another operator nor an operation that was cut off in between and is resumed
    /// within that time publishes one twice.
    pub fn publish(to: Topic, selection: impl Into<Selection>) -> Self {
        Self::new(SweepAction::Publish(to), selection)
    }

    /// Removes dead letters for good.
    pub fn purge(selection: impl Into<Selection>) -> Self {
        Self::new(SweepAction::Purge, selection)
    }

    /// Takes at most so many a second, after a ramp that grows evenly from a tenth of that; by
    /// default as many as the store can.
    pub fn with_rate(mut self, per_second: u32, ramp: Duration) -> Self {
        self.rate = Some((per_second, ramp));
        self
    }

    /// Stops by itself when more than this share (0 to 1) of the redriven messages have died
    /// again, once twenty were redriven; by default never.
    ///
    /// Needs a rate: without one all have moved before the first can die again.
    pub fn with_failure_limit(mut self, share: f64) -> Self {
        self.stop_share = Some(share);
        self
    }

    /// Says who does it, for the journal.
    pub fn with_operator(mut self, who: impl Into<String>) -> Self {
        self.by = who.into();
        self
    }

    /// What is to be done.
    #[must_use]
    pub fn action(&self) -> &SweepAction {
        &self.action
    }

    /// To which dead letters.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Checks what was set against the rules, as whatever takes a sweep does before anything else.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`]: a stop share outside 0 to 1 or without a rate, a rate of 0, or a
    /// name of more than 200 bytes.
    pub fn validate(&self) -> Result<(), Error> {
        let invalid = |what, rule: &str| Err(Error::new(ErrorKind::Invalid, what, rule));
        match (self.stop_share, self.rate) {
            (Some(share), _) if !(0.0..=1.0).contains(&share) => {
                invalid("stop share", "must lie between 0 and 1")
            }
            (Some(_), None) => invalid(
                "stop share",
                "needs a rate: without one all have moved before the first can die again",
            ),
            _ if matches!(self.rate, Some((0, _))) => invalid("rate", "must be at least 1"),
            _ if self.by.len() > 200 => invalid("by", "must be at most 200 bytes"),
            _ => Ok(()),
        }
    }

    pub(crate) fn pace(&self) -> Option<Pace> {
        self.rate.map(|(rate, ramp)| Pace::new(rate, ramp))
    }

    /// Whether a dead letter that matches is to be taken, and if not, why.
    pub(crate) fn wants(&self, head: &DeadLetterSummary) -> Result<(), SkipReason> {
        let Selection::Matching(filter) = &self.selection else {
            return Ok(());
        };
        let may_go = match self.action {
            SweepAction::Purge => true,
            SweepAction::Redrive => filter.names(Reason::Undecodable),
            SweepAction::Publish(_) => false,
        };
        if head.reason == Reason::Undecodable && !may_go {
            return Err(SkipReason::Undecodable);
        }
        Ok(())
    }

    /// Whether too many of the redriven have died again.
    pub(crate) fn is_failing(&self, moved: u64, died_again: u64) -> bool {
        self.stop_share
            .is_some_and(|share| moved >= FEW && died_again as f64 > share * moved as f64)
    }
}

impl From<DeadLetterFilter> for Selection {
    fn from(filter: DeadLetterFilter) -> Self {
        Self::Matching(Box::new(filter))
    }
}

impl From<Vec<EntryId>> for Selection {
    fn from(ids: Vec<EntryId>) -> Self {
        Self::Ids(ids)
    }
}

/// In words, for a person.
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
    fn an_id_that_is_named_twice_is_one() {
        let ids: Vec<EntryId> = ["2-1", "1-1", "2-1"].map(|id| id.parse().unwrap()).into();
        let sweep = Sweep::purge(ids.clone());
        assert_eq!(sweep.selection(), &Selection::Ids(ids[..2].to_vec()));
    }

    fn head(reason: Reason) -> DeadLetterSummary {
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
    fn what_cannot_be_decoded_moves_only_when_it_is_named() {
        let id = EntryId::default();
        let undecodable = head(Reason::Undecodable);
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
    fn a_share_says_nothing_of_a_few() {
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
