//! Stored dead letters: a head that scripts and filters read, and a body with the rest.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{DeadLetter, DeadLetterSummary, EntryId, Group, HeadView, Reason, Topic};
use crate::wire::entry::Undecodable;
use crate::wire::form::{BodyForm, RedeliveryForm, broken, time, write};

/// A stored dead letter: a summary, and an encoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The part that lists show and filters read.
    pub head: DeadLetterSummary,
    /// The fields, the history, the handler and the consumer, encoded.
    pub body: Bytes,
}

/// The head as an array in this order. Scripts count by the first four, which they read by index.
/// An absent text is empty, so that no index shifts.
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

/// A decoded head that borrows from its bytes.
pub(crate) struct Head<'a>(HeadForm<'a>, Reason);

/// Decodes a head without copying its texts.
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
            // A head with another text here is unreadable as a whole, see `into_head`.
            redriven_by: id(form.9).ok().flatten(),
        }
    }
}

/// Decodes a head.
pub(crate) fn decode_head(bytes: &[u8]) -> Result<DeadLetterSummary, Undecodable> {
    read_head(bytes)?.into_head()
}

const UNREADABLE: &str = "the record's head cannot be read";

/// Makes a stand-in for a head that does not decode, because a newer version or another program
/// wrote it. Lists show the stand-in, and it can be purged.
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

/// Whether a head is a stand-in for one that does not decode.
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

/// Encodes a dead letter. The store gives it its id.
pub(crate) fn encode_record(dead_letter: &DeadLetter) -> Record {
    Record {
        head: dead_letter.summary(),
        body: write(&BodyForm {
            redelivery: RedeliveryForm::new(&dead_letter.fields, &dead_letter.history, false),
            handler: dead_letter.handler.clone(),
            consumer: dead_letter.consumer.clone(),
            last_failure: dead_letter.last_failure.as_millis(),
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
    let body: BodyForm =
        rmp_serde::from_slice(&record.body).map_err(|e| broken("dead-letter record", e))?;
    let (fields, history, _) = body.redelivery.into_parts()?;
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
        history,
        fields,
        imported_from: head.imported_from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::wire::Fields;
    use crate::wire::redelivery::tests::histories;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_keep_every_byte(
            fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
            history in histories(), tenant in prop::option::of("[a-z]{1,5}"), error in ".{0,20}",
            message in any::<Option<u128>>(), imported_from in prop::option::of("[a-z/]{1,9}")
        ) {
            let fields: Fields = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let (topic, group) = (Topic::new("t").unwrap(), Group::new("g").unwrap());
            let id = EntryId::new(1, 2);
            let dead_letter = DeadLetter {
                id, topic: topic.clone(), group: group.clone(), reason: Reason::Crashed, error,
                fingerprint: "f".into(), handler: "h".into(), consumer: "c".into(),
                message_type: "k".into(), correlation: tenant.clone(), tenant,
                message_id: message.map(Uuid::from_u128), attempts: 3,
                last_failure: Timestamp::from_millis(5).unwrap(), history, fields, imported_from,
            };
            let record = encode_record(&dead_letter);
            prop_assert_eq!(&decode_head(&encode_head(&record.head)).unwrap(), &record.head);
            prop_assert_eq!(decode_record(&topic, &group, id, record).unwrap(), dead_letter);
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
