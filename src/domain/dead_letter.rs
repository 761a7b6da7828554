//! An undeliverable envelope with its reason, history and origin.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::entry_id::EntryId;
use super::error::{Error, ErrorKind};
use super::names::{Group, Topic};
use super::timestamp::Timestamp;

/// The number of failed attempts that a history keeps.
const MAX_HISTORY: usize = 10;

/// Why a message was dead-lettered.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Every attempt failed.
    Exhausted,
    /// The handler rejected it: no attempt can succeed.
    Rejected,
    /// The entry or its payload could not be decoded.
    Undecodable,
    /// The consumer crashed during the last attempt.
    Crashed,
    /// The message was too old to be handled. Reserved. Nothing produces this reason yet; records
    /// that carry it are accepted.
    Expired,
    /// The group has no handler for the message's type.
    Unhandled,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::Exhausted,
        Self::Rejected,
        Self::Undecodable,
        Self::Crashed,
        Self::Expired,
        Self::Unhandled,
    ];

    /// The name in records, metrics and filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::Crashed => "crashed",
            Self::Expired => "expired",
            Self::Unhandled => "unhandled",
        }
    }
}

/// As [`as_str`](Reason::as_str) names it.
impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| {
                let rule =
                    "must be exhausted, rejected, undecodable, crashed, expired or unhandled";
                Error::new(ErrorKind::Invalid, "reason", rule)
                    .on(text.chars().take(64).collect::<String>())
            })
    }
}

/// One failed attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it failed.
    pub at: Timestamp,
    /// The consumer whose attempt it was.
    pub consumer: String,
    /// The error text.
    pub error: String,
}

/// The earlier deliveries of a message in its group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeliveryHistory {
    /// The id of the message's first entry, in the topic's log.
    pub origin: EntryId,
    /// When the first attempt failed.
    pub first_failure: Option<Timestamp>,
    /// The last ten failed attempts, oldest first.
    pub failures: Vec<FailedAttempt>,
    /// How many times the message was redriven.
    pub redriven: u32,
    /// The operation that redrove it last; `None` if the journal did not record one.
    pub redriven_by: Option<Uuid>,
}

impl DeliveryHistory {
    pub(crate) fn from(origin: EntryId) -> Self {
        Self {
            origin,
            ..Self::default()
        }
    }

    pub(crate) fn record(&mut self, attempt: FailedAttempt) {
        self.first_failure.get_or_insert(attempt.at);
        if self.failures.len() >= MAX_HISTORY {
            self.failures.remove(0);
        }
        self.failures.push(attempt);
    }
}

/// A dead letter without its body: the part that lists show and filters read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeadLetterSummary {
    /// Why the message was dead-lettered.
    pub reason: Reason,
    /// The error with numbers, ids and addresses folded, so that equal causes have equal
    /// fingerprints.
    pub fingerprint: String,
    /// The envelope's type, empty when undecodable.
    #[serde(rename = "type")]
    pub message_type: String,
    /// The envelope's tenant.
    #[serde(rename = "tenantId")]
    pub tenant: Option<String>,
    /// The envelope's correlation id.
    #[serde(rename = "corrId")]
    pub correlation: Option<String>,
    /// The envelope's id; `None` when undecodable.
    pub message_id: Option<Uuid>,
    /// The last error's text.
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// How many times the message was redriven before.
    pub redriven: u32,
    /// The operation that redrove it last; `None` if the journal did not record one.
    pub redriven_by: Option<Uuid>,
    /// The identity that it had where it was exported; `None` if it was not imported.
    pub imported_from: Option<String>,
}

impl DeadLetterSummary {
    /// A summary with a reason; every other field is empty or zero.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            fingerprint: String::new(),
            message_type: String::new(),
            tenant: None,
            correlation: None,
            message_id: None,
            error: String::new(),
            attempts: 0,
            redriven: 0,
            redriven_by: None,
            imported_from: None,
        }
    }
}

