//! Dead letters as the store keeps them: a head, which scripts and filters read, and a body.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{DeadLetter, DeadLetterSummary, EntryId, Group, HeadView, Reason, Topic};
use crate::wire::entry::Undecodable;
use crate::wire::redelivery::{Redelivery, RedeliveryForm, broken, time, write};

/// A dead letter as the store keeps it: a head, which is asked about, and an encoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What lists show and filters ask.
    pub head: DeadLetterSummary,
    /// Everything else.
    pub body: Bytes,
}

/// The head as an array, in this order. Scripts read the first four by place, to keep the counts;
/// what is absent is empty, so that no place is missing.
#[derive(Serialize, Deserialize)]
struct HeadForm<'a>(
    &'a str, // reason
    &'a str, // fingerprint
    &'a str, // type
    &'a str, // tenant
    &'a str, // correlation id
    &'a str, // message id
    &'a str, // error
    u32,     // attempts
    u32,     // redriven
    &'a str, // redriven by
    &'a str, // imported from
);

#[derive(Serialize, Deserialize)]
struct BodyForm {
    #[serde(rename = "parcel")]
    redelivery: RedeliveryForm,
    handler: String,
    consumer: String,
    #[serde(rename = "lastFailure")]
    last_failure: i64,
}

fn id_text(id: Option<Uuid>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

fn id(text: &str) -> Result<Option<Uuid>, Undecodable> {
    if text.is_empty() {
        return Ok(None);
    }
    Uuid::try_parse(text).map(Some).map_err(|e| broken("id", e))
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Encodes a head.
pub(crate) fn encode_head(head: &DeadLetterSummary) -> Bytes {
    write(&HeadForm(
        head.reason.as_str(),
        &head.fingerprint,
        &head.message_type,
        head.tenant.as_deref().unwrap_or_default(),
        head.correlation.as_deref().unwrap_or_default(),
        &id_text(head.message_id),
        &head.error,
        head.attempts,
        head.redriven,
        &id_text(head.redriven_by),
        head.imported_from.as_deref().unwrap_or_default(),
    ))
}

/// A head that has been read and lies where it lay.
pub(crate) struct Head<'a>(HeadForm<'a>, Reason);

/// Reads a head in place.
pub(crate) fn read_head(bytes: &[u8]) -> Result<Head<'_>, Undecodable> {
    let form: HeadForm<'_> =
        rmp_serde::from_slice(bytes).map_err(|e| broken("dead-letter head", e))?;
    let reason = form.0.parse().map_err(|e| broken("reason", e))?;
    Ok(Head(form, reason))
}

impl Head<'_> {
    pub(crate) fn view(&self) -> HeadView<'_> {
        let Self(form, reason) = self;
        HeadView {
            reason: *reason,
            fingerprint: form.1,
            message_type: form.2,
            tenant: form.3,
            correlation: form.4,
            error: form.6,
            attempts: form.7,
            redriven: form.8,
        }
    }
}

/// Decodes a head.
pub(crate) fn decode_head(bytes: &[u8]) -> Result<DeadLetterSummary, Undecodable> {
    read_head(bytes)?.into_head()
}

const UNREADABLE: &str = "the record's head cannot be read";

/// Stands for a head that cannot be read, as after another hand or by a newer version: it is shown and can
/// be purged, and hides no other.
pub(crate) fn unreadable(flaw: &Undecodable) -> DeadLetterSummary {
    let error = format!("{UNREADABLE}: {flaw}");
    DeadLetterSummary {
        reason: Reason::Undecodable,
        fingerprint: UNREADABLE.to_owned(),
        message_type: String::new(),
        tenant: None,
        correlation: None,
        message_id: None,
        error,
        attempts: 0,
        redriven: 0,
        redriven_by: None,
        imported_from: None,
    }
}

/// Whether a head may stand for one that cannot be read.
pub(crate) fn stands_in(head: &DeadLetterSummary) -> bool {
    head.reason == Reason::Undecodable && head.fingerprint == UNREADABLE
}

