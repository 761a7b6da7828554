//! A dead letter as one line of JSON, lossless in both directions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Fields;
use crate::domain::{
    Codec, DeadLetter, DeliveryHistory, Envelope, Error, ErrorKind, FailedAttempt, Group,
    RawPayload, Timestamp, Topic,
};

/// The format's version.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Format {
    redstart: u32,
}

// An import of a line with an unknown field would lose it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExportedLetter {
    redstart: u32,
    id: String,
    /// The time of the id, for people who read the line; an import ignores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    died: Option<String>,
    topic: String,
    group: String,
    reason: String,
    error: String,
    fingerprint: String,
    handler: String,
    consumer: String,
    #[serde(rename = "type")]
    message_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corr_id: Option<String>,
    // The first version wrote `message`.
    #[serde(alias = "message", skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    attempts: u32,
    last_failure: String,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    history: Vec<ExportedAttempt>,
    redriven: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    redriven_by: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imported_from: Option<String>,
    /// The entry, byte for byte.
    fields: Vec<(FieldBytes, FieldBytes)>,
    /// The decoded payload, for people who read or search the line; an import ignores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExportedAttempt {
    number: u32,
    at: String,
    consumer: String,
    error: String,
}

/// Bytes, as text if they are UTF-8, else in base64.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum FieldBytes {
    Text(String),
    Base64 { base64: String },
}

impl From<&Bytes> for FieldBytes {
    fn from(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64 {
                base64: STANDARD.encode(bytes),
            },
        }
    }
}

impl FieldBytes {
    /// The fields of an entry in their JSON form.
    pub(crate) fn of(fields: &[(Bytes, Bytes)]) -> Vec<(Self, Self)> {
        let fields = fields.iter();
        fields
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    /// The fields of an entry from their JSON form.
    pub(crate) fn into_fields(fields: Vec<(Self, Self)>) -> Result<Fields, Error> {
        let fields = fields.into_iter();
        fields
            .map(|(name, value)| Ok((name.into_bytes()?, value.into_bytes()?)))
            .collect()
    }

    fn into_bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Base64 { base64 } => match STANDARD.decode(base64) {
                Ok(bytes) => Ok(bytes.into()),
                Err(cause) => Err(malformed("a field is not valid base64").because(cause)),
            },
        }
    }
}

fn malformed(rule: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, "read exported dead letter", rule)
}

/// The payload as JSON on one line, with every digit of its numbers. Where JSON lacks a value, such
/// as NaN, `null` stands in its place.
fn readable(envelope: &Envelope) -> Option<Box<RawValue>> {
    let exact = envelope
        .payload::<Box<RawValue>>()
        .and_then(|raw| RawPayload::encode(Codec::Json, &raw));
    match exact {
        Ok(json) => serde_json::from_slice(json.as_bytes()).ok(),
        Err(_) => serde_json::value::to_raw_value(&envelope.payload::<Value>().ok()?).ok(),
    }
}

impl DeadLetter {
    /// Writes the dead letter as one line of JSON, without a line break.
    ///
    /// Lossless for both codecs and for undecodable entries: `fields` holds the entry byte for
    /// byte, as text or in base64. `payload` is for people who read or search the line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let line = self.exported();
        // Writing text, numbers and a decoded value to memory cannot fail.
        serde_json::to_string(&line).unwrap_or_default()
    }

    fn exported(&self) -> ExportedLetter {
        let payload = self
            .envelope()
            .ok()
            .and_then(|envelope| readable(&envelope));
        ExportedLetter {
            redstart: VERSION,
            id: self.id.to_string(),
            died: self.id.time().map(|time| time.to_string()),
            topic: self.topic.to_string(),
            group: self.group.to_string(),
            reason: self.reason.to_string(),
            error: self.error.clone(),
            fingerprint: self.fingerprint.clone(),
            handler: self.handler.clone(),
            consumer: self.consumer.clone(),
            message_type: self.message_type.clone(),
            tenant_id: self.tenant.clone(),
            corr_id: self.correlation.clone(),
            message_id: self.message_id,
            attempts: self.attempts,
            last_failure: self.last_failure.to_string(),
            origin: self.history.origin.to_string(),
            first_failure: self.history.first_failure.map(|time| time.to_string()),
            history: self
                .history
                .failures
                .iter()
                .map(ExportedAttempt::from)
                .collect(),
            redriven: self.history.redriven,
            redriven_by: self.history.redriven_by,
            imported_from: self.imported_from.clone(),
            fields: FieldBytes::of(&self.fields),
            payload,
        }
    }

    /// Reads a line of [`to_json`](Self::to_json).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`]: the line is malformed, has a field that this version does not know, is of
    /// another format, or breaks a rule that the error names.
    pub fn from_json(line: &str) -> Result<Self, Error> {
        let flaw = |error: serde_json::Error| malformed("is malformed").because(error);
        // Another format may have other fields.
        let Format { redstart } = serde_json::from_str(line).map_err(flaw)?;
        if redstart != VERSION {
            let rule = format!("is of format {redstart}; this version reads {VERSION}");
            return Err(malformed(rule));
        }
        let line: ExportedLetter = serde_json::from_str(line).map_err(flaw)?;
        let time = |text: &str| text.parse::<Timestamp>();
        let history = line.history.into_iter().map(FailedAttempt::try_from);
        let read = || -> Result<Self, Error> {
            Ok(Self {
                id: line.id.parse()?,
                topic: Topic::new(line.topic)?,
                group: Group::new(line.group)?,
                reason: line.reason.parse()?,
                error: line.error,
                fingerprint: line.fingerprint,
                handler: line.handler,
                consumer: line.consumer,
                message_type: line.message_type,
                tenant: line.tenant_id,
                correlation: line.corr_id,
                message_id: line.message_id,
                attempts: line.attempts,
                last_failure: time(&line.last_failure)?,
                history: DeliveryHistory {
                    origin: line.origin.parse()?,
                    first_failure: line.first_failure.as_deref().map(time).transpose()?,
                    failures: history.collect::<Result<_, Error>>()?,
                    redriven: line.redriven,
                    redriven_by: line.redriven_by,
                },
                fields: FieldBytes::into_fields(line.fields)?,
                imported_from: line.imported_from,
            })
        };
        read().map_err(|cause| malformed("breaks a rule").because(cause))
    }

    /// The identity of this dead letter among those of all stores, including stores with topics and
    /// groups of the same names. Exporting and importing it keeps the identity.
    pub(crate) fn identity(&self) -> String {
        if let Some(identity) = &self.imported_from {
            return identity.clone();
        }
        let mut content = Vec::new();
        for (name, value) in &self.fields {
            for part in [name, value] {
                content.extend_from_slice(&(part.len() as u64).to_le_bytes());
                content.extend_from_slice(part);
            }
        }
        let content = Uuid::new_v5(&Uuid::NAMESPACE_OID, &content);
        format!("{}/{}/{}/{content}", self.topic, self.group, self.id)
    }
}

