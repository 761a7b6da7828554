//! An encoded value, opened only along the path of a change.

use rmp::encode as put;
use serde_json::value::RawValue;

use super::json::Entries;
use crate::domain::codec::Codec;
use crate::domain::msgpack::{Cursor, Flaw, Item};
use crate::domain::payload::RawPayload;

/// A part of a value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Encoded bytes, as the producer or the patch wrote them.
    Raw(Vec<u8>),
    Array(Head, Vec<Node>),
    /// Keys in their encoded form, and values.
    Map(Head, Vec<(Vec<u8>, Node)>),
}

/// The length prefix of a MessagePack array or map, as it was read. It is written again where the
/// length is the same, because a producer may have chosen a longer form.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    count: usize,
}

impl Node {
    pub(super) fn raw(bytes: Vec<u8>) -> Self {
        Self::Raw(bytes)
    }

    /// A JSON value in a codec.
    pub(super) fn of_json(json: &RawValue, codec: Codec) -> Result<Self, String> {
        let bytes = json.get().as_bytes();
        if codec == Codec::Json {
            return Ok(Self::Raw(bytes.to_vec()));
        }
        let payload = RawPayload::walked(Codec::Json, bytes.to_vec().into());
        let packed = payload.to_codec(codec).map_err(|error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), |e| e.to_string())
        })?;
        Ok(Self::Raw(packed.as_bytes().to_vec()))
    }

    pub(super) fn empty_map(codec: Codec) -> Self {
        Self::Raw(match codec {
            Codec::Json => b"{}".to_vec(),
            Codec::MessagePack => vec![0x80],
        })
    }

    /// Takes an array or a map apart by one level. Other values stay as they are.
    pub(super) fn open(&mut self, codec: Codec) -> Result<(), String> {
        let Self::Raw(bytes) = self else {
            return Ok(());
        };
        let opened = match codec {
            Codec::Json => open_json(bytes)?,
            Codec::MessagePack => open_msgpack(bytes).map_err(Flaw::as_str)?,
        };
        if let Some(opened) = opened {
            *self = opened;
        }
        Ok(())
    }

    pub(super) fn into_bytes(self, codec: Codec) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(codec, &mut out);
        out
    }

    fn write(&self, codec: Codec, out: &mut Vec<u8>) {
        match (self, codec) {
            (Self::Raw(bytes), _) => out.extend_from_slice(bytes),
            (Self::Array(_, items), Codec::Json) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(codec, out);
                }
                out.push(b']');
            }
            (Self::Map(_, entries), Codec::Json) => {
                out.push(b'{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    out.push(b':');
                    value.write(codec, out);
                }
                out.push(b'}');
            }
            (Self::Array(head, items), Codec::MessagePack) => {
                head.write(items.len(), false, out);
                items.iter().for_each(|item| item.write(codec, out));
            }
            (Self::Map(head, entries), Codec::MessagePack) => {
                head.write(entries.len(), true, out);
                for (key, value) in entries {
                    out.extend_from_slice(key);
                    value.write(codec, out);
                }
            }
        }
    }

    /// The value as JSON: binaries as arrays of numbers, extensions as pairs, as the tool shows them.
    pub(super) fn to_json(&self, codec: Codec) -> Result<Box<RawValue>, String> {
        let bytes = self.clone().into_bytes(codec);
        let payload = RawPayload::walked(codec, bytes.into());
        let json = payload.to_codec(Codec::Json).map_err(|error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), |e| e.to_string())
        })?;
        serde_json::from_slice(json.as_bytes()).map_err(|error| error.to_string())
    }

    /// The name of a value that JSON does not have.
    pub(super) fn foreign(&self, codec: Codec) -> Option<&'static str> {
        match (self, codec) {
            (Self::Raw(bytes), Codec::MessagePack) => match Cursor::new(bytes).item() {
                Ok(Item::Bytes(_)) => Some("a MessagePack binary"),
                Ok(Item::Ext(..)) => Some("a MessagePack extension"),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Head {
    fn write(&self, count: usize, is_map: bool, out: &mut Vec<u8>) {
        if count == self.count && !self.bytes.is_empty() {
            out.extend_from_slice(&self.bytes);
            return;
        }
        // The limit of an entry is far below 32 bits, and a write to memory does not fail.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let _ = if is_map {
            put::write_map_len(out, count)
        } else {
            put::write_array_len(out, count)
        };
    }
}

fn open_json(bytes: &[u8]) -> Result<Option<Node>, String> {
    let read = |error: serde_json::Error| error.to_string();
    let raw = |value: &RawValue| value.get().as_bytes().to_vec();
    Ok(match bytes.first() {
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(read)?;
            let items = items.into_iter().map(|item| Node::Raw(raw(item)));
            Some(Node::Array(Head::default(), items.collect()))
        }
        Some(b'{') => {
            let Entries(entries) = serde_json::from_slice(bytes).map_err(read)?;
            let entries = entries.into_iter();
            let entries = entries.map(|(key, value)| (raw(key), Node::Raw(raw(value))));
            Some(Node::Map(Head::default(), entries.collect()))
        }
        _ => None,
    })
}

