//! What a group's own lane and its dead letters hold: the entry's fields and their story.
//!
//! A parcel is one opaque value for the store, so that moving it is copying bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::Undecodable;
use crate::backend::{Fields, Record};
use crate::domain::{Attempt, DeadLetter, EntryId, Group, Timestamp, Topic, Trail};

/// The name of the one field that an entry of the redo lane has.
pub(crate) const PARCEL: &[u8] = b"parcel";

/// An entry on its way back to its group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parcel {
    /// The entry's fields, with the envelope's attempts as they are now.
    pub(crate) fields: Fields,
    pub(crate) trail: Trail,
}

#[derive(Serialize, Deserialize)]
struct ParcelForm {
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
}

#[derive(Serialize, Deserialize)]
struct AttemptForm {
    number: u32,
    at: i64,
    consumer: String,
    error: String,
}

#[derive(Serialize, Deserialize)]
struct RecordForm {
    parcel: ParcelForm,
    error: String,
    handler: String,
    consumer: String,
    attempts: u32,
    #[serde(rename = "lastFailure")]
    last_failure: i64,
}

fn broken(what: &str, cause: impl std::fmt::Display) -> Undecodable {
    Undecodable::from(format!("{what}: {cause}"))
}

fn time(millis: i64) -> Result<Timestamp, Undecodable> {
    Timestamp::from_millis(millis).map_err(|e| broken("time", e))
}

fn write(form: &impl Serialize) -> Bytes {
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
            },
        })
    }
}

impl Parcel {
    pub(crate) fn encode(&self) -> Bytes {
        write(&ParcelForm::from(self))
    }

    /// Reads an entry of the redo lane.
    pub(crate) fn decode(fields: &Fields) -> Result<Self, Undecodable> {
        let (_, bytes) = fields
            .iter()
            .find(|(name, _)| &name[..] == PARCEL)
            .ok_or_else(|| Undecodable::from("no field named `parcel`".to_owned()))?;
        rmp_serde::from_slice::<ParcelForm>(bytes)
            .map_err(|e| broken("parcel", e))?
            .try_into()
    }
}

/// Encodes a dead letter. Its id is given by the store.
pub(crate) fn encode_record(letter: &DeadLetter) -> Record {
    let parcel = Parcel {
        fields: letter.fields.clone(),
        trail: letter.trail.clone(),
    };
    Record {
        reason: letter.reason,
        fingerprint: letter.fingerprint.clone(),
        kind: letter.kind.clone(),
        tenant: letter.tenant.clone().unwrap_or_default(),
        body: write(&RecordForm {
            parcel: ParcelForm::from(&parcel),
            error: letter.error.clone(),
            handler: letter.handler.clone(),
            consumer: letter.consumer.clone(),
            attempts: letter.attempts,
            last_failure: letter.last_failure.as_millis(),
        }),
    }
}

/// Decodes a dead letter of a group.
pub(crate) fn decode_record(
    topic: &Topic,
    group: &Group,
    id: EntryId,
    record: Record,
) -> Result<DeadLetter, Undecodable> {
    let form: RecordForm =
        rmp_serde::from_slice(&record.body).map_err(|e| broken("dead-letter record", e))?;
    let parcel = Parcel::try_from(form.parcel)?;
    Ok(DeadLetter {
        id,
        topic: topic.clone(),
        group: group.clone(),
        reason: record.reason,
        error: form.error,
        fingerprint: record.fingerprint,
        handler: form.handler,
        consumer: form.consumer,
        kind: record.kind,
        tenant: Some(record.tenant).filter(|tenant| !tenant.is_empty()),
        attempts: form.attempts,
        last_failure: time(form.last_failure)?,
        trail: parcel.trail,
        fields: parcel.fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;
    use proptest::prelude::*;

    fn trails() -> impl Strategy<Value = Trail> {
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
        )
            .prop_map(|((millis, sequence), history, redriven)| Trail {
                origin: EntryId { millis, sequence },
                first_failure: history.first().map(|attempt| attempt.at),
                history,
                redriven,
            })
    }

    proptest! {
        #[test]
        fn records_and_parcels_keep_every_byte(
            fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
            trail in trails(), tenant in prop::option::of("[a-z]{1,5}"), error in ".{0,20}"
        ) {
            let fields: Fields = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let parcel = Parcel { fields, trail };
            let stored = vec![(Bytes::from_static(PARCEL), parcel.encode())];
            prop_assert_eq!(&Parcel::decode(&stored).unwrap(), &parcel);

            let (topic, group) = (Topic::new("t").unwrap(), Group::new("g").unwrap());
            let id = EntryId { millis: 1, sequence: 2 };
            let letter = DeadLetter {
                id, topic: topic.clone(), group: group.clone(), reason: Reason::Crashed, error,
                fingerprint: "f".into(), handler: "h".into(), consumer: "c".into(),
                kind: "k".into(), tenant, attempts: 3,
                last_failure: Timestamp::from_millis(5).unwrap(),
                trail: parcel.trail, fields: parcel.fields,
            };
            let again = decode_record(&topic, &group, id, encode_record(&letter)).unwrap();
            prop_assert_eq!(again, letter);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = Parcel::decode(&vec![(Bytes::from_static(PARCEL), bytes.clone())]);
            let record = Record {
                reason: Reason::Crashed, fingerprint: String::new(), kind: String::new(),
                tenant: String::new(), body: bytes,
            };
            let (topic, group) = (Topic::new("t").unwrap(), Group::new("g").unwrap());
            let _ = decode_record(&topic, &group, EntryId::default(), record);
        }
    }
}
