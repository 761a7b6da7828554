//! What a group's own lane holds, and with more its dead letters: the entry's fields and their story.
//!
//! A parcel is one opaque value for the store, so that moving it is copying bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{Attempt, Timestamp, Trail};
use crate::wire::Fields;
use crate::wire::entry::Undecodable;

/// The name of the one field that a retry has in the redo lane.
pub(crate) const PARCEL: &[u8] = b"parcel";
/// The names of the two fields of a redriven dead letter: its body, and the operation.
pub(crate) const DEAD: &[u8] = b"dead";
pub(crate) const BY: &[u8] = b"by";

/// An entry on its way back to its group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parcel {
    /// The entry's fields, with the envelope's attempts as they are now.
    pub(crate) fields: Fields,
    pub(crate) trail: Trail,
    /// It was redriven and not tried since: the envelope's attempts are those that it died of.
    pub(crate) anew: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ParcelForm {
    fields: Fields,
    origin: String,
    #[serde(
        rename = "firstFailure",
        skip_serializing_if = "Option::is_none",
        default
    )]
    first_failure: Option<i64>,
    history: Vec<AttemptForm>,
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
struct AttemptForm {
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

impl From<&Parcel> for ParcelForm {
    fn from(parcel: &Parcel) -> Self {
        Self {
            fields: parcel.fields.clone(),
            origin: parcel.trail.origin.to_string(),
            first_failure: parcel.trail.first_failure.map(Timestamp::as_millis),
            history: parcel
                .trail
                .history
                .iter()
                .map(|attempt| AttemptForm {
                    number: attempt.number,
                    at: attempt.at.as_millis(),
                    consumer: attempt.consumer.clone(),
                    error: attempt.error.clone(),
                })
                .collect(),
            redriven: parcel.trail.redriven,
            redriven_by: parcel.trail.redriven_by,
            anew: parcel.anew,
        }
    }
}

impl TryFrom<ParcelForm> for Parcel {
    type Error = Undecodable;

    fn try_from(form: ParcelForm) -> Result<Self, Undecodable> {
        let history = form
            .history
            .into_iter()
            .map(|attempt| {
                Ok(Attempt {
                    number: attempt.number,
                    at: time(attempt.at)?,
                    consumer: attempt.consumer,
                    error: attempt.error,
                })
            })
            .collect::<Result<_, Undecodable>>()?;
        Ok(Self {
            fields: form.fields,
            trail: Trail {
                origin: form.origin.parse().map_err(|e| broken("origin", e))?,
                first_failure: form.first_failure.map(time).transpose()?,
                history,
                redriven: form.redriven,
                redriven_by: form.redriven_by,
            },
            anew: form.anew,
        })
    }
}

impl Parcel {
    pub(crate) fn encode(&self) -> Bytes {
        write(&ParcelForm::from(self))
    }

    /// Reads an entry of the redo lane.
    pub(crate) fn decode(fields: &Fields) -> Result<Self, Undecodable> {
        let find = |wanted: &[u8]| {
            let mut found = fields.iter().filter(|(name, _)| &name[..] == wanted);
            found.next().map(|(_, value)| value)
        };
        if let Some(body) = find(DEAD) {
            let mut parcel = crate::wire::dead_letter::parcel_of(body)?;
            let by = find(BY).and_then(|by| Uuid::try_parse_ascii(by).ok());
            parcel.redrive(by);
            return Ok(parcel);
        }
        let bytes = find(PARCEL)
            .ok_or_else(|| Undecodable::from("no field named `parcel` or `dead`".to_owned()))?;
        rmp_serde::from_slice::<ParcelForm>(bytes)
            .map_err(|e| broken("parcel", e))?
            .try_into()
    }

    /// Notes that an operation, where it was one, brings it back as if it were new.
    pub(crate) fn redrive(&mut self, by: Option<Uuid>) {
        self.trail.redriven = self.trail.redriven.saturating_add(1);
        self.trail.redriven_by = by;
        self.anew = true;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::EntryId;
    use proptest::prelude::*;

    pub(in crate::wire) fn trails() -> impl Strategy<Value = Trail> {
        let attempt = (any::<u32>(), 0_i64..1 << 40, ".{0,8}", ".{0,8}").prop_map(
            |(number, at, consumer, error)| Attempt {
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
            .prop_map(|((millis, sequence), history, redriven, by)| Trail {
                origin: EntryId { millis, sequence },
                first_failure: history.first().map(|attempt| attempt.at),
                history,
                redriven,
                redriven_by: by.map(Uuid::from_u128),
            })
    }

    proptest! {
        #[test]
        fn parcels_keep_every_byte(
            fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
            trail in trails(), anew in any::<bool>()
        ) {
            let fields: Fields = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let parcel = Parcel { fields, trail, anew };
            let stored = vec![(Bytes::from_static(PARCEL), parcel.encode())];
            prop_assert_eq!(&Parcel::decode(&stored).unwrap(), &parcel);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Parcel::decode(&vec![(Bytes::from_static(PARCEL), bytes.into())]);
        }
    }
}
