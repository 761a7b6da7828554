//! A stream entry: a field whose name is the codec and whose value is the envelope.

use std::fmt;

use crate::domain::{Codec, EntryId, Envelope, Error, ErrorKind, Timestamp, Topic};
use crate::wire::cloud_event::{self, CLOUD_EVENT};
use crate::wire::envelope;

/// The size limit of an entry, checked before the entry is decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Limits {
    max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 1024 * 1024,
        }
    }
}

impl Limits {
    /// Sets the largest encoded envelope, in bytes; by default 1 MiB (1,048,576).
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Refuses a new entry that no reader would take.
    pub(super) fn check_encoded(self, envelope: &Envelope, bytes: usize) -> Result<(), Error> {
        let too_large = |Undecodable { rule }| {
            Error::new(ErrorKind::TooLarge, "encode envelope", rule).on(envelope.id().to_string())
        };
        self.check(bytes).map_err(too_large)
    }

    pub(super) fn check(self, bytes: usize) -> Result<(), Undecodable> {
        let most = self.max_bytes;
        if bytes > most {
            return Err(format!("{bytes} bytes, over the limit of {most}").into());
        }
        Ok(())
    }

    /// The limits of a retry, whose envelope has gained an error text: 64 KiB more.
    pub(crate) fn for_retries(self) -> Self {
        self.with_max_bytes(self.max_bytes.saturating_add(64 * 1024))
    }

    /// No limit, for a message that was accepted before.
    pub(crate) fn without_bound(self) -> Self {
        self.with_max_bytes(usize::MAX)
    }
}

/// Why an entry does not decode. The worker dead-letters such an entry with its original fields,
/// because no further attempt can succeed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Undecodable {
    rule: String,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

impl std::error::Error for Undecodable {}

impl From<String> for Undecodable {
    fn from(rule: String) -> Self {
        Self { rule }
    }
}

/// Encodes an envelope as the field name and value of a stream entry.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] above the limit; [`ErrorKind::Encode`] if the codec cannot hold the
/// payload.
pub fn encode_entry(
    envelope: &Envelope,
    codec: Codec,
    limits: Limits,
) -> Result<(&'static str, Vec<u8>), Error> {
    let mut bytes = Vec::with_capacity(envelope::size(envelope));
    envelope::encode(envelope, codec, &mut bytes)?;
    limits.check_encoded(envelope, bytes.len())?;
    Ok((codec.name(), bytes))
}

/// Decodes the fields of a stream entry, whichever producer wrote it.
///
/// A missing `id` and `ts` are derived from the entry; missing `attempts` are 0. An entry id can be
/// ahead of every clock, as after an XADD with microseconds. The latest time of the calendar then
/// stands for a missing `ts`.
///
/// # Errors
///
/// [`Undecodable`] names the rule that the entry breaks.
pub fn decode_entry<'a>(
    topic: &Topic,
    entry: EntryId,
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    limits: Limits,
) -> Result<Envelope, Undecodable> {
    decode_pairs(topic, entry, fields, limits).map(|(envelope, _)| envelope)
}

/// As [`decode_entry`], with the form that the envelope had.
pub(super) fn decode_pairs<'a>(
    topic: &Topic,
    entry: EntryId,
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    limits: Limits,
) -> Result<(Envelope, Form), Undecodable> {
    let mut event = None;
    let found = fields.into_iter().find_map(|(name, value)| {
        if name == CLOUD_EVENT.as_bytes() {
            event.get_or_insert(value);
        }
        Codec::from_name(name).map(|codec| (Form::Envelope(codec), value))
    });
    let (form, bytes) = found
        .or_else(|| Some((Form::CloudEvent, event?)))
        .ok_or_else(|| "no field named `msgpack`, `json` or `cloudevents`".to_owned())?;
    limits.check(bytes.len())?;
    let draft = match form {
        Form::Envelope(codec) => envelope::decode(codec, bytes)?,
        Form::CloudEvent => cloud_event::decode(bytes)?,
    };
    let appended = entry.time().unwrap_or(Timestamp::MAX);
    let envelope = draft.complete(|| envelope::derived_id(topic, entry), appended)?;
    Ok((envelope, form))
}

