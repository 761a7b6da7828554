//! An envelope as a CloudEvent 1.0: JSON in structured mode.
//!
//! Each part of an envelope has one attribute, and each attribute one part, so that an event keeps what
//! this module does not know. Attributes without a part of their own are headers `ce-<name>`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::msgpack::{Cursor, Item};
use crate::domain::{Codec, Envelope, Error, ErrorKind, RawPayload, Timestamp};
use crate::wire::envelope::Draft;

const VERSION: &str = "1.0";
/// The headers of attributes whose value is not a text.
const JSON_VALUES: &str = "ce-json-values";
/// The content type of a binary payload that names none.
const BINARY: &str = "application/octet-stream";
/// The other headers, as the text of a JSON object.
const HEADERS: &str = "redstartheaders";
/// Fields of an envelope that this version does not know, as the text of a JSON object.
const UNKNOWN: &str = "redstartunknown";
/// Attributes with a part of their own; a header `ce-` with such a name does not become one.
const TAKEN: [&str; 16] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "data",
    "data_base64",
    "correlationid",
    "tenantid",
    "traceparent",
    "tracestate",
    HEADERS,
    UNKNOWN,
    "redstartattempts",
    "redstartlasterror",
];
/// The name of the field that holds a CloudEvent.
pub(super) const CLOUD_EVENT: &str = "cloudevents";

const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// The id of the message of an event whose id is not a UUID.
fn derived_id(source: &str, id: &str) -> Uuid {
    let source = Uuid::new_v5(&Uuid::NAMESPACE_URL, source.as_bytes());
    Uuid::new_v5(&source, id.as_bytes())
}

fn message_id(source: &str, id: &str) -> Uuid {
    Uuid::try_parse(id).unwrap_or_else(|_| derived_id(source, id))
}

/// Whether a name can be that of an attribute. Upper case and `_` break the specification's rule, and
/// some producers use them.
fn is_attribute(name: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_known)
}

fn value<T: DeserializeOwned>(name: &str, raw: &RawValue, rule: &str) -> Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|_| format!("attribute {name:.40?} must be {rule}"))
}

/// Decodes an event. Its envelope lacks the time if the event has none.
pub(super) fn decode(bytes: &[u8]) -> Result<Draft<'static>, String> {
    let mut attributes: BTreeMap<String, &RawValue> =
        serde_json::from_slice(bytes).map_err(|e| format!("not a CloudEvent: {e}"))?;
    // A null is an absent attribute; the data may be null.
    attributes.retain(|name, raw| raw.get() != "null" || name == "data");
    let mut text = |name: &str| -> Result<Option<String>, String> {
        let raw = attributes.remove(name);
        raw.map(|raw| value(name, raw, "a text")).transpose()
    };
    let version = text("specversion")?.ok_or("attribute \"specversion\" is missing")?;
    if version != VERSION {
        let rule = "is not supported; Redstart reads CloudEvents \"1.0\"";
        return Err(format!("specversion {version:.20?} {rule}"));
    }
    let mut required = |name: &str| {
        let found = text(name)?.filter(|text| !text.is_empty());
        found.ok_or_else(|| format!("attribute {name:?} is missing"))
    };
    let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
    let (subject, time) = (text("subject")?, text("time")?);
    let (correlation, tenant) = (text("correlationid")?, text("tenantid")?);
    let mut headers = BTreeMap::new();
    for name in TRACE {
        headers.extend(text(name)?.map(|value| (name.to_owned(), value)));
    }
    let object =
        |name: &str, text: Option<String>| -> Result<BTreeMap<String, Box<RawValue>>, String> {
            let parsed = text.map(|text| serde_json::from_str(&text));
            let rule = |_| format!("attribute {name:?} must be the text of a JSON object");
            Ok(parsed.transpose().map_err(rule)?.unwrap_or_default())
        };
    let others = object(HEADERS, text(HEADERS)?)?;
    let unknown = object(UNKNOWN, text(UNKNOWN)?)?;
    let uuid = message_id(&source, &id);
    if uuid.to_string() != id {
        headers.insert("ce-id".to_owned(), id);
    }
    headers.insert("ce-source".to_owned(), source);
    if let Some(time) = &time {
        let read: Timestamp = time
            .parse()
            .map_err(|_| "attribute \"time\" is not an RFC 3339 time".to_owned())?;
        if read.to_string() != *time {
            headers.insert("ce-time".to_owned(), time.clone());
        }
    }
    let data = (attributes.remove("data"), attributes.remove("data_base64"));
    let payload = payload(data, &mut attributes)?;
    extensions(attributes, &mut headers)?;
    for (name, raw) in others {
        let value = value(HEADERS, &raw, "an object of texts")?;
        headers.entry(name).or_insert(value);
    }
    let unknown = unknown.into_iter().map(|(name, raw)| {
        let bytes = Bytes::copy_from_slice(raw.get().as_bytes());
        Ok((name, RawPayload::checked(Codec::Json, bytes)?))
    });
    Ok(Draft {
        id: Some(uuid.to_string().into()),
        message_type: Some(kind),
        created_at: time.map(Cow::Owned),
        correlation,
        tenant,
        key: subject,
        headers,
        payload: Some(payload),
        unknown: unknown.collect::<Result<_, String>>()?,
        ..Draft::default()
    })
}