/// As [`to_json`](DeadLetter::to_json) writes it.
impl Serialize for DeadLetter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.exported().serialize(serializer)
    }
}

impl From<&FailedAttempt> for ExportedAttempt {
    fn from(attempt: &FailedAttempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at.to_string(),
            consumer: attempt.consumer.clone(),
            error: attempt.error.clone(),
        }
    }
}

impl TryFrom<ExportedAttempt> for FailedAttempt {
    type Error = Error;

    fn try_from(line: ExportedAttempt) -> Result<Self, Error> {
        Ok(Self {
            number: line.number,
            at: line.at.parse()?,
            consumer: line.consumer,
            error: line.error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EntryId, Reason};
    use proptest::prelude::*;

    fn dead_letter(fields: Vec<(Vec<u8>, Vec<u8>)>, error: String) -> DeadLetter {
        let at = Timestamp::from_millis(1_762_957_200_123).unwrap();
        DeadLetter {
            id: EntryId::new(7, 1),
            topic: Topic::new("orders").unwrap(),
            group: Group::new("billing").unwrap(),
            reason: Reason::Exhausted,
            fingerprint: "f".into(),
            handler: "h".into(),
            consumer: "c".into(),
            message_type: "k".into(),
            tenant: None,
            correlation: Some("corr".into()),
            message_id: Some(Uuid::from_u128(9)),
            attempts: 3,
            last_failure: at,
            history: DeliveryHistory {
                origin: EntryId::default(),
                first_failure: Some(at),
                failures: vec![FailedAttempt {
                    number: 1,
                    at,
                    consumer: "c".into(),
                    error: error.clone(),
                }],
                redriven: 1,
                redriven_by: Some(Uuid::from_u128(3)),
            },
            error,
            fields: fields
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            imported_from: None,
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(
            fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
            error in any::<String>()
        ) {
            let dead_letter = dead_letter(fields, error);
            let line = dead_letter.to_json();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(&serde_json::to_string(&dead_letter).unwrap(), &line);
            prop_assert_eq!(DeadLetter::from_json(&line).unwrap(), dead_letter);
        }

        #[test]
        fn no_line_makes_the_reader_panic(line in ".{0,80}") {
            let _ = DeadLetter::from_json(&line);
        }
    }

    #[test]
    fn a_line_shows_the_decoded_payload() {
        let json = r#"{"type":"k","payload":{"cents":1250}}"#;
        let dead_letter = dead_letter(vec![(b"json".to_vec(), json.into())], String::new());
        let line: serde_json::Value = serde_json::from_str(&dead_letter.to_json()).unwrap();
        assert_eq!(line["payload"]["cents"], 1250);
        assert_eq!(line["fields"][0][1], json);
        let long = "{\"type\":\"k\",\"payload\":[\n 100000000000000000000001 ]}";
        let dead_letter =
            super::tests::dead_letter(vec![(b"json".to_vec(), long.into())], String::new());
        let line = dead_letter.to_json();
        assert!(
            line.contains("\"payload\":[100000000000000000000001]"),
            "{line}"
        );
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        let good = dead_letter(vec![], String::new()).to_json();
        for (bad, part) in [
            ("{", "malformed"),
            (
                &good.replace("\"redstart\":1", "\"redstart\":2,\"expires\":1"),
                "format 2",
            ),
            (
                &good.replace("\"attempts\"", "\"expires\":1,\"attempts\""),
                "unknown field `expires`",
            ),
            (&good.replace("exhausted", "bored"), "breaks a rule"),
            (&good.replace("orders", "or ders"), "breaks a rule"),
        ] {
            let error = DeadLetter::from_json(bad).unwrap_err();
            let told = crate::domain::describe(&error);
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn dead_letters_of_two_stores_with_equal_ids_have_two_identities() {
        let one = dead_letter(vec![(b"json".to_vec(), b"1".to_vec())], String::new());
        let two = dead_letter(vec![(b"json".to_vec(), b"2".to_vec())], String::new());
        assert_ne!(one.identity(), two.identity());
        let mut imported = two.clone();
        imported.imported_from = Some(one.identity());
        assert_eq!(imported.identity(), one.identity());
    }
}
