//! A message's headers and payload, as a tree, and as a file.

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::console::failure::Failure;
use crate::console::page::{counted, number, safe};
use crate::console::visit::Visit;
use crate::domain::{Codec, Envelope};
use crate::operate::{escape, hex};
use crate::store::Fields;

/// How much of a payload a page shows.
const SHOWN: usize = 64 * 1024;

/// How deep a tree goes. A page shows deeper values as text.
const DEPTH: usize = 32;

/// How many bytes of a field a page shows in hexadecimal.
pub(in crate::console) const HEX: usize = 1024;

/// Headers and payload; of an undecodable message the reason and the fields.
pub(in crate::console) fn message(
    visit: &Visit,
    envelope: Result<&Envelope, String>,
    fields: &Fields,
    address: &str,
) -> Markup {
    if !visit.app.options.payloads {
        return html! {
            h2 { "Payload" }
            div.empty { p { "This console hides payloads." } }
        };
    }
    match envelope {
        Ok(envelope) => html! {
            @if !envelope.headers().is_empty() {
                h2 { "Headers" }
                dl.facts {
                    @for (name, value) in envelope.headers() {
                        div { dt { (safe(name)) } dd.mono { (safe(value)) } }
                    }
                }
            }
            (payload(envelope, address))
        },
        Err(flaw) => html! {
            h2 { "Fields" }
            div.note.bad { p { "Undecodable: " (safe(&flaw)) } }
            (raw(fields))
            p { a href={ (address) "/payload" } { "Download the fields" } }
        },
    }
}

fn payload(envelope: &Envelope, address: &str) -> Markup {
    let payload = envelope.raw_payload();
    let codec = match payload.codec() {
        Codec::Json => "JSON",
        _ => "MessagePack",
    };
    let size = counted(payload.as_bytes().len() as u64, "byte", "bytes");
    let shown = match payload.to_codec(Codec::Json) {
        Ok(text) => {
            let text = String::from_utf8_lossy(text.as_bytes());
            html! {
                (json(&text, "Payload"))
                @if text.len() > SHOWN { p.soft { "The download has all of it." } }
            }
        }
        // MessagePack has values that JSON cannot express.
        Err(_) => html! {
            p.soft { "JSON cannot express this payload." }
            (bytes(payload.as_bytes()))
            @if payload.as_bytes().len() > HEX { p.soft { "The download has all of it." } }
        },
    };
    html! {
        h2 { "Payload" }
        p.soft { (codec) ", " (size) " · " a href={ (address) "/payload" } { "Download" } }
        (shown)
    }
}

/// A JSON text as a tree; the beginning of a long one as text.
pub(in crate::console) fn json(text: &str, label: &str) -> Markup {
    if text.len() <= SHOWN {
        return html! { div.tree tabindex="0" role="region" aria-label=(label) { (tree(text)) } };
    }
    let end = (0..=SHOWN).rev().find(|end| text.is_char_boundary(*end));
    let shown = &text[..end.unwrap_or(0)];
    let left = (text.len() - shown.len()) as u64;
    html! {
        pre tabindex="0" role="region" aria-label=(label) { (escape::json(shown)) "…" }
        p.soft { (counted(left, "more byte", "more bytes")) "." }
    }
}

fn raw(fields: &Fields) -> Markup {
    html! {
        @for (name, value) in fields {
            h3 { (safe(&String::from_utf8_lossy(name))) " "
                span.soft { (counted(value.len() as u64, "byte", "bytes")) } }
            (bytes(value))
        }
    }
}

/// The beginning of bytes in hexadecimal.
pub(in crate::console) fn bytes(bytes: &[u8]) -> Markup {
    let end = bytes.len().min(HEX);
    html! {
        pre tabindex="0" role="region" aria-label="Bytes" { (hex::view(&bytes[..end]).join("\n")) }
        @if end < bytes.len() {
            p.soft { (counted((bytes.len() - end) as u64, "more byte", "more bytes")) "." }
        }
    }
}

/// The payload, or the fields of an undecodable message, as a file that no browser opens.
pub(in crate::console) fn download(
    visit: &Visit,
    envelope: Option<&Envelope>,
    fields: &Fields,
    name: &str,
) -> Result<Response, Failure> {
    if !visit.app.options.payloads {
        return Err(Failure::not_found("this console hides payloads"));
    }
    let (content, end) = match envelope {
        Some(envelope) => {
            let payload = envelope.raw_payload();
            let end = match payload.codec() {
                Codec::Json => "json",
                _ => "msgpack",
            };
            (Bytes::copy_from_slice(payload.as_bytes()), end)
        }
        None => {
            let mut all = Vec::new();
            for (name, value) in fields {
                all.extend_from_slice(name);
                all.push(b'\n');
                all.extend_from_slice(value);
                all.push(b'\n');
            }
            (Bytes::from(all), "bin")
        }
    };
    // Names of topics and groups have no quotation marks and no line breaks.
    let file = format!("attachment; filename=\"{}.{end}\"", name.replace(':', "_"));
    let kind = "application/octet-stream".to_owned();
    Ok(([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, file)], content).into_response())
}

/// A JSON text as nested lists that open and close. Numbers stay as written, and equal keys stay.
fn tree(text: &str) -> Markup {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => node(None, value, 0),
        Err(_) => html! { div { (safe(text)) } },
    }
}

fn node(key: Option<&str>, value: &RawValue, depth: usize) -> Markup {
    let text = value.get();
    let label = html! { @if let Some(key) = key { span.key { (safe(key)) ": " } } };
    let plain = html! { div { (label) (escape::json(text)) } };
    if depth >= DEPTH {
        return plain;
    }
    match text.as_bytes().first() {
        Some(b'{') => match serde_json::from_str::<Members>(text) {
            Ok(Members(members)) if !members.is_empty() => html! {
                details open {
                    summary { (label) "{" (number(members.len() as u64)) "}" }
                    @for (key, value) in members { (node(Some(&key), &value, depth + 1)) }
                }
            },
            _ => plain,
        },
        Some(b'[') => match serde_json::from_str::<Items>(text) {
            Ok(Items(items)) if !items.is_empty() => html! {
                details open {
                    summary { (label) "[" (number(items.len() as u64)) "]" }
                    @for value in items { (node(None, &value, depth + 1)) }
                }
            },
            _ => plain,
        },
        _ => plain,
    }
}

/// The members of an object in their order, equal keys included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

struct Items(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Items;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = seq.next_element()? {
                    all.push(item);
                }
                Ok(Items(all))
            }
        }
        deserializer.deserialize_seq(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_keeps_every_digit_every_key_and_no_markup_of_others() {
        let text = r#"{"n":18446744073709551616123,"x":1.50,"x":"<script>\u202e","e":[]}"#;
        let shown = tree(text).into_string();
        assert!(shown.contains("18446744073709551616123"), "{shown}");
        assert!(shown.contains("1.50"), "{shown}");
        assert_eq!(shown.matches("x: ").count(), 2, "{shown}");
        assert!(!shown.contains("<script"), "{shown}");
        assert!(shown.contains("[]"), "{shown}");
    }

    #[test]
    fn a_deep_payload_ends_as_text() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let shown = tree(&deep).into_string();
        assert_eq!(shown.matches("<details").count(), DEPTH);
        assert!(shown.contains(&"[".repeat(100 - DEPTH)), "{shown}");
    }
}
