//! What the calls on dead letters return.

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::domain::{DeadLetterSummary, EntryId};

/// One page of a list of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeadLetterPage {
    /// The dead letters that match, in the order of the list.
    pub items: Vec<(EntryId, DeadLetterSummary)>,
    /// The id at which this page ended, for the next one; `None` on the last page.
    pub next: Option<EntryId>,
    /// How many dead letters the store looked at for this page.
    pub looked: u64,
}

/// How far a sweep has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SweepProgress {
    /// The operation's id in the journal; nil for a sweep that had nothing to do.
    #[serde(serialize_with = "null_for_nil")]
    pub operation: Uuid,
    /// How many dead letters the sweep moved or removed.
    pub taken: u64,
    /// How many older dead letters the sweep left in place.
    pub skipped: u64,
    /// How many were gone before the sweep reached them.
    pub missing: u64,
    /// How many redriven messages died again so far; counted only with a failure limit.
    pub died_again: u64,
}

fn null_for_nil<S: Serializer>(operation: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    let known = (!operation.is_nil()).then_some(operation);
    known.serialize(serializer)
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SweepEnd {
    /// The sweep reached every dead letter of its selection.
    Done,
    /// More redriven messages died again than the failure limit allows.
    Stopped,
}

impl SweepEnd {
    /// The end in one word, as metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// What a sweep did.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SweepReport {
    /// The operation's id in the journal.
    #[serde(skip)]
    pub operation: Uuid,
    /// How the sweep ended.
    pub ended: SweepEnd,
    /// What the sweep did.
    #[serde(flatten)]
    pub progress: SweepProgress,
}