impl Head<'_> {
    pub(crate) fn into_head(self) -> Result<DeadLetterSummary, Undecodable> {
        let Self(form, reason) = self;
        Ok(DeadLetterSummary {
            reason,
            fingerprint: form.1.to_owned(),
            message_type: form.2.to_owned(),
            tenant: text(form.3),
            correlation: text(form.4),
            message_id: id(form.5)?,
            error: form.6.to_owned(),
            attempts: form.7,
            redriven: form.8,
            redriven_by: id(form.9)?,
            imported_from: text(form.10),
        })
    }
}

/// Encodes a dead letter. Its id is given by the store.
pub(crate) fn encode_record(letter: &DeadLetter) -> Record {
    let redelivery = Redelivery {
        fields: letter.fields.clone(),
        history: letter.history.clone(),
        anew: false,
    };
    Record {
        head: letter.summary(),
        body: write(&BodyForm {
            redelivery: RedeliveryForm::from(&redelivery),
            handler: letter.handler.clone(),
            consumer: letter.consumer.clone(),
            last_failure: letter.last_failure.as_millis(),
        }),
    }
}

/// Reads what a redriven dead letter's entry of the redo lane holds: the parcel that it died with.
pub(super) fn parcel_of(body: &[u8]) -> Result<Redelivery, Undecodable> {
    let body: BodyForm = rmp_serde::from_slice(body).map_err(|e| broken("dead letter", e))?;
    body.redelivery.try_into()
}

/// Decodes a dead letter of a group.
pub(crate) fn decode_record(
    topic: &Topic,
    group: &Group,
    id: EntryId,
    record: Record,
) -> Result<DeadLetter, Undecodable> {
    let body: BodyForm =
        rmp_serde::from_slice(&record.body).map_err(|e| broken("dead-letter record", e))?;
    let redelivery = Redelivery::try_from(body.redelivery)?;
    let head = record.head;
    Ok(DeadLetter {
        id,
        topic: topic.clone(),
        group: group.clone(),
        reason: head.reason,
        error: head.error,
        fingerprint: head.fingerprint,
        handler: body.handler,
        consumer: body.consumer,
        message_type: head.message_type,
        tenant: head.tenant,
        correlation: head.correlation,
        message_id: head.message_id,
        attempts: head.attempts,
        last_failure: time(body.last_failure)?,
        history: redelivery.history,
        fields: redelivery.fields,
        imported_from: head.imported_from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::wire::Fields;
    use crate::wire::redelivery::tests::trails;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_keep_every_byte(
            fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
            history in trails(), tenant in prop::option::of("[a-z]{1,5}"), error in ".{0,20}",
            message in any::<Option<u128>>(), imported_from in prop::option::of("[a-z/]{1,9}")
        ) {
            let fields: Fields = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let (topic, group) = (Topic::new("t").unwrap(), Group::new("g").unwrap());
            let id = EntryId { millis: 1, sequence: 2 };
            let letter = DeadLetter {
                id, topic: topic.clone(), group: group.clone(), reason: Reason::Crashed, error,
                fingerprint: "f".into(), handler: "h".into(), consumer: "c".into(),
                message_type: "k".into(), correlation: tenant.clone(), tenant,
                message_id: message.map(Uuid::from_u128), attempts: 3,
                last_failure: Timestamp::from_millis(5).unwrap(), history, fields, imported_from,
            };
            let record = encode_record(&letter);
            prop_assert_eq!(&decode_head(&encode_head(&record.head)).unwrap(), &record.head);
            prop_assert_eq!(decode_record(&topic, &group, id, record).unwrap(), letter);
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_head(&bytes);
            let form = HeadForm("crashed", "", "", "", "", "", "", 1, 0, "", "");
            let head = decode_head(&write(&form)).unwrap();
            let (topic, group) = (Topic::new("t").unwrap(), Group::new("g").unwrap());
            let record = Record { head, body: bytes.into() };
            let _ = decode_record(&topic, &group, EntryId::default(), record);
        }
    }
}
