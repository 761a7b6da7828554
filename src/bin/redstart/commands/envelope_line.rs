//! Parses a line of input into an envelope.

use std::collections::BTreeMap;

use redstart::Envelope;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::args::PublishArgs;
use crate::failure::chain;

/// The fields of an envelope on the wire.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnvelopeLine {
    #[serde(rename = "type")]
    message_type: Option<String>,
    #[serde(default, deserialize_with = "present")]
    payload: Option<Box<RawValue>>,
    id: Option<String>,
    corr_id: Option<String>,
    tenant_id: Option<String>,
    key: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    // A published envelope has these; a new message gets its own.
    #[serde(rename = "ts")]
    _ts: Option<Box<RawValue>>,
    #[serde(rename = "attempts")]
    _attempts: Option<Box<RawValue>>,
    #[serde(rename = "lastError")]
    _last_error: Option<Box<RawValue>>,
}

/// A payload of `null` is present.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    <Box<RawValue>>::deserialize(deserializer).map(Some)
}

/// The envelope of a line, or the rule that the line breaks; `None` for an empty line.
pub(super) fn parse(line: &[u8], args: &PublishArgs) -> Result<Option<Envelope>, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("is not UTF-8: {error}"))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let fields = if args.envelope {
        serde_json::from_str(text)
            .map_err(|error| format!("is not an envelope: {}", place(&error)))?
    } else {
        EnvelopeLine::of(
            serde_json::from_str(text).map_err(|e| format!("is not JSON: {}", place(&e)))?,
        )
    };
    fields.envelope(args).map(Some)
}

/// A parser's error without its line number, which is always 1 here.
fn place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((rule, column)) => format!("{rule} at column {column}"),
        None => text,
    }
}

impl EnvelopeLine {
    fn of(payload: Box<RawValue>) -> Self {
        Self {
            message_type: None,
            payload: Some(payload),
            id: None,
            corr_id: None,
            tenant_id: None,
            key: None,
            headers: BTreeMap::new(),
            _ts: None,
            _attempts: None,
            _last_error: None,
        }
    }

    /// The envelope of the line; the options fill the fields that the line leaves out.
    fn envelope(self, args: &PublishArgs) -> Result<Envelope, String> {
        let message_type = self.message_type.or_else(|| args.message_type.clone());
        let message_type = message_type.ok_or("field `type` is missing, and --type is not set")?;
        let payload = self.payload.ok_or("field `payload` is missing")?;
        let mut envelope = Envelope::new(message_type, &payload).map_err(|error| chain(&error))?;
        if let Some(id) = self.id {
            let id = Uuid::try_parse(&id).map_err(|error| format!("field `id`: {error}"))?;
            envelope = envelope.with_id(id);
        }
        if let Some(id) = self.corr_id.or_else(|| args.correlation.clone()) {
            envelope = envelope.with_correlation(id);
        }
        if let Some(tenant) = self.tenant_id.or_else(|| args.tenant.clone()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn args(envelope: bool) -> PublishArgs {
        PublishArgs {
            topic: redstart::Topic::new("orders").unwrap(),
            message_type: Some("default".to_owned()),
            envelope,
            key: Some("k".to_owned()),
            tenant: None,
            correlation: None,
            headers: vec![("a".to_owned(), "option".to_owned())],
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
            (br#"{"type":"t","payload":1,"id":"7"}"#, "field `id`"),
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