fn open_msgpack(bytes: &[u8]) -> Result<Option<Node>, Flaw> {
    let mut cursor = Cursor::new(bytes);
    let item = cursor.item()?;
    let head = |count| Head {
        bytes: bytes[..bytes.len() - cursor.remaining()].to_vec(),
        count,
    };
    Ok(match item {
        Item::Array(count) => {
            let head = head(count);
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(Node::Raw(cursor.value()?.to_vec()));
            }
            Some(Node::Array(head, items))
        }
        Item::Map(count) => {
            let head = head(count);
            let mut entries = Vec::new();
            for _ in 0..count {
                let key = cursor.value()?.to_vec();
                entries.push((key, Node::Raw(cursor.value()?.to_vec())));
            }
            Some(Node::Map(head, entries))
        }
        _ => None,
    })
}

/// Where a map has the entry of a name. A MessagePack key that is a number or a boolean has the
/// name that it has in JSON.
pub(super) fn find(
    entries: &[(Vec<u8>, Node)],
    codec: Codec,
    wanted: &str,
) -> Result<Option<usize>, String> {
    let named = |(key, _): &(Vec<u8>, Node)| name(key, codec).is_some_and(|name| name == wanted);
    let at = entries.iter().position(named);
    match at {
        Some(at) if entries[at + 1..].iter().any(named) => {
            Err(format!("the map has several keys {wanted:.80?}"))
        }
        _ => Ok(at),
    }
}

/// The name of an encoded key in JSON, if it has one.
pub(super) fn name(key: &[u8], codec: Codec) -> Option<String> {
    if codec == Codec::Json {
        return serde_json::from_slice(key).ok();
    }
    let text = |value: &dyn std::fmt::Display| Some(value.to_string());
    match Cursor::new(key).item().ok()? {
        Item::Text(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Item::Bool(value) => text(&value),
        Item::Unsigned(value) => text(&value),
        Item::Signed(value) => text(&value),
        Item::F32(value) if value.is_finite() => serde_json::to_string(&value).ok(),
        Item::F64(value) if value.is_finite() => serde_json::to_string(&value).ok(),
        _ => None,
    }
}

/// The encoded key of a new entry. A map with keys that are not text gets none, because a patch
/// does not say which kind of key it means.
pub(super) fn new_key(
    entries: &[(Vec<u8>, Node)],
    codec: Codec,
    wanted: &str,
) -> Result<Vec<u8>, String> {
    if codec == Codec::Json {
        return serde_json::to_vec(wanted).map_err(|error| error.to_string());
    }
    let is_text = |key: &[u8]| matches!(Cursor::new(key).item(), Ok(Item::Text(_)));
    if !entries.iter().all(|(key, _)| is_text(key)) {
        let rule = "the map has keys that are not text, so a patch adds no entry to it";
        return Err(rule.to_owned());
    }
    let mut key = Vec::new();
    put::write_str(&mut key, wanted).map_err(|error| error.to_string())?;
    Ok(key)
}