/// How an entry holds its envelope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Envelope(Codec),
    CloudEvent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const ENTRY: EntryId = EntryId::new(1_762_957_200_123, 7);

    fn topic() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn decode(name: &str, value: &[u8]) -> Result<Envelope, Undecodable> {
        decode_entry(
            &topic(),
            ENTRY,
            [(name.as_bytes(), value)],
            Limits::default(),
        )
    }

    #[test]
    fn a_foreign_producer_may_leave_out_id_ts_and_attempts() {
        let read = || decode("json", br#"{"type":"order.placed","payload":{"n":1}}"#).unwrap();
        let envelope = read();
        assert_eq!(envelope.message_type(), "order.placed");
        assert_eq!(
            envelope.created_at().to_string(),
            "2025-11-12T14:20:00.123Z"
        );
        assert_eq!(envelope.failed_attempts(), 0);
        assert_eq!(envelope.correlation(), None);
        assert_eq!(envelope.id(), read().id(), "a redelivery sees the same id");
        assert_eq!(envelope.payload::<Value>().unwrap(), json!({"n": 1}));
    }

    #[test]
    fn null_and_empty_forms_of_other_languages_mean_absent() {
        let json: [&[u8]; 7] = [
            br#"{"type":"n","headers":null,"payload":1}"#,
            br#"{"type":"n","headers":[],"payload":1}"#,
            br#"{"type":"n","headers":[ ],"payload":1}"#,
            br#"{"type":"n","headers":{"a":null},"payload":1}"#,
            br#"{"type":"n","attempts":null,"payload":1}"#,
            br#"{"type":"n","id":"","ts":"","payload":1}"#,
            br#"{"type":"n","id":null,"ts":null,"corrId":null,"tenantId":null,"key":null,"lastError":null,"payload":1}"#,
        ];
        let packed: [&[u8]; 8] = [
            b"\x83\xa4type\xa1n\xa7headers\xc0\xa7payload\x01",
            b"\x83\xa4type\xa1n\xa7headers\x90\xa7payload\x01",
            b"\x83\xa4type\xa1n\xa7headers\x81\xa1a\xc0\xa7payload\x01",
            b"\x83\xa4type\xa1n\xa8attempts\xc0\xa7payload\x01",
            b"\x83\xa4type\xa1n\xa8attempts\xd3\0\0\0\0\0\0\0\0\xa7payload\x01",
            b"\x83\xa4type\xa1n\xa8attempts\xd0\0\xa7payload\x01",
            b"\x84\xa4type\xa1n\xa2id\xa0\xa2ts\xa0\xa7payload\x01",
            b"\x84\xa4type\xa1n\xa2id\xc0\xa3key\xc0\xa7payload\x01",
        ];
        let all = json.map(|bytes| ("json", bytes)).into_iter();
        for (name, bytes) in all.chain(packed.map(|bytes| ("msgpack", bytes))) {
            let shown = String::from_utf8_lossy(bytes);
            let read = decode(name, bytes).unwrap_or_else(|e| panic!("{shown}: {e}"));
            let plain = decode("json", br#"{"type":"n","payload":1}"#).unwrap();
            assert_eq!(read.payload::<u32>().unwrap(), 1, "{shown}");
            assert_eq!(read.id(), plain.id(), "{shown}");
            assert_eq!(read.headers(), plain.headers(), "{shown}");
            assert_eq!((read.failed_attempts(), read.key()), (0, None), "{shown}");
        }
        for (name, bytes) in [
            ("json", &br#"{"type":"n","headers":[1],"payload":1}"#[..]),
            (
                "msgpack",
                b"\x83\xa4type\xa1n\xa7headers\x91\x01\xa7payload\x01",
            ),
            (
                "msgpack",
                b"\x83\xa4type\xa1n\xa8attempts\xff\xa7payload\x01",
            ),
            (
                "msgpack",
                b"\x83\xa4type\xa1n\xa8attempts\xd3\0\0\0\x01\0\0\0\0\xa7payload\x01",
            ),
        ] {
            let shown = String::from_utf8_lossy(bytes);
            assert!(decode(name, bytes).is_err(), "{shown}");
        }
    }

    #[test]
    fn unknown_fields_are_kept_in_both_codecs() {
        let text = br#"{"type":"t","payload":[1,null],"future":{"a":[1,2]},"x":null}"#;
        let envelope = decode("json", text).unwrap();
        for codec in [Codec::Json, Codec::MessagePack] {
            let (name, bytes) = encode_entry(&envelope, codec, Limits::default()).unwrap();
            let again = decode(name, &bytes).unwrap();
            let (_, text) = encode_entry(&again, Codec::Json, Limits::default()).unwrap();
            let value: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value["future"], json!({"a": [1, 2]}), "{codec}");
            assert!(value.as_object().unwrap().contains_key("x"), "{codec}");
        }
    }

    #[test]
    fn every_undecodable_entry_names_its_rule() {
        let deep = [
            b"{\"type\":\"t\",\"payload\":".to_vec(),
            vec![b'['; 10_000],
            vec![b']'; 10_000],
            b"}".to_vec(),
        ]
        .concat();
        let cases: [(&str, &[u8], &str); 9] = [
            ("other", b"{}", "no field named"),
            ("json", b"{\"type\":\"t\"", "EOF"),
            ("json", b"{\"type\":\"t\",\"payload\":1} x", "trailing"),
            ("json", b"{\"payload\":1}", "\"type\" is missing"),
            ("json", b"{\"type\":\"t\"}", "\"payload\" is missing"),
            (
                "json",
                b"{\"type\":\"t\",\"payload\":1,\"id\":\"x\"}",
                "\"id\"",
            ),
            (
                "json",
                b"{\"type\":\"t\",\"payload\":1,\"attempts\":-1}",
                "\"attempts\"",
            ),
            ("json", &deep, "deeper than 64"),
            ("msgpack", b"\x81\xa4type\xa1t\xc0", "bytes follow"),
        ];
        for (name, bytes, rule) in cases {
            let error = decode(name, bytes).unwrap_err().to_string();
            assert!(error.contains(rule), "{name}: {error}");
            assert!(
                error.len() < 300,
                "the text of a hostile entry is not echoed at length"
            );
        }
    }

    #[test]
    fn a_payload_at_the_depth_limit_round_trips() {
        let deepest = (0..64).fold(Value::Null, |inner, _| json!([inner]));
        let envelope = Envelope::new("t", &deepest).unwrap();
        for codec in [Codec::MessagePack, Codec::Json] {
            let (name, bytes) = encode_entry(&envelope, codec, Limits::default()).unwrap();
            assert_eq!(
                decode(name, &bytes).unwrap().payload::<Value>().unwrap(),
                deepest
            );
        }
    }

    #[test]
    fn the_size_limit_holds_in_both_directions() {
        let envelope = Envelope::new("t", &"x".repeat(500)).unwrap();
        let small = Limits::default().with_max_bytes(400);
        let error = encode_entry(&envelope, Codec::MessagePack, small).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let (name, bytes) = encode_entry(&envelope, Codec::Json, Limits::default()).unwrap();
        let fields = [(name.as_bytes(), bytes.as_slice())];
        let error = decode_entry(&topic(), ENTRY, fields, small).unwrap_err();
        assert!(error.to_string().contains("over the limit of 400"));
    }

    fn payloads() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e15_f64..1e15).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn envelopes_round_trip_in_both_codecs_and_across_them(
            kind in ".{0,20}", payload in payloads(), key in prop::option::of(".{0,10}"),
            headers in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4)
        ) {
            let mut envelope = Envelope::new(kind, &payload).unwrap();
            envelope.key = key;
            envelope.headers = headers;
            let mut current = envelope.clone();
            for codec in [Codec::MessagePack, Codec::Json, Codec::MessagePack] {
                let (name, bytes) = encode_entry(&current, codec, Limits::default()).unwrap();
                current = decode(name, &bytes).unwrap();
                prop_assert_eq!(current.payload::<Value>().unwrap(), payload.clone());
            }
            prop_assert_eq!(current, envelope);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode("msgpack", &bytes);
            let _ = decode("json", &bytes);
        }

        #[test]
        fn a_cut_envelope_is_undecodable(cut in 0.0_f64..1.0) {
            let envelope = Envelope::new("t", &json!({"a": [1, 2, 3]})).unwrap();
            for codec in [Codec::MessagePack, Codec::Json] {
                let (name, bytes) = encode_entry(&envelope, codec, Limits::default()).unwrap();
                let end = (bytes.len() as f64 * cut) as usize;
                prop_assert!(decode(name, &bytes[..end]).is_err());
            }
        }
    }
}
