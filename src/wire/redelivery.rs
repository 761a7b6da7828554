//! An entry of a group's redelivery stream: the fields of the first entry and their history.
//!
//! The store treats it as one opaque value, so that a script moves it by copying bytes.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::DeliveryHistory;
use crate::wire::Fields;
use crate::wire::entry::Undecodable;
use crate::wire::form::{BodyForm, RedeliveryForm, broken, write};

/// The name of the one field of a retry in the redelivery stream.
pub(crate) const RETRY_FIELD: &[u8] = b"parcel";
/// The name of the field of a redriven dead letter that holds its body.
pub(crate) const DEAD_LETTER_FIELD: &[u8] = b"dead";
/// The name of the field of a redriven dead letter that holds the operation's id.
pub(crate) const OPERATION_FIELD: &[u8] = b"by";

/// A message on its way back to its group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Redelivery {
    /// The entry's fields; the envelope in them holds the current attempts.
    pub(crate) fields: Fields,
    pub(crate) history: DeliveryHistory,
    /// The message was redriven and starts over: the attempts in its envelope are those that it
    /// was dead-lettered with.
    pub(crate) starts_over: bool,
}

impl TryFrom<RedeliveryForm> for Redelivery {
    type Error = Undecodable;

    fn try_from(form: RedeliveryForm) -> Result<Self, Undecodable> {
        let (fields, history, starts_over) = form.into_parts()?;
        Ok(Self {
            fields,
            history,
            starts_over,
        })
    }
}

impl Redelivery {
    pub(crate) fn encode(&self) -> Bytes {
        write(&RedeliveryForm::new(
            &self.fields,
            &self.history,
            self.starts_over,
        ))
    }

    /// Decodes an entry of the redelivery stream: a retry or a redriven dead letter.
    pub(crate) fn decode(fields: &Fields) -> Result<Self, Undecodable> {
        let find = |wanted: &[u8]| {
            let mut found = fields.iter().filter(|(name, _)| &name[..] == wanted);
            found.next().map(|(_, value)| value)
        };
        if let Some(body) = find(DEAD_LETTER_FIELD) {
            let body: BodyForm =
                rmp_serde::from_slice(body).map_err(|e| broken("dead letter", e))?;
            let mut redelivery = Self::try_from(body.redelivery)?;
            let operation = find(OPERATION_FIELD).and_then(|by| Uuid::try_parse_ascii(by).ok());
            redelivery.redrive(operation);
            return Ok(redelivery);
        }
        let bytes = find(RETRY_FIELD)
            .ok_or_else(|| Undecodable::from("no field named `parcel` or `dead`".to_owned()))?;
        rmp_serde::from_slice::<RedeliveryForm>(bytes)
            .map_err(|e| broken("parcel", e))?
            .try_into()
    }

    /// Notes a redrive, by the given operation of the journal if there is one: the message starts over.
    pub(crate) fn redrive(&mut self, by: Option<Uuid>) {
        self.history.redriven = self.history.redriven.saturating_add(1);
        self.history.redriven_by = by;
        self.starts_over = true;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{EntryId, FailedAttempt, Timestamp};
    use proptest::prelude::*;

    pub(in crate::wire) fn histories() -> impl Strategy<Value = DeliveryHistory> {
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
                    origin: EntryId::new(millis, sequence),
                    first_failure: history.first().map(|attempt| attempt.at),
                    failures: history,
                    redriven,
                    redriven_by: by.map(Uuid::from_u128),
                },
            )
    }

    proptest! {
        #[test]
        fn redeliveries_keep_every_byte(
            fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
            history in histories(), starts_over in any::<bool>()
        ) {
            let fields: Fields = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let redelivery = Redelivery { fields, history, starts_over };
            let stored = vec![(Bytes::from_static(RETRY_FIELD), redelivery.encode())];
            prop_assert_eq!(&Redelivery::decode(&stored).unwrap(), &redelivery);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Redelivery::decode(&vec![(Bytes::from_static(RETRY_FIELD), bytes.into())]);
        }
    }
}
