//! JSON text, taken apart without reading its numbers.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The entries of an object in their order, equal keys included.
pub(super) struct Entries<'a>(pub(super) Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// A JSON value, opened by one level.
pub(super) enum Opened<'a> {
    Array(Vec<&'a RawValue>),
    /// Names and values.
    Object(Vec<(String, &'a RawValue)>),
    Other,
}

/// Opens checked JSON by one level.
pub(super) fn open(text: &str) -> Result<Opened<'_>, String> {
    let read = |error: serde_json::Error| error.to_string();
    Ok(match text.as_bytes().first() {
        Some(b'[') => Opened::Array(serde_json::from_str(text).map_err(read)?),
        Some(b'{') => {
            let Entries(entries) = serde_json::from_str(text).map_err(read)?;
            let named = entries.into_iter().map(|(name, value)| {
                let name = serde_json::from_str(name.get()).map_err(read)?;
                Ok((name, value))
            });
            Opened::Object(named.collect::<Result<_, String>>()?)
        }
        _ => Opened::Other,
    })
}

/// JSON on many lines. Numbers and texts keep their digits and escapes.
pub(crate) fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_text, mut escaped, mut opened) = (0_usize, false, false, false);
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for char in text.chars() {
        if in_text {
            out.push(char);
            in_text = escaped || char != '"';
            escaped = !escaped && char == '\\';
            continue;
        }
        if char.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(char, ']' | '}');
        if closes {
            depth = depth.saturating_sub(1);
        }
        // An empty array or object stays on its line.
        if opened != closes {
            new_line(&mut out, depth);
        }
        opened = matches!(char, '[' | '{');
        if opened {
            depth += 1;
        }
        match char {
            ':' => out.push_str(": "),
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            _ => out.push(char),
        }
        in_text = char == '"';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn pretty_text_is_the_same_value_with_every_digit() {
        let value = json!({"a": [1, {"b": "x\"],{: \\"}, []], "c": {}, "d": ""});
        let text = value.to_string();
        assert_eq!(pretty(&text), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(pretty("{\"n\":1.50e999}"), "{\n  \"n\": 1.50e999\n}");
    }

    #[test]
    fn equal_keys_stay_apart() {
        let Opened::Object(entries) = open(r#"{"a":1,"b":2,"\u0061":3.0}"#).unwrap() else {
            panic!("not an object")
        };
        let read: Vec<_> = entries
            .iter()
            .map(|(name, value)| (name.as_str(), value.get()))
            .collect();
        assert_eq!(read, [("a", "1"), ("b", "2"), ("a", "3.0")]);
    }

    proptest! {
        #[test]
        fn pretty_text_reads_back(keys in prop::collection::vec(".{0,8}", 0..5), depth in 0_usize..5) {
            let mut value = Value::from(keys.clone());
            for _ in 0..depth {
                value = json!([{ "k": value, "e": [] }, keys]);
            }
            let shown = pretty(&value.to_string());
            prop_assert_eq!(&shown, &serde_json::to_string_pretty(&value).unwrap());
        }
    }
}
