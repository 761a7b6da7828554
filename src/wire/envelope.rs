//! An envelope as bytes, in both codecs.
//!
//! The fields have one fixed order; absent ones are left out. The payload and unknown fields are
//! copied byte for byte, never decoded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use rmp::encode::{self as put, ValueWriteError};
use serde_json::value::RawValue;
use uuid::fmt::Hyphenated;

use crate::domain::msgpack::{Cursor, Flaw};
use crate::domain::{
    Codec, EntryId, Envelope, Error, ErrorKind, InheritedTrace, LONGEST_TIMESTAMP, RawPayload,
    Timestamp, Topic,
};

/// A decoded envelope that may lack fields which the producer left out.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) message_type: Option<String>,
    pub(super) created_at: Option<Cow<'a, str>>,
    pub(super) correlation: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) key: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) payload: Option<RawPayload>,
    pub(super) attempts: u32,
    pub(super) last_error: Option<String>,
    pub(super) unknown: BTreeMap<String, RawPayload>,
}

fn encode_error(message: &'static str) -> Error {
    Error::new(ErrorKind::Encode, "encode envelope", message)
}

/// The id of a message whose producer gave it none.
pub(super) fn derived_id(topic: &Topic, entry: EntryId) -> uuid::Uuid {
    let origin = format!("redstart:{topic}:{entry}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, origin.as_bytes())
}

/// About how many bytes an envelope takes.
pub(super) fn size(envelope: &Envelope) -> usize {
    192 + envelope.payload.as_bytes().len()
}

/// Writes an envelope in a codec.
pub(super) fn encode(envelope: &Envelope, codec: Codec, out: &mut impl Write) -> Result<(), Error> {
    let payload = envelope.payload.in_codec(codec)?;
    let unknown = envelope
        .unknown
        .iter()
        .map(|(name, value)| Ok((name.as_str(), value.to_codec(codec)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    match codec {
        Codec::MessagePack => msgpack(envelope, &payload, &unknown, out)
            .map_err(|e| encode_error("the bytes could not be written").because(e)),
        Codec::Json => json(envelope, &payload, &unknown, out)
            .map_err(|e| encode_error("the text could not be written").because(e)),
    }
}

/// The named text fields before the payload, in wire order.
fn texts<'a>(
    envelope: &'a Envelope,
    id: &'a str,
    ts: &'a str,
) -> [(&'static str, Option<&'a str>); 6] {
    [
        ("id", Some(id)),
        ("type", Some(&envelope.message_type)),
        ("ts", Some(ts)),
        ("corrId", envelope.correlation.as_deref()),
        ("tenantId", envelope.tenant.as_deref()),
        ("key", envelope.key.as_deref()),
    ]
}

fn msgpack(
    envelope: &Envelope,
    payload: &RawPayload,
    unknown: &[(&str, RawPayload)],
    out: &mut impl Write,
) -> Result<(), ValueWriteError> {
    let (mut id, mut ts) = ([0; Hyphenated::LENGTH], [0; LONGEST_TIMESTAMP]);
    let id = envelope.id.hyphenated().encode_lower(&mut id);
    let texts = texts(envelope, id, envelope.created_at.write(&mut ts));
    let count = texts.iter().filter(|(_, text)| text.is_some()).count()
        + usize::from(!envelope.headers.is_empty())
        + 2
        + usize::from(envelope.last_error.is_some())
        + unknown.len();

    let raw = |out: &mut _, value: &RawPayload| {
        let written = Write::write_all(out, value.as_bytes());
        written.map_err(ValueWriteError::InvalidDataWrite)
    };
    put::write_map_len(out, length(count))?;
    for (name, text) in texts {
        if let Some(text) = text {
            put::write_str(out, name)?;
            put::write_str(out, text)?;
        }
    }
    if !envelope.headers.is_empty() {
        put::write_str(out, "headers")?;
        put::write_map_len(out, length(envelope.headers.len()))?;
        for (name, value) in &envelope.headers {
            put::write_str(out, name)?;
            put::write_str(out, value)?;
        }
    }
    put::write_str(out, "payload")?;
    raw(out, payload)?;
    put::write_str(out, "attempts")?;
    put::write_uint(out, u64::from(envelope.failed_attempts))?;
    if let Some(text) = &envelope.last_error {
        put::write_str(out, "lastError")?;
        put::write_str(out, text)?;
    }
    for (name, value) in unknown {
        put::write_str(out, name)?;
        raw(out, value)?;
    }
    Ok(())
}

/// Lengths beyond 32 bits cannot occur: the entry limit is far below.
fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn json(
    envelope: &Envelope,
    payload: &RawPayload,
    unknown: &[(&str, RawPayload)],
    out: &mut impl Write,
) -> Result<(), serde_json::Error> {
    use serde::ser::{SerializeMap as _, Serializer as _};
    let raw = |value: &RawPayload| -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::from_slice(value.as_bytes())
    };
    let (mut id, mut ts) = ([0; Hyphenated::LENGTH], [0; LONGEST_TIMESTAMP]);
    let id = envelope.id.hyphenated().encode_lower(&mut id);
    let ts = envelope.created_at.write(&mut ts);
    let mut serializer = serde_json::Serializer::new(out);
    let mut map = serializer.serialize_map(None)?;
    for (name, text) in texts(envelope, id, ts) {
        if let Some(text) = text {
            map.serialize_entry(name, text)?;
        }
    }
    if !envelope.headers.is_empty() {
        map.serialize_entry("headers", &envelope.headers)?;
    }
    map.serialize_entry("payload", &raw(payload)?)?;
    map.serialize_entry("attempts", &envelope.failed_attempts)?;
    if let Some(text) = &envelope.last_error {
        map.serialize_entry("lastError", text)?;
    }
    for (name, value) in unknown {
        map.serialize_entry(name, &raw(value)?)?;
    }
    map.end()
}

/// Decodes an envelope. Checks a value's depth and completeness before it copies it.
pub(super) fn decode(codec: Codec, bytes: &[u8]) -> Result<Draft<'_>, String> {
    match codec {
        Codec::MessagePack => from_msgpack(bytes),
        Codec::Json => from_json(bytes),
    }
}

fn from_msgpack(bytes: &[u8]) -> Result<Draft<'_>, String> {
    let mut cursor = Cursor::new(bytes);
    let mut draft = Draft::default();
    let count = cursor.map().map_err(Flaw::as_str)?;
    for _ in 0..count {
        let name = cursor.text().map_err(Flaw::as_str)?;
        msgpack_field(&mut draft, name, &mut cursor)
            .map_err(|rule| format!("field {name:.40?}: {rule}"))?;
    }
    if !cursor.is_empty() {
        return Err("bytes follow the envelope".to_owned());
    }
    Ok(draft)
}

