//! Plain fields: each field of the entry is a member of the payload.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::{ForeignEntry, is_envelope_field};
use crate::domain::Envelope;

/// A text, or the bytes of a value that is not UTF-8.
struct Value<'a>(&'a [u8]);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Bytes::copy_from_slice(self.0).serialize(serializer),
        }
    }
}

/// Reads an entry of plain fields, such as `XADD … user 7 action login`, as a message of the given type.
///
/// The payload is a map with one text for each field: `{"user":"7","action":"login"}`. A value that is
/// not UTF-8 is binary. Of fields with one name, the last counts. An entry with a name that is not
/// UTF-8, or with a field `msgpack`, `json` or `cloudevents`, is not read.
pub fn plain(
    message_type: impl Into<String>,
) -> impl Fn(&ForeignEntry<'_>) -> Option<Envelope> + Send + Sync + 'static {
    let message_type = message_type.into();
    move |entry| {
        let mut payload = BTreeMap::new();
        for (name, value) in entry.fields() {
            if is_envelope_field(name) {
                return None;
            }
            payload.insert(std::str::from_utf8(name).ok()?, Value(value));
        }
        entry.envelope(message_type.as_str(), &payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::foreign::tests::{decode, fields};
    use serde_json::{Value as Json, json};

    #[test]
    fn each_field_is_a_text_of_the_payload() {
        let read = decode(plain("login"), &[("user", "7"), ("n", ""), ("n", "2")]).unwrap();
        assert_eq!(read.message_type(), "login");
        let payload: Json = read.payload().unwrap();
        assert_eq!(payload, json!({"user": "7", "n": "2"}));
    }

    #[test]
    fn a_broken_envelope_is_not_taken_for_plain_fields() {
        for name in ["json", "msgpack", "cloudevents"] {
            assert!(decode(plain("login"), &[(name, "{")]).is_err(), "{name}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_stay_bytes() {
        let mut fields = fields(&[("a", "1")]);
        fields.push((Bytes::from_static(b"b"), Bytes::from_static(b"\xff\x00")));
        let topic = crate::Topic::new("orders").unwrap();
        let entry = ForeignEntry::new(&topic, crate::wire::foreign::tests::ENTRY, &fields);
        #[derive(serde::Deserialize)]
        struct Read {
            b: Bytes,
        }
        let read: Read = plain("t")(&entry).unwrap().payload().unwrap();
        assert_eq!(&read.b[..], b"\xff\x00");
        fields.push((Bytes::from_static(b"\xff"), Bytes::new()));
        let entry = ForeignEntry::new(&topic, crate::wire::foreign::tests::ENTRY, &fields);
        assert!(plain("t")(&entry).is_none());
    }
}