fn payload(
    data: (Option<&RawValue>, Option<&RawValue>),
    attributes: &mut BTreeMap<String, &RawValue>,
) -> Result<RawPayload, String> {
    let json = |text: &str| {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        RawPayload::checked(Codec::Json, bytes)
            .map_err(|rule| format!("attribute \"data\": {rule}"))
    };
    match data {
        (Some(_), Some(_)) => {
            Err("attributes \"data\" and \"data_base64\" exclude each other".to_owned())
        }
        (Some(raw), None) => json(raw.get()),
        (None, None) => json("null"),
        (None, Some(raw)) => {
            let text: String = value("data_base64", raw, "a text")?;
            let bytes = STANDARD
                .decode(&text)
                .map_err(|e| format!("attribute \"data_base64\": {e}"))?;
            // Encoding writes this content type itself.
            let is_plain = |raw: &&RawValue| raw.get() == format!("{BINARY:?}");
            if attributes.get("datacontenttype").is_some_and(is_plain) {
                attributes.remove("datacontenttype");
            }
            binary(&bytes)
        }
    }
}

/// Bytes as a payload.
fn binary(bytes: &[u8]) -> Result<RawPayload, String> {
    let mut packed = Vec::with_capacity(bytes.len() + 5);
    rmp::encode::write_bin(&mut packed, bytes).map_err(|e| e.to_string())?;
    RawPayload::checked(Codec::MessagePack, packed.into())
}

/// Turns the attributes without a part of their own into headers.
fn extensions(
    attributes: BTreeMap<String, &RawValue>,
    headers: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let mut not_text = Vec::new();
    for (name, raw) in attributes {
        if !is_attribute(&name) {
            return Err(format!(
                "attribute {name:.40?}: a name has letters and digits only"
            ));
        }
        let value = match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => text,
            Err(_) => {
                not_text.push(name.clone());
                raw.get().to_owned()
            }
        };
        headers.insert(format!("ce-{name}"), value);
    }
    if !not_text.is_empty() {
        headers.insert(JSON_VALUES.to_owned(), not_text.join(","));
    }
    Ok(())
}

/// The value of an attribute on its way out.
enum Value<'a> {
    Text(&'a str),
    Json(&'a RawValue),
}

/// The headers of an envelope, sorted by what they become.
#[derive(Default)]
struct Sorted<'a> {
    attributes: Vec<(&'a str, Value<'a>)>,
    others: BTreeMap<&'a str, &'a str>,
}

