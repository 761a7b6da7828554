//! An entry of a topic as a line of JSON, lossless in both directions.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::message::MessageView;
use crate::domain::{Codec, EntryId, Envelope, Error, ErrorKind, Topic};
use crate::operate::escape;
use crate::operate::topics::Entry;
use crate::wire::{FieldBytes, Fields, Limits, decode_entry, encode_entry};

/// An entry of a topic.
///
/// `envelope` is the message as JSON, whatever its codec. `fields` is there where that JSON loses a
/// part of the message, such as a binary value: it holds the message exactly, as an entry of its
/// codec. An undecodable entry has its own fields and the reason. [`EntryLine`] reads the line back.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedEntry {
    id: EntryId,
    #[serde(skip_serializing_if = "Option::is_none")]
    codec: Option<&'static str>,
    #[serde(flatten)]
    message: MessageView,
}

impl From<&Entry> for ListedEntry {
    fn from(entry: &Entry) -> Self {
        let mut message = MessageView::new(entry.envelope.as_ref(), &entry.fields);
        let envelope = entry.envelope.as_ref().ok();
        let exact = envelope.and_then(exact);
        if let Some(exact) = &exact
            && !says(message.envelope.as_deref(), exact)
        {
            message.fields = Some(FieldBytes::of(exact));
        }
        Self {
            id: entry.id,
            codec: envelope.map(|envelope| codec_of(envelope).name()),
            message,
        }
    }
}

/// As [`ListedEntry`].
impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ListedEntry::from(self).serialize(serializer)
    }
}

fn codec_of(envelope: &Envelope) -> Codec {
    envelope.raw_payload().codec()
}

fn limits() -> Limits {
    Limits::default().with_max_bytes(usize::MAX)
}

/// The fields of an entry that holds the message exactly.
fn exact(envelope: &Envelope) -> Option<Fields> {
    let (name, bytes) = encode_entry(envelope, codec_of(envelope), limits()).ok()?;
    Some(vec![(name.into(), bytes.into())])
}

/// Whether the JSON of an envelope, as the tool prints it, says all that the exact fields say.
fn says(json: Option<&RawValue>, exact_fields: &Fields) -> bool {
    let Some(json) = json else {
        return false;
    };
    let Some((name, _)) = exact_fields.first() else {
        return false;
    };
    let printed = escape::json(json.get());
    let Ok(read) = of_json(&printed) else {
        return false;
    };
    let codec = Codec::from_name(name).unwrap_or_default();
    let again = encode_entry(&read, codec, limits());
    again.is_ok_and(|(_, bytes)| exact_fields.iter().all(|(_, value)| *value == bytes))
}

fn of_json(json: &str) -> Result<Envelope, Error> {
    of_fields(&[(&b"json"[..], json.as_bytes())])
}

/// The message in the fields of an entry. Its id is in them: one that is missing would be derived
/// from the topic and the entry, and a line has no topic.
fn of_fields(pairs: &[(&[u8], &[u8])]) -> Result<Envelope, Error> {
    let topic = Topic::new("line")?;
    let decode = |id| {
        let pairs = pairs.iter().copied();
        decode_entry(&topic, id, pairs, limits()).map_err(|flaw| refused(flaw.to_string()))
    };
    let envelope = decode(EntryId::default())?;
    let other = decode(EntryId::new(1, 1))?;
    match envelope.id() == other.id() {
        true => Ok(envelope),
        false => Err(refused("the envelope has no `id`")),
    }
}

fn refused(rule: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, "read entry", rule)
}

/// The message of a line of [`ListedEntry`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EntryLine {
    /// The message.
    pub envelope: Envelope,
    /// The codec of its entry; `None` where the line names none.
    pub codec: Option<Codec>,
}

// A copy of a line with an unknown field would lose it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    // For people and programs that read the line; the copy gets an id of its own.
    #[serde(rename = "id")]
    _id: Option<String>,
    codec: Option<String>,
    envelope: Option<Box<RawValue>>,
    #[serde(rename = "undecodable")]
    _undecodable: Option<String>,
    fields: Option<Vec<(FieldBytes, FieldBytes)>>,
}

impl EntryLine {
    /// A message that the publisher encodes in the codec of its settings.
    #[must_use]
    pub fn of(envelope: Envelope) -> Self {
        Self {
            envelope,
            codec: None,
        }
    }

