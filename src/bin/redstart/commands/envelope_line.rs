//! Parses a line of input into an envelope.

use std::collections::BTreeMap;
use std::fmt;

use redstart::Envelope;
use redstart::envelope::EntryId;
use redstart::store::{Limits, decode_entry};
use redstart::views::EntryLine;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use crate::args::{Format, PublishArgs};
use crate::failure::chain;

/// A published envelope has these; a new message gets its own.
const REPLACED: [&str; 3] = ["ts", "attempts", "lastError"];

/// The message of a line, or the rule that the line breaks; `None` for an empty line.
pub(super) fn parse(line: &[u8], args: &PublishArgs) -> Result<Option<EntryLine>, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("is not UTF-8: {error}"))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    if args.from.is_some() {
        return EntryLine::parse(text)
            .map(Some)
            .map_err(|error| chain(&error));
    }
    let envelope = envelope(text, args)?;
    Ok(Some(EntryLine::of(envelope)))
}

fn envelope(text: &str, args: &PublishArgs) -> Result<Envelope, String> {
    if args.format == Some(Format::CloudEvents) {
        return event(text, args);
    }
    let line = if args.envelope {
        EnvelopeLine::read(text)?
    } else {
        let payload = serde_json::from_str(text);
        EnvelopeLine {
            payload: Some(payload.map_err(|error| format!("is not JSON: {}", place(&error)))?),
            ..EnvelopeLine::default()
        }
    };
    line.envelope(args)
}

/// The message of a CloudEvent; the options fill what it leaves out.
fn event(text: &str, args: &PublishArgs) -> Result<Envelope, String> {
    let mut envelope =
        Envelope::from_cloud_event(text.as_bytes()).map_err(|error| chain(&error))?;
    if let Some(id) = args
        .correlation
        .as_ref()
        .filter(|_| envelope.correlation().is_none())
    {
        envelope = envelope.with_correlation(id);
    }
    if let Some(tenant) = args.tenant.as_ref().filter(|_| envelope.tenant().is_none()) {
        envelope = envelope.with_tenant(tenant);
    }
    if let Some(key) = args.key.as_ref().filter(|_| envelope.key().is_none()) {
        envelope = envelope.with_key(key);
    }
    for (name, value) in &args.headers {
        if !envelope.headers().contains_key(name) {
            envelope.set_header(name, value);
        }
    }
    Ok(envelope)
}

/// A parser's error without its line number, which is always 1 here.
fn place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((rule, column)) => format!("{rule} at column {column}"),
        None => text,
    }
}

/// The members of a JSON object, in their order, each as it is written.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `type` and `payload`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// The fields of an envelope on the wire.
#[derive(Default)]
struct EnvelopeLine {
    message_type: Option<String>,
    payload: Option<Box<RawValue>>,
    id: Option<Uuid>,
    correlation: Option<String>,
    tenant: Option<String>,
    key: Option<String>,
    headers: BTreeMap<String, String>,
    unknown: BTreeMap<String, Box<RawValue>>,
}

/// Reads a field; `null` means that it is absent.
fn field<T: DeserializeOwned>(name: &str, raw: &RawValue, rule: &str) -> Result<Option<T>, String> {
    serde_json::from_str(raw.get()).map_err(|_| format!("field `{name}` must be {rule}"))
}

impl EnvelopeLine {
    fn read(text: &str) -> Result<Self, String> {
        let members: Members = serde_json::from_str(text)
            .map_err(|error| format!("is not an envelope: {}", place(&error)))?;
        let mut line = Self::default();
        let mut seen = Vec::new();
        for (name, raw) in members.0 {
            if seen.contains(&name) {
                return Err(format!("field `{name}` is there twice"));
            }
            match &*name {
                "type" => line.message_type = field(&name, &raw, "a text")?,
                "id" => line.id = field(&name, &raw, "a UUID")?,
                "corrId" => line.correlation = field(&name, &raw, "a text")?,
                "tenantId" => line.tenant = field(&name, &raw, "a text")?,
                "key" => line.key = field(&name, &raw, "a text")?,
                // Some languages write an empty map as a list.
                "headers" if raw.get() == "[]" => {}
                "headers" => {
                    let headers = field(&name, &raw, "an object of texts")?;
                    line.headers = headers.unwrap_or_default();
                }
                // A payload of `null` is present.
                "payload" => line.payload = Some(raw),
                replaced if REPLACED.contains(&replaced) => {}
                _ => {
                    line.unknown.insert(name.clone(), raw);
                }
            }
            seen.push(name);
        }
        Ok(line)
    }