fn sort<'a>(envelope: &'a Envelope, used: &BTreeSet<&str>) -> Sorted<'a> {
    let header = |name: &str| envelope.headers.get(name).map(String::as_str);
    let not_text: BTreeSet<&str> = header(JSON_VALUES).unwrap_or_default().split(',').collect();
    let mut sorted = Sorted::default();
    let mut found = BTreeSet::new();
    for (name, value) in &envelope.headers {
        if used.contains(name.as_str()) {
            continue;
        }
        if TRACE.contains(&name.as_str()) {
            sorted.attributes.push((name, Value::Text(value)));
            continue;
        }
        let attribute = name.strip_prefix("ce-");
        let attribute = attribute.filter(|name| is_attribute(name) && !TAKEN.contains(name));
        match attribute {
            Some(attribute) if not_text.contains(attribute) => {
                // Only a value that reads back as it is: a text would lose its header.
                let is_text = |raw: &&RawValue| raw.get().starts_with('"') || raw.get() == "null";
                match serde_json::from_str::<&RawValue>(value)
                    .ok()
                    .filter(|raw| !is_text(raw))
                {
                    Some(raw) => {
                        found.insert(attribute);
                        sorted.attributes.push((attribute, Value::Json(raw)));
                    }
                    None => sorted.attributes.push((attribute, Value::Text(value))),
                }
            }
            Some(attribute) => sorted.attributes.push((attribute, Value::Text(value))),
            None => {
                sorted.others.insert(name, value);
            }
        }
    }
    // Decoding writes this header itself.
    if found == not_text {
        sorted.others.remove(JSON_VALUES);
    }
    sorted
}

/// Encodes an envelope as an event.
fn encode(envelope: &Envelope, source: &str) -> Result<String, Error> {
    let invalid = |rule: &'static str| {
        Err(Error::new(ErrorKind::Encode, "encode CloudEvent", rule).on(envelope.id.to_string()))
    };
    if envelope.message_type.is_empty() {
        return invalid("the message's type is empty, and an event needs one");
    }
    let header = |name: &str| envelope.headers.get(name).map(String::as_str);
    let mut used = BTreeSet::new();
    let source = match header("ce-source").filter(|source| !source.is_empty()) {
        Some(own) => {
            used.insert("ce-source");
            own
        }
        None => source,
    };
    if source.is_empty() {
        return invalid("the source is empty, and an event needs one");
    }
    let (uuid, ts) = (envelope.id.to_string(), envelope.created_at.to_string());
    let names_this = |id: &&str| *id != uuid && message_id(source, id) == envelope.id;
    let id = header("ce-id").filter(names_this).inspect(|_| {
        used.insert("ce-id");
    });
    let is_this_time = |text: &&str| {
        *text != ts
            && text
                .parse::<Timestamp>()
                .is_ok_and(|time| time == envelope.created_at)
    };
    let time = header("ce-time").filter(is_this_time).inspect(|_| {
        used.insert("ce-time");
    });
    let sorted = sort(envelope, &used);
    let data = Data::of(&envelope.payload)?;
    let write = || -> Result<Vec<u8>, serde_json::Error> {
        let mut out = Vec::with_capacity(256 + envelope.payload.as_bytes().len());
        let mut serializer = serde_json::Serializer::new(&mut out);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", VERSION)?;
        map.serialize_entry("id", id.unwrap_or(&uuid))?;
        map.serialize_entry("source", source)?;
        map.serialize_entry("type", &envelope.message_type)?;
        map.serialize_entry("time", time.unwrap_or(&ts))?;
        for (name, text) in [
            ("subject", &envelope.key),
            ("correlationid", &envelope.correlation),
            ("tenantid", &envelope.tenant),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                map.serialize_entry(name, text)?;
            }
        }
        for (name, value) in &sorted.attributes {
            match value {
                Value::Text(text) => map.serialize_entry(name, text)?,
                Value::Json(raw) => map.serialize_entry(name, raw)?,
            }
        }
        if !sorted.others.is_empty() {
            map.serialize_entry(HEADERS, &serde_json::to_string(&sorted.others)?)?;
        }
        if !envelope.unknown.is_empty() {
            map.serialize_entry(UNKNOWN, &unknown(envelope)?)?;
        }
        match &data {
            Data::None => {}
            Data::Json(json) => map.serialize_entry("data", json)?,
            Data::Binary(base64) => {
                if !envelope.headers.contains_key("ce-datacontenttype") {
                    map.serialize_entry("datacontenttype", BINARY)?;
                }
                map.serialize_entry("data_base64", base64)?;
            }
        }
        map.end()?;
        Ok(out)
    };
    let failed = |rule: &'static str| Error::new(ErrorKind::Encode, "encode CloudEvent", rule);
    let bytes = write().map_err(|e| failed("the text could not be written").because(e))?;
    String::from_utf8(bytes).map_err(|e| failed("the text is not UTF-8").because(e))
}