    /// Reads a line of [`ListedEntry`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`]: the line is malformed, has a field that this version does not know, or
    /// holds no message.
    pub fn parse(line: &str) -> Result<Self, Error> {
        let malformed = |e: serde_json::Error| refused("is not a line of `tail --json`").because(e);
        let line: Line = serde_json::from_str(line).map_err(malformed)?;
        let codec = match &line.codec {
            Some(name) => Some(
                Codec::from_name(name.as_bytes())
                    .ok_or_else(|| refused(format!("knows no codec {name:.40?}")))?,
            ),
            None => None,
        };
        let envelope = match (line.fields, line.envelope) {
            (Some(fields), _) => {
                let fields = FieldBytes::into_fields(fields)?;
                let pairs: Vec<(&[u8], &[u8])> = fields
                    .iter()
                    .map(|(name, value)| (&name[..], &value[..]))
                    .collect();
                of_fields(&pairs)?
            }
            (None, Some(json)) => of_json(json.get())?,
            (None, None) => return Err(refused("has neither `envelope` nor `fields`")),
        };
        Ok(Self { envelope, codec })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_undecodable_entry_shows_its_reason_and_its_fields() {
        let entry = Entry {
            id: "1-2".parse().unwrap(),
            envelope: Err("no field".to_owned().into()),
            fields: vec![(b"a"[..].into(), b"\xff"[..].into())],
        };
        let expected =
            json!({"id": "1-2", "undecodable": "no field", "fields": [["a", {"base64": "/w=="}]]});
        let listed = serde_json::to_value(ListedEntry::from(&entry));
        assert_eq!(listed.unwrap(), expected);
        assert_eq!(serde_json::to_value(&entry).unwrap(), expected);
    }

    fn listed(codec: Codec, payload: &[u8]) -> (Envelope, String) {
        let payload = RawPayload::checked(codec, Bytes::copy_from_slice(payload)).unwrap();
        let mut envelope = Envelope::new("t", &0)
            .unwrap()
            .with_key("k\u{202e}\n")
            .with_header("a", "\u{0}\"")
            .with_correlation("");
        envelope.payload = payload;
        let fields = exact(&envelope).unwrap();
        let entry = Entry {
            id: "1-2".parse().unwrap(),
            envelope: Ok(envelope.clone()),
            fields,
        };
        let line = escape::json(&serde_json::to_string(&entry).unwrap());
        (envelope, line)
    }

    use crate::domain::RawPayload;
    use bytes::Bytes;

    #[test]
    fn a_line_brings_back_the_message_whatever_its_payload() {
        use Codec::{Json, MessagePack};
        let cases: [(Codec, &[u8], bool); 12] = [
            (Json, br#"{"n":100000000000000000000001}"#, false),
            (Json, b"1.50", false),
            (Json, b"[\n 1 ]", true),
            (Json, "\"\u{202e}\"".as_bytes(), true),
            (Json, br#"{"a":1,"a":2}"#, false),
            (MessagePack, b"\x01", false),
            (MessagePack, b"\xa1x", false),
            // Binary, a number in a longer form than it needs, a 32-bit float, not a number.
            (MessagePack, b"\xc4\x02\xff\x00", true),
            (MessagePack, b"\xcd\x00\x01", true),
            (MessagePack, b"\xca\x3f\xc0\x00\x00", true),
            (MessagePack, b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", true),
            // A map whose key is a list.
            (MessagePack, b"\x81\x91\x01\x02", true),
        ];
        for (codec, payload, has_fields) in cases {
            let (envelope, line) = listed(codec, payload);
            let read = EntryLine::parse(&line).unwrap();
            assert_eq!(read.codec, Some(codec), "{line}");
            // JSON is MessagePack again once it is published with the codec of the line.
            let bytes = |one: &Envelope| encode_entry(one, codec, limits()).unwrap();
            assert_eq!(bytes(&read.envelope), bytes(&envelope), "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value.get("fields").is_some(), has_fields, "{line}");
        }
    }

    #[test]
    fn a_line_without_a_whole_message_is_refused() {
        for (line, part) in [
            ("{", "is not a line"),
            ("[]", "is not a line"),
            (r#"{"id":"1-1"}"#, "neither `envelope` nor `fields`"),
            (r#"{"envelope":{"type":"t","payload":1}}"#, "no `id`"),
            (
                r#"{"envelope":{"id":"0190163d-8694-739b-aea5-966c26f8ad90","type":"t"}}"#,
                "payload",
            ),
            (
                r#"{"envelope":{},"partition":1}"#,
                "unknown field `partition`",
            ),
            (r#"{"codec":"bson","envelope":{}}"#, "knows no codec"),
            (
                r#"{"undecodable":"x","fields":[["a","b"]]}"#,
                "no field named `msgpack`",
            ),
            (r#"{"fields":[["msgpack",{"base64":"!"}]]}"#, "base64"),
        ] {
            let error = EntryLine::parse(line).unwrap_err();
            let told = crate::domain::describe(&error);
            assert!(told.contains(part), "{line}: {told}");
        }
    }
}