fn msgpack_field<'a>(
    draft: &mut Draft<'a>,
    name: &str,
    cursor: &mut Cursor<'a>,
) -> Result<(), String> {
    let mut borrowed = || cursor.optional_text().map_err(Flaw::as_str);
    match name {
        "id" => draft.id = borrowed()?.map(Cow::Borrowed),
        "ts" => draft.created_at = borrowed()?.map(Cow::Borrowed),
        "type" => draft.message_type = borrowed()?.map(str::to_owned),
        "corrId" => draft.correlation = borrowed()?.map(str::to_owned),
        "tenantId" => draft.tenant = borrowed()?.map(str::to_owned),
        "key" => draft.key = borrowed()?.map(str::to_owned),
        "lastError" => draft.last_error = borrowed()?.map(str::to_owned),
        "attempts" => draft.attempts = cursor.unsigned().map_err(Flaw::as_str)?,
        "headers" => {
            let count = cursor.optional_map().map_err(Flaw::as_str)?;
            for _ in 0..count {
                let name = cursor.text().map_err(Flaw::as_str)?.to_owned();
                if let Some(value) = cursor.optional_text().map_err(Flaw::as_str)? {
                    draft.headers.insert(name, value.to_owned());
                }
            }
        }
        _ => {
            let bytes = Bytes::copy_from_slice(cursor.value().map_err(Flaw::as_str)?);
            keep(draft, name, RawPayload::walked(Codec::MessagePack, bytes));
        }
    }
    Ok(())
}