/// The parts of a head that filters read, borrowed. An absent text is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadView<'a> {
    pub(crate) reason: Reason,
    pub(crate) fingerprint: &'a str,
    pub(crate) message_type: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) correlation: &'a str,
    pub(crate) error: &'a str,
    pub(crate) attempts: u32,
    pub(crate) redriven: u32,
    pub(crate) redriven_by: Option<Uuid>,
}

impl DeadLetterSummary {
    pub(crate) fn view(&self) -> HeadView<'_> {
        HeadView {
            reason: self.reason,
            fingerprint: &self.fingerprint,
            message_type: &self.message_type,
            tenant: self.tenant.as_deref().unwrap_or_default(),
            correlation: self.correlation.as_deref().unwrap_or_default(),
            error: &self.error,
            attempts: self.attempts,
            redriven: self.redriven,
            redriven_by: self.redriven_by,
        }
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record's id within its group. Its time is when the message was dead-lettered, by the
    /// store's clock.
    pub id: EntryId,
    /// The topic it was published to.
    pub topic: Topic,
    /// The group that failed it.
    pub group: Group,
    /// Why the message was dead-lettered.
    pub reason: Reason,
    /// The last error's text.
    pub error: String,
    /// The error with numbers, ids and addresses folded, so that equal causes have equal
    /// fingerprints.
    pub fingerprint: String,
    /// The handler of the last attempt.
    pub handler: String,
    /// The consumer of the last attempt.
    pub consumer: String,
    /// The envelope's type, empty when undecodable.
    pub message_type: String,
    /// The envelope's tenant.
    pub tenant: Option<String>,
    /// The envelope's correlation id.
    pub correlation: Option<String>,
    /// The envelope's id; `None` when undecodable.
    pub message_id: Option<Uuid>,
    /// The number of attempts.
    pub attempts: u32,
    /// When the last attempt failed, by the consumer's clock.
    pub last_failure: Timestamp,
    /// The first entry, the failed attempts and the redrives.
    pub history: DeliveryHistory,
    /// The entry's fields, byte for byte.
    pub fields: Vec<(Bytes, Bytes)>,
    /// The identity that it had where it was exported; `None` if it was not imported.
    pub imported_from: Option<String>,
}

impl DeadLetter {
    /// The summary, without the body.
    #[must_use]
    pub fn summary(&self) -> DeadLetterSummary {
        DeadLetterSummary {
            reason: self.reason,
            fingerprint: self.fingerprint.clone(),
            message_type: self.message_type.clone(),
            tenant: self.tenant.clone(),
            correlation: self.correlation.clone(),
            message_id: self.message_id,
            error: self.error.clone(),
            attempts: self.attempts,
            redriven: self.history.redriven,
            redriven_by: self.history.redriven_by,
            imported_from: self.imported_from.clone(),
        }
    }
}

/// The dead letters of a group with one reason and one fingerprint.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Cause {
    /// Why the messages were dead-lettered.
    pub reason: Reason,
    /// The folded error.
    pub fingerprint: String,
    /// The number of dead letters.
    pub count: u64,
    /// The id of the first one since the cause appeared. It may have been moved out since.
    pub first: EntryId,
    /// The id of the last one. It may have been moved out since.
    pub last: EntryId,
}

/// A dimension to count dead letters by, in addition to their cause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CountBy {
    /// The envelope's type.
    Type,
    /// The envelope's tenant; those without one count under the empty name.
    Tenant,
    /// The hour in which they were dead-lettered, by the store's clock: `2026-03-01T14Z`.
    Hour,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_the_last_ten() {
        let mut history = DeliveryHistory::default();
        for number in 1..=12 {
            let at = Timestamp::from_millis(i64::from(number)).unwrap();
            let (consumer, error) = ("c".to_owned(), "e".to_owned());
            history.record(FailedAttempt {
                number,
                at,
                consumer,
                error,
            });
        }
        let numbers: Vec<u32> = history
            .failures
            .iter()
            .map(|attempt| attempt.number)
            .collect();
        assert_eq!(numbers, (3..=12).collect::<Vec<_>>());
        assert_eq!(history.first_failure.unwrap().as_millis(), 1);
    }
}