/// The unknown fields, as the text of a JSON object.
fn unknown(envelope: &Envelope) -> Result<String, serde_json::Error> {
    use serde::ser::Error as _;
    let mut fields = BTreeMap::new();
    for (name, value) in &envelope.unknown {
        let json = value
            .to_codec(Codec::Json)
            .map_err(serde_json::Error::custom)?;
        let raw: Box<RawValue> = serde_json::from_slice(json.as_bytes())?;
        fields.insert(name, raw);
    }
    serde_json::to_string(&fields)
}

/// The payload on its way out.
enum Data {
    /// The payload is null.
    None,
    Json(Box<RawValue>),
    Binary(String),
}

impl Data {
    fn of(payload: &RawPayload) -> Result<Self, Error> {
        if payload.codec() == Codec::MessagePack
            && let Ok(Item::Bytes(bytes)) = Cursor::new(payload.as_bytes()).item()
        {
            return Ok(Self::Binary(STANDARD.encode(bytes)));
        }
        let json = payload.to_codec(Codec::Json)?;
        let raw: Box<RawValue> = serde_json::from_slice(json.as_bytes()).map_err(|e| {
            Error::new(
                ErrorKind::Encode,
                "encode CloudEvent",
                "the payload is not JSON",
            )
            .because(e)
        })?;
        Ok(match raw.get() {
            "null" => Self::None,
            _ => Self::Json(raw),
        })
    }
}

impl Envelope {
    /// Returns the message as a CloudEvent 1.0: JSON text in structured mode.
    ///
    /// `source` is a URI reference that names the producer, such as `/shop/orders`. A message that came
    /// in as a CloudEvent keeps its own source, and all other attributes. The page
    /// [wire format](crate::docs::wire_format) has the mapping. The failed attempts and the last error
    /// are not part of the event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the type or the source is empty, or if the payload has no JSON form.
    ///
    /// # Example
    ///
    /// ```
    /// use redstart::Envelope;
    ///
    /// let envelope = Envelope::new("order.placed", &1250)?.with_key("order-7");
    /// let event = envelope.to_cloud_event("/shop/orders")?;
    /// let again = Envelope::from_cloud_event(event.as_bytes())?;
    /// assert_eq!(again.id(), envelope.id());
    /// assert_eq!(again.key(), Some("order-7"));
    /// # Ok::<(), redstart::Error>(())
    /// ```
    pub fn to_cloud_event(&self, source: &str) -> Result<String, Error> {
        encode(self, source)
    }

    /// Reads a CloudEvent 1.0, as JSON in structured mode. An event without a time gets the current
    /// one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] names the rule that the event breaks.
    pub fn from_cloud_event(json: &[u8]) -> Result<Self, Error> {
        let failed = |rule| Error::new(ErrorKind::Decode, "decode CloudEvent", rule);
        let draft = decode(json).map_err(failed)?;
        draft
            .complete(Uuid::now_v7, Timestamp::now())
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests;