fn keep(draft: &mut Draft<'_>, name: &str, value: RawPayload) {
    if name == "payload" {
        draft.payload = Some(value);
    } else {
        draft.unknown.insert(name.to_owned(), value);
    }
}

fn from_json(bytes: &[u8]) -> Result<Draft<'_>, String> {
    fn field<'a, T: serde::Deserialize<'a>>(raw: &'a RawValue) -> Result<T, String> {
        serde_json::from_str(raw.get()).map_err(|e| e.to_string())
    }
    fn owned<'a>(raw: &RawValue) -> Result<Option<Cow<'a, str>>, String> {
        field(raw).map(|text: Option<String>| text.map(Cow::Owned))
    }
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let mut draft = Draft::default();
    for (name, raw) in fields {
        let read = match name.as_str() {
            "id" => owned(raw).map(|text| draft.id = text),
            "type" => field(raw).map(|text| draft.message_type = text),
            "ts" => owned(raw).map(|text| draft.created_at = text),
            "corrId" => field(raw).map(|text| draft.correlation = text),
            "tenantId" => field(raw).map(|text| draft.tenant = text),
            "key" => field(raw).map(|text| draft.key = text),
            "lastError" => field(raw).map(|text| draft.last_error = text),
            "attempts" => {
                field(raw).map(|count: Option<u32>| draft.attempts = count.unwrap_or_default())
            }
            "headers" => headers(raw).map(|headers| draft.headers = headers),
            _ => RawPayload::checked(Codec::Json, Bytes::copy_from_slice(raw.get().as_bytes()))
                .map(|value| keep(&mut draft, &name, value)),
        };
        read.map_err(|rule| format!("field {name:.40?}: {rule}"))?;
    }
    Ok(draft)
}

/// The headers in JSON. `null` and the empty array that PHP writes for an empty map are none, and a
/// header that is `null` is absent.
fn headers(raw: &RawValue) -> Result<BTreeMap<String, String>, String> {
    if raw
        .get()
        .strip_prefix('[')
        .is_some_and(|rest| rest.trim_start() == "]")
    {
        return Ok(BTreeMap::new());
    }
    let headers: Option<BTreeMap<String, Option<String>>> =
        serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
    let present = |(name, value): (String, Option<String>)| Some((name, value?));
    Ok(headers
        .unwrap_or_default()
        .into_iter()
        .filter_map(present)
        .collect())
}

impl Draft<'_> {
    /// Fills in the fields that the producer left out.
    ///
    /// `own_id` makes the id from topic and entry, so that every delivery of the entry has the same one.
    pub(super) fn complete(
        self,
        own_id: impl FnOnce() -> uuid::Uuid,
        appended: Timestamp,
    ) -> Result<Envelope, String> {
        // Some producers write an empty text for an absent one, because their language has no null.
        let id = match self.id.filter(|text| !text.is_empty()) {
            Some(text) => uuid::Uuid::try_parse(&text).map_err(|e| format!("field \"id\": {e}"))?,
            None => own_id(),
        };
        let created_at = match self.created_at.filter(|text| !text.is_empty()) {
            Some(text) => text
                .parse()
                .map_err(|_| "field \"ts\": is not an RFC 3339 time".to_owned())?,
            None => appended,
        };
        Ok(Envelope {
            id,
            message_type: self.message_type.ok_or("field \"type\" is missing")?,
            created_at,
            correlation: self.correlation,
            tenant: self.tenant,
            key: self.key,
            headers: self.headers,
            payload: self.payload.ok_or("field \"payload\" is missing")?,
            failed_attempts: self.attempts,
            last_error: self.last_error,
            unknown: self.unknown,
            inherited: InheritedTrace::default(),
        })
    }
}
