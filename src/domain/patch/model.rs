//! Payloads for the tests of patches, of which every part is known.

use proptest::prelude::*;

use super::{node, pointer};
use crate::domain::Codec;

/// A value with the encoded bytes of every leaf and key, to say what a change must produce.
#[derive(Clone, Debug)]
pub(super) enum Model {
    Leaf(Vec<u8>),
    /// Whether MessagePack writes the length in its longest form, and the elements.
    Array(bool, Vec<Model>),
    Map(bool, Vec<(Vec<u8>, Model)>),
}

impl Model {
    pub(super) fn bytes(&self, codec: Codec) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(codec, &mut out);
        out
    }

    fn write(&self, codec: Codec, out: &mut Vec<u8>) {
        let json = codec == Codec::Json;
        let (wide, count, is_map) = match self {
            Self::Leaf(bytes) => return out.extend_from_slice(bytes),
            Self::Array(wide, items) => (*wide, items.len(), false),
            Self::Map(wide, entries) => (*wide, entries.len(), true),
        };
        let small = u8::try_from(count).unwrap();
        match (json, wide, is_map) {
            (true, _, false) => out.push(b'['),
            (true, _, true) => out.push(b'{'),
            (_, true, false) => out.extend([0xDD, 0, 0, 0, small]),
            (_, true, true) => out.extend([0xDF, 0, 0, 0, small]),
            (_, false, false) => out.push(0x90 | small),
            (_, false, true) => out.push(0x80 | small),
        }
        let comma = |index, out: &mut Vec<u8>| {
            if json && index > 0 {
                out.push(b',');
            }
        };
        match self {
            Self::Leaf(_) => {}
            Self::Array(_, items) => {
                for (index, item) in items.iter().enumerate() {
                    comma(index, out);
                    item.write(codec, out);
                }
            }
            Self::Map(_, entries) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    comma(index, out);
                    out.extend_from_slice(key);
                    if json {
                        out.push(b':');
                    }
                    value.write(codec, out);
                }
            }
        }
        match (json, is_map) {
            (true, false) => out.push(b']'),
            (true, true) => out.push(b'}'),
            _ => {}
        }
    }

    /// The pointers of all parts that a pointer can name.
    pub(super) fn pointers(&self, codec: Codec, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match self {
            Self::Leaf(_) => {}
            Self::Array(_, items) => {
                for (index, item) in items.iter().enumerate() {
                    item.pointers(codec, &format!("{at}/{index}"), all);
                }
            }
            Self::Map(_, entries) => {
                for (key, value) in entries {
                    if let Some(name) = node::name(key, codec) {
                        value.pointers(codec, &pointer::join(at, &name), all);
                    }
                }
            }
        }
    }

    /// Changes the child that a pointer names, in its parent.
    pub(super) fn change(&mut self, codec: Codec, path: &[String], new: Option<&Model>) {
        let Some((part, rest)) = path.split_first() else {
            *self = new.unwrap().clone();
            return;
        };
        let removes = rest.is_empty() && new.is_none();
        match self {
            Self::Leaf(_) => panic!("a leaf has no children"),
            Self::Array(wide, items) => {
                let index: usize = part.parse().unwrap();
                if removes {
                    // Another length is written in its shortest form.
                    *wide = false;
                    items.remove(index);
                } else {
                    items[index].change(codec, rest, new);
                }
            }
            Self::Map(wide, entries) => {
                let named =
                    |(key, _): &(Vec<u8>, Model)| node::name(key, codec).as_ref() == Some(part);
                let index = entries.iter().position(named).unwrap();
                if removes {
                    *wide = false;
                    entries.remove(index);
                } else {
                    entries[index].1.change(codec, rest, new);
                }
            }
        }
    }
}

/// Leaves that a way through JSON would change: wide integers, single floats, binaries,
/// extensions, invalid text; numbers of many digits and escapes.
fn leaves(codec: Codec) -> impl Strategy<Value = Vec<u8>> {
    let packed: &[&[u8]] = &[
        b"\xc0",
        b"\xc3",
        b"\x07",
        b"\xcf\0\0\0\0\0\0\0\x07",
        b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xca\x3d\xcc\xcc\xcd",
        b"\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a",
        b"\xc4\x03\0\xff\x07",
        b"\xc4\0",
        b"\xd4\x05\x01",
        b"\xc7\x03\xff\x01\x02\x03",
        b"\xd9\x01a",
        b"\xa2hi",
    ];
    let json: &[&[u8]] = &[
        b"null",
        b"true",
        b"-0",
        b"1.50",
        b"1E+2",
        b"123456789012345678901234567890.5",
        b"1e-999",
        b"\"\\u0061\\/\"",
        b"\"\xc3\xa9\"",
    ];
    let all = if codec == Codec::Json { json } else { packed };
    let all: Vec<Vec<u8>> = all.iter().map(|leaf| leaf.to_vec()).collect();
    proptest::sample::select(all)
}

/// The encoded key of the entry at an index: text, text in a longer form, a number, a binary.
fn key(codec: Codec, index: usize, kind: u8) -> Vec<u8> {
    let digit = b'0' + u8::try_from(index).unwrap();
    match (codec, kind % 4) {
        (Codec::Json, 0) => vec![b'"', b'k', digit, b'"'],
        (Codec::Json, _) => [&b"\"\\u007e/"[..], &[digit, b'"']].concat(),
        (_, 0) => vec![0xA2, b'k', digit],
        (_, 1) => vec![0xDA, 0, 2, b'k', digit],
        (_, 2) => vec![0xCD, 0, digit],
        _ => vec![0xC4, 1, digit],
    }
}

fn models(codec: Codec, with_binary_keys: bool) -> impl Strategy<Value = Model> {
    let leaf = leaves(codec).prop_map(Model::Leaf);
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let kinds: u8 = if with_binary_keys { 4 } else { 3 };
        let entry = (0..kinds, inner.clone());
        prop_oneof![
            (any::<bool>(), prop::collection::vec(inner, 0..5))
                .prop_map(|(wide, items)| Model::Array(wide, items)),
            (any::<bool>(), prop::collection::vec(entry, 0..5)).prop_map(move |(wide, entries)| {
                let entries = entries.into_iter().enumerate();
                let entries = entries.map(|(at, (kind, value))| (key(codec, at, kind), value));
                Model::Map(wide, entries.collect())
            }),
        ]
    })
}

pub(super) fn both(with_binary_keys: bool) -> impl Strategy<Value = (Codec, Model)> {
    let of = move |codec| models(codec, with_binary_keys).prop_map(move |model| (codec, model));
    prop_oneof![of(Codec::Json), of(Codec::MessagePack)]
}