    /// The envelope of the line; the options fill the fields that the line leaves out.
    fn envelope(self, args: &PublishArgs) -> Result<Envelope, String> {
        let message_type = self.message_type.or_else(|| args.message_type.clone());
        let message_type = message_type.ok_or("field `type` is missing, and --type is not set")?;
        let payload = self.payload.ok_or("field `payload` is missing")?;
        if let Some(name) = self.unknown.keys().next().filter(|_| !args.keep_unknown) {
            return Err(format!(
                "unknown field `{name}`; --keep-unknown publishes it as it is"
            ));
        }
        let mut envelope = Envelope::new(message_type, &payload).map_err(|error| chain(&error))?;
        if !self.unknown.is_empty() {
            envelope = with_unknown(&envelope, payload, self.unknown, args)?;
        }
        if let Some(id) = self.id {
            envelope = envelope.with_id(id);
        }
        if let Some(id) = self.correlation.or_else(|| args.correlation.clone()) {
            envelope = envelope.with_correlation(id);
        }
        if let Some(tenant) = self.tenant.or_else(|| args.tenant.clone()) {
            envelope = envelope.with_tenant(tenant);
        }
        if let Some(key) = self.key.or_else(|| args.key.clone()) {
            envelope = envelope.with_key(key);
        }
        // A header of the line replaces an option of the same name.
        for (name, value) in args.headers.iter().cloned().chain(self.headers) {
            envelope = envelope.with_header(name, value);
        }
        Ok(envelope)
    }
}

