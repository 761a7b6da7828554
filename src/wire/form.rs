//! The serialised forms that redeliveries and dead letters share.
//!
//! Stored records hold these field names, so they never change.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{DeliveryHistory, FailedAttempt, Timestamp};
use crate::wire::Fields;
use crate::wire::entry::Undecodable;

/// The fields of an entry and the history of its deliveries.
#[derive(Serialize, Deserialize)]
pub(super) struct RedeliveryForm {
    fields: Fields,
    origin: String,
    #[serde(
        rename = "firstFailure",
        skip_serializing_if = "Option::is_none",
        default
    )]
    first_failure: Option<i64>,
    history: Vec<FailedAttemptForm>,
    redriven: u32,
    #[serde(
        rename = "redrivenBy",
        skip_serializing_if = "Option::is_none",
        default
    )]
    redriven_by: Option<Uuid>,
    #[serde(rename = "anew", skip_serializing_if = "std::ops::Not::not", default)]
    starts_over: bool,
}

#[derive(Serialize, Deserialize)]
struct FailedAttemptForm {
    number: u32,
    at: i64,
    consumer: String,
    error: String,
}

/// The body of a stored dead letter.
#[derive(Serialize, Deserialize)]
pub(super) struct BodyForm {
    #[serde(rename = "parcel")]
    pub(super) redelivery: RedeliveryForm,
    pub(super) handler: String,
    pub(super) consumer: String,
    #[serde(rename = "lastFailure")]
    pub(super) last_failure: i64,
}

impl RedeliveryForm {
    pub(super) fn new(fields: &Fields, history: &DeliveryHistory, starts_over: bool) -> Self {
        Self {
            fields: fields.clone(),
            origin: history.origin.to_string(),
            first_failure: history.first_failure.map(Timestamp::as_millis),
            history: history
                .failures
                .iter()
                .map(FailedAttemptForm::from)
                .collect(),
            redriven: history.redriven,
            redriven_by: history.redriven_by,
            starts_over,
        }
    }

    /// Returns the fields, the history, and whether the message starts over.
    pub(super) fn into_parts(self) -> Result<(Fields, DeliveryHistory, bool), Undecodable> {
        let failures = self.history.into_iter().map(FailedAttempt::try_from);
        let history = DeliveryHistory {
            origin: self.origin.parse().map_err(|e| broken("origin", e))?,
            first_failure: self.first_failure.map(time).transpose()?,
            failures: failures.collect::<Result<_, Undecodable>>()?,
            redriven: self.redriven,
            redriven_by: self.redriven_by,
        };
        Ok((self.fields, history, self.starts_over))
    }
}

impl From<&FailedAttempt> for FailedAttemptForm {
    fn from(attempt: &FailedAttempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at.as_millis(),
            consumer: attempt.consumer.clone(),
            error: attempt.error.clone(),
        }
    }
}

impl TryFrom<FailedAttemptForm> for FailedAttempt {
    type Error = Undecodable;

    fn try_from(form: FailedAttemptForm) -> Result<Self, Undecodable> {
        Ok(Self {
            number: form.number,
            at: time(form.at)?,
            consumer: form.consumer,
            error: form.error,
        })
    }
}

pub(super) fn broken(part: &str, cause: impl std::fmt::Display) -> Undecodable {
    Undecodable::from(format!("{part}: {cause}"))
}

pub(super) fn time(millis: i64) -> Result<Timestamp, Undecodable> {
    Timestamp::from_millis(millis).map_err(|e| broken("time", e))
}

pub(super) fn write(form: &impl Serialize) -> Bytes {
    // Writing text, integers and bytes to memory cannot fail.
    Bytes::from(rmp_serde::to_vec_named(form).unwrap_or_default())
}
