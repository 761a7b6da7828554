//! What a group's own lane holds, and with more its dead letters: the entry's fields and their story.
//!
//! A parcel is one opaque value for the store, so that moving it is copying bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{DeliveryHistory, FailedAttempt, Timestamp};
use crate::wire::Fields;
use crate::wire::entry::Undecodable;

/// The name of the one field that a retry has in the redo lane.
pub(crate) const PARCEL: &[u8] = b"parcel";
/// The names of the two fields of a redriven dead letter: its body, and the operation.
pub(crate) const DEAD: &[u8] = b"dead";
pub(crate) const BY: &[u8] = b"by";

/// An entry on its way back to its group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Redelivery {
    /// The entry's fields, with the envelope's attempts as they are now.
    pub(crate) fields: Fields,
    pub(crate) history: DeliveryHistory,
    /// It was redriven and not tried since: the envelope's attempts are those that it died of.
    pub(crate) anew: bool,
}

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
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    anew: bool,
}

#[derive(Serialize, Deserialize)]
struct FailedAttemptForm {
    number: u32,
    at: i64,
    consumer: String,
    error: String,
}

pub(super) fn broken(what: &str, cause: impl std::fmt::Display) -> Undecodable {
    Undecodable::from(format!("{what}: {cause}"))
}

pub(super) fn time(millis: i64) -> Result<Timestamp, Undecodable> {
    Timestamp::from_millis(millis).map_err(|e| broken("time", e))
}

pub(super) fn write(form: &impl Serialize) -> Bytes {
    // Text, integers and bytes written to memory: no path of the serializer fails on them.
    Bytes::from(rmp_serde::to_vec_named(form).unwrap_or_default())
}

impl From<&Redelivery> for RedeliveryForm {
    fn from(redelivery: &Redelivery) -> Self {
        Self {
            fields: redelivery.fields.clone(),
            origin: redelivery.history.origin.to_string(),
            first_failure: redelivery.history.first_failure.map(Timestamp::as_millis),
            history: redelivery
                .history
                .failures
                .iter()
                .map(|attempt| FailedAttemptForm {
                    number: attempt.number,
                    at: attempt.at.as_millis(),
                    consumer: attempt.consumer.clone(),
                    error: attempt.error.clone(),
                })
                .collect(),
            redriven: redelivery.history.redriven,
            redriven_by: redelivery.history.redriven_by,
            anew: redelivery.anew,
        }
    }
}

impl TryFrom<RedeliveryForm> for Redelivery {
    type Error = Undecodable;

    fn try_from(form: RedeliveryForm) -> Result<Self, Undecodable> {
        let history = form
            .history
            .into_iter()
            .map(|attempt| {
                Ok(FailedAttempt {
                    number: attempt.number,
                    at: time(attempt.at)?,
                    consumer: attempt.consumer,
                    error: attempt.error,
                })
            })
            .collect::<Result<_, Undecodable>>()?;
        Ok(Self {
            fields: form.fields,
            history: DeliveryHistory {
                origin: form.origin.parse().map_err(|e| broken("origin", e))?,
                first_failure: form.first_failure.map(time).transpose()?,
                failures: history,
                redriven: form.redriven,
                redriven_by: form.redriven_by,
            },
            anew: form.anew,
        })
    }
}

impl Redelivery {
    pub(crate) fn encode(&self) -> Bytes {
        write(&RedeliveryForm::from(self))
    }

    /// Reads an entry of the redo lane.
    pub(crate) fn decode(fields: &Fields) -> Result<Self, Undecodable> {
        let find = |wanted: &[u8]| {
            let mut found = fields.iter().filter(|(name, _)| &name[..] == wanted);
            found.next().map(|(_, value)| value)
        };
        if let Some(body) = find(DEAD) {
            let mut redelivery = crate::wire::dead_letter::parcel_of(body)?;
            let by = find(BY).and_then(|by| Uuid::try_parse_ascii(by).ok());
            redelivery.redrive(by);
            return Ok(redelivery);
        }
        let bytes = find(PARCEL)
            .ok_or_else(|| Undecodable::from("no field named `parcel` or `dead`".to_owned()))?;
        rmp_serde::from_slice::<RedeliveryForm>(bytes)
            .map_err(|e| broken("parcel", e))?
            .try_into()
    }

    /// Notes that an operation, where it was one, brings it back as if it were new.
    pub(crate) fn redrive(&mut self, by: Option<Uuid>) {
        self.history.redriven = self.history.redriven.saturating_add(1);
        self.history.redriven_by = by;
        self.anew = true;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::EntryId;
    use proptest::prelude::*;

    pub(in crate::wire) fn trails() -> impl Strategy<Value = DeliveryHistory> {
        let attempt = (any::<u32>(), 0_i64..1 << 40, ".{0,8}", ".{0,8}").prop_map(
            |(number, at, consumer, error)| FailedAttempt {
                number,
                at: Timestamp::from_millis(at).unwrap(),
                consumer,
                error,
            },
        );
        (
            any::<(u64, u64)>(),
            prop::collection::vec(attempt, 0..10),
            any::<u32>(),
            any::<Option<u128>>(),
        )
            .prop_map(
                |((millis, sequence), history, redriven, by)| DeliveryHistory {
                    origin: EntryId { millis, sequence },
                    first_failure: history.first().map(|attempt| attempt.at),
                    failures: history,
                    redriven,
                    redriven_by: by.map(Uuid::from_u128),
                },
            )
    }

    proptest! {
        #[test]
        fn parcels_keep_every_byte(
            fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
            history in trails(), anew in any::<bool>()
        ) {
            let fields: Fields = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let redelivery = Redelivery { fields, history, anew };
            let stored = vec![(Bytes::from_static(PARCEL), redelivery.encode())];
            prop_assert_eq!(&Redelivery::decode(&stored).unwrap(), &redelivery);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Redelivery::decode(&vec![(Bytes::from_static(PARCEL), bytes.into())]);
        }
    }
}