/// The envelope with fields that this version does not know. The reader of the wire keeps them, as
/// it does for a message of a newer version.
fn with_unknown(
    envelope: &Envelope,
    payload: Box<RawValue>,
    mut fields: BTreeMap<String, Box<RawValue>>,
    args: &PublishArgs,
) -> Result<Envelope, String> {
    let text = |text: String| to_raw_value(&text).map_err(|error| error.to_string());
    fields.insert("id".to_owned(), text(envelope.id().to_string())?);
    fields.insert("ts".to_owned(), text(envelope.created_at().to_string())?);
    fields.insert("type".to_owned(), text(envelope.message_type().to_owned())?);
    let correlation = envelope.correlation().unwrap_or_default();
    fields.insert("corrId".to_owned(), text(correlation.to_owned())?);
    fields.insert("payload".to_owned(), payload);
    let bytes = serde_json::to_vec(&fields).map_err(|error| error.to_string())?;
    let limits = Limits::default().with_max_bytes(usize::MAX);
    let pairs = [(&b"json"[..], &bytes[..])];
    decode_entry(&args.topic, EntryId::default(), pairs, limits)
        .map_err(|flaw| format!("is not an envelope: {flaw}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(line: &[u8], args: &PublishArgs) -> Result<Option<Envelope>, String> {
        super::parse(line, args).map(|line| line.map(|line| line.envelope))
    }

    fn args(envelope: bool) -> PublishArgs {
        PublishArgs {
            topic: redstart::Topic::new("orders").unwrap(),
            message_type: Some("default".to_owned()),
            envelope,
            format: None,
            from: None,
            key: Some("k".to_owned()),
            tenant: None,
            correlation: None,
            headers: vec![("a".to_owned(), "option".to_owned())],
            durability: redstart::Durability::Accepted,
            keep_unknown: false,
            at: None,
            after: None,
            id: None,
            stop_on_error: false,
        }
    }

    #[test]
    fn a_line_is_a_payload_and_the_options_add_the_rest() {
        let read = parse(b" {\"n\":1} ", &args(false)).unwrap().unwrap();
        assert_eq!(read.message_type(), "default");
        assert_eq!(read.key(), Some("k"));
        assert_eq!(read.headers()["a"], "option");
        assert_eq!(read.payload::<Value>().unwrap(), json!({"n": 1}));
        assert_eq!(parse(b"  \r", &args(false)), Ok(None));
    }

    #[test]
    fn an_envelope_line_overrides_the_options() {
        let line = br#"{"type":"t","payload":null,"id":"0190163d-8694-739b-aea5-966c26f8ad90",
            "corrId":"c","tenantId":"x","key":"own","headers":{"a":"line"},
            "ts":"2025-11-12T14:20:00.123Z","attempts":3,"lastError":"e"}"#;
        let read = parse(line, &args(true)).unwrap().unwrap();
        assert_eq!(read.message_type(), "t");
        assert_eq!(
            read.id().to_string(),
            "0190163d-8694-739b-aea5-966c26f8ad90"
        );
        assert_eq!(
            (read.correlation(), read.tenant(), read.key()),
            (Some("c"), Some("x"), Some("own"))
        );
        assert_eq!(read.headers()["a"], "line");
        assert_eq!((read.failed_attempts(), read.last_error()), (0, None));
        assert_eq!(read.payload::<Value>().unwrap(), Value::Null);
    }

    #[test]
    fn null_and_an_empty_list_of_headers_mean_absent() {
        let line = br#"{"type":"t","payload":1,"id":null,"corrId":null,"key":null,"headers":[]}"#;
        let read = parse(line, &args(true)).unwrap().unwrap();
        assert_eq!(read.key(), Some("k"), "the option fills it");
        let line = br#"{"type":"t","payload":1,"headers":null}"#;
        assert_eq!(
            parse(line, &args(true)).unwrap().unwrap().headers().len(),
            1
        );
    }

    #[test]
    fn unknown_fields_are_refused_or_kept_with_every_digit() {
        let line =
            br#"{"type":"t","payload":1.50,"trace":{"n":100000000000000000000001},"key":"own"}"#;
        let rule = parse(line, &args(true)).unwrap_err();
        assert!(
            rule.starts_with("unknown field `trace`; --keep-unknown "),
            "{rule}"
        );
        let keeping = PublishArgs {
            keep_unknown: true,
            ..args(true)
        };
        let read = parse(line, &keeping).unwrap().unwrap();
        let json = redstart::views::envelope_json(&read).unwrap();
        for part in [
            r#""trace":{"n":100000000000000000000001}"#,
            "1.50",
            r#""key":"own""#,
        ] {
            assert!(json.get().contains(part), "{part} in {json}");
        }
        assert_eq!(read.headers()["a"], "option");
        let plain = parse(br#"{"type":"t","payload":1}"#, &keeping)
            .unwrap()
            .unwrap();
        assert_eq!(read.correlation().is_some(), plain.correlation().is_some());
    }

    #[test]
    fn a_bad_line_names_its_rule() {
        for (line, rule) in [
            (
                &b"{\"n\":"[..],
                "is not JSON: EOF while parsing a value at column 5",
            ),
            (b"{} {}", "trailing characters"),
            (b"\xff", "is not UTF-8"),
        ] {
            let error = parse(line, &args(false)).unwrap_err();
            assert!(error.contains(rule), "{error}");
        }
        for (line, rule) in [
            (&b"[1]"[..], "is not an envelope"),
            (br#"{"type":"t"}"#, "`payload` is missing"),
            (
                br#"{"type":"t","payload":1,"tenant":"x"}"#,
                "unknown field `tenant`",
            ),
            (
                br#"{"type":"t","payload":1,"id":"7"}"#,
                "field `id` must be a UUID",
            ),
            (br#"{"type":7,"payload":1}"#, "field `type` must be a text"),
            (
                br#"{"type":"t","payload":1,"headers":{"a":1}}"#,
                "field `headers` must be an object of texts",
            ),
            (
                br#"{"type":"t","payload":1,"payload":2}"#,
                "field `payload` is there twice",
            ),
            (
                b"null",
                "is not an envelope: invalid type: null, expected an object with",
            ),
        ] {
            let error = parse(line, &args(true)).unwrap_err();
            assert!(error.contains(rule), "{error}");
        }
        let deep = "[".repeat(100) + &"]".repeat(100);
        let error = parse(deep.as_bytes(), &args(false)).unwrap_err();
        assert!(
            error.contains("deep") || error.contains("levels"),
            "{error}"
        );
        let mut args = args(true);
        args.message_type = None;
        let error = parse(br#"{"payload":1}"#, &args).unwrap_err();
        assert!(error.contains("`type` is missing"), "{error}");
    }
}
