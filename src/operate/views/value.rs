//! Values of the key-value store in a list.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{OnceState, value_json};
use crate::operate::{escape, hex};
use crate::store::Peeked;

/// How many bytes of a value a list reads.
pub const LISTED_BYTES: usize = 1024;

/// How many bytes a list shows in hexadecimal.
const HEX: usize = 16;

/// A stored value in a list: its key, and as much of the value as was read.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedValue {
    key: String,
    form: &'static str,
    bytes: u64,
    expires_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    once: Option<&'static str>,
    /// The value, where all of it was read and JSON can express it.
    value: Option<Box<RawValue>>,
    #[serde(skip)]
    start: Bytes,
}

impl ListedValue {
    /// The view of a key's value.
    #[must_use]
    pub fn new(key: impl Into<String>, peeked: Peeked) -> Self {
        let is_whole = peeked.bytes.len() as u64 == peeked.len;
        let once = OnceState::of(&peeked.bytes);
        let value = match &once {
            _ if !is_whole => None,
            Some(once) => once.result.clone(),
            None => value_json(&peeked.bytes),
        };
        let form = match (&once, &value) {
            (Some(_), _) => "once",
            (None, Some(_)) => form(&peeked.bytes),
            (None, None) if !is_whole && peeked.bytes.first() == Some(&0xC1) => "messagepack",
            (None, None) if !is_whole && starts_as_text(&peeked.bytes) => "text",
            (None, None) => "bytes",
        };
        let millis = |ttl: std::time::Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self {
            key: key.into(),
            form,
            bytes: peeked.len,
            expires_in_ms: peeked.expires_in.map(millis),
            once: once.map(|once| once.once),
            value,
            start: peeked.bytes,
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `json`, `messagepack`, `text`, `once` or `bytes`. A long value that begins as text is `text`.
    #[must_use]
    pub fn form(&self) -> &'static str {
        self.form
    }

    /// The length of the stored value, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Milliseconds until the value expires; `None`: never.
    #[must_use]
    pub fn expires_in_ms(&self) -> Option<u64> {
        self.expires_in_ms
    }

    /// The beginning of the value on one line, without control characters.
    #[must_use]
    pub fn excerpt(&self, max: usize) -> String {
        match (&self.once, &self.value) {
            (Some(once), Some(result)) => escape::excerpt(&format!("{once}, {result}"), max),
            (Some(once), None) => (*once).to_owned(),
            (None, Some(value)) => escape::excerpt(value.get(), max),
            (None, None) if self.form == "text" => {
                let text = String::from_utf8_lossy(&self.start);
                // A character at the end may be cut.
                let text = text.trim_end_matches('\u{fffd}');
                escape::excerpt(&format!("{text}…"), max)
            }
            (None, None) => {
                let shown = &self.start[..self.start.len().min(HEX)];
                let more = self.bytes > shown.len() as u64;
                let dots = if more { "…" } else { "" };
                format!("0x{}{dots}", hex::word(shown))
            }
        }
    }
}

/// The form of a value that can be read: `messagepack`, `json` or `text`.
#[must_use]
pub(crate) fn form(bytes: &[u8]) -> &'static str {
    let is_json = || serde_json::from_slice::<&RawValue>(bytes).is_ok();
    match bytes.first() {
        Some(0xC1) => "messagepack",
        _ if is_json() => "json",
        _ => "text",
    }
}

/// Whether the beginning of a longer value is text. The last character may be cut.
fn starts_as_text(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn listed(bytes: &'static [u8], len: u64) -> ListedValue {
        ListedValue::new("k", Peeked::new(Bytes::from_static(bytes), len, None))
    }

    #[test]
    fn a_list_shows_form_and_beginning_of_each_value() {
        for (bytes, len, form, excerpt) in [
            (&b"{\"a\":1}"[..], 7, "json", "{\"a\":1}"),
            (b"\xC1\x07", 2, "messagepack", "7"),
            (b"hello there", 11, "text", "\"hello there\""),
            (b"\xff\xfe", 2, "bytes", "0xfffe"),
            (b"\xC1\xC1cowner", 8, "once", "claimed"),
            (b"\xC1\xC1d0002ab\"r-1\"", 14, "once", "done, \"r-1\""),
            (b"", 0, "text", "\"\""),
            // Cut values.
            (b"\xC1\xda\x08", 2_000, "messagepack", "0xc1da08…"),
            ("long é".as_bytes(), 2_000, "text", "long é…"),
            (b"long \xc3", 2_000, "text", "long …"),
            (
                b"\xffabcdefghijklmnopqrstuv",
                2_000,
                "bytes",
                "0xff6162636465666768696a6b6c6d6e6f…",
            ),
        ] {
            let value = listed(bytes, len);
            assert_eq!((value.form(), value.excerpt(40).as_str()), (form, excerpt));
        }
    }

    #[test]
    fn the_json_of_a_list_has_the_value_where_it_was_read() {
        let peeked = Peeked::new(Bytes::from_static(b"40"), 2, Some(Duration::from_secs(60)));
        let json = serde_json::to_value(ListedValue::new("stock", peeked)).unwrap();
        let expected = serde_json::json!({"key": "stock", "form": "json", "bytes": 2,
            "expiresInMs": 60_000, "value": 40});
        assert_eq!(json, expected);
        let json = serde_json::to_value(listed(b"long", 2_000)).unwrap();
        assert_eq!(
            (&json["value"], &json["bytes"]),
            (&serde_json::Value::Null, &2_000.into())
        );
    }
}
