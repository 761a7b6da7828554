//! A change of an encoded value that touches only the parts it names.
//!
//! A message can hold values that JSON cannot: MessagePack binaries, extensions, map keys that are
//! not text, numbers of any length. A change that passes through JSON would alter them. This one
//! works on the encoded value itself, in either codec, and copies all other parts byte for byte.

mod equal;
mod json;
mod merge;
mod node;
mod pointer;
mod replace;
mod steps;

use serde_json::value::RawValue;

use self::node::Node;
use self::steps::Step;
use super::codec::Codec;
use super::msgpack::{Cursor, Item};
use super::payload::json_depth;

pub(crate) use self::json::pretty;

/// The deepest accepted nesting of a patch: a payload's, inside an envelope, inside a step.
const MAX_DEPTH: usize = super::msgpack::MAX_DEPTH + 3;

/// A change of an encoded value.
#[derive(Clone, Debug)]
pub(crate) enum Patch {
    /// A JSON merge patch, RFC 7396.
    Merge(Box<RawValue>),
    /// A JSON patch, RFC 6902.
    Steps(Vec<Step>),
    /// The JSON form that the value shall have.
    Whole(Box<RawValue>),
}

impl Patch {
    /// Reads a JSON patch (an array) or a JSON merge patch (any other value).
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw = parse(text)?;
        if !raw.get().starts_with('[') {
            return Ok(Self::Merge(raw));
        }
        let steps = serde_json::from_str(raw.get());
        steps
            .map(Self::Steps)
            .map_err(|error| format!("is not a JSON patch: {error}"))
    }

    /// Reads the JSON form that the value shall have.
    pub(crate) fn whole(text: &str) -> Result<Self, String> {
        parse(text).map(Self::Whole)
    }

    /// Applies the change to a checked value, whole or not at all.
    pub(crate) fn apply(&self, codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut root = Node::raw(bytes.to_vec());
        match self {
            Self::Merge(patch) => merge::merge(&mut root, codec, patch, "")?,
            Self::Steps(steps) => {
                for step in steps {
                    step.apply(&mut root, codec)?;
                }
            }
            Self::Whole(value) => replace::replace(&mut root, codec, value, "")?,
        }
        let new = root.into_bytes(codec);
        if matches!(self, Self::Whole(_))
            && foreign_values(codec, &new) < foreign_values(codec, bytes)
        {
            // The text may have moved it, and shows it as numbers: it would come back as an array.
            let rule =
                "the text moves or leaves out a MessagePack binary or extension; use a patch";
            return Err(rule.to_owned());
        }
        Ok(new)
    }
}

/// The number of values that JSON does not have.
fn foreign_values(codec: Codec, bytes: &[u8]) -> usize {
    let mut cursor = Cursor::new(bytes);
    let mut found = 0;
    while codec == Codec::MessagePack && !cursor.is_empty() {
        match cursor.item() {
            Ok(Item::Bytes(_) | Item::Ext(..)) => found += 1,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    found
}

fn parse(text: &str) -> Result<Box<RawValue>, String> {
    json_depth(text.as_bytes(), MAX_DEPTH).map_err(|_| "nests too deep".to_owned())?;
    serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::Value;

    use super::*;
    use crate::domain::RawPayload;

    /// A value with the encoded bytes of every leaf and key, to say what a change must produce.
    #[derive(Clone, Debug)]
    enum Model {
        Leaf(Vec<u8>),
        /// Whether MessagePack writes the length in its longest form, and the elements.
        Array(bool, Vec<Model>),
        Map(bool, Vec<(Vec<u8>, Model)>),
    }

    impl Model {
        fn bytes(&self, codec: Codec) -> Vec<u8> {
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
        fn pointers(&self, codec: Codec, at: &str, all: &mut Vec<String>) {
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
        fn change(&mut self, codec: Codec, path: &[String], new: Option<&Model>) {
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
                (any::<bool>(), prop::collection::vec(entry, 0..5)).prop_map(
                    move |(wide, entries)| {
                        let entries = entries.into_iter().enumerate();
                        let entries =
                            entries.map(|(at, (kind, value))| (key(codec, at, kind), value));
                        Model::Map(wide, entries.collect())
                    }
                ),
            ]
        })
    }

    fn both(with_binary_keys: bool) -> impl Strategy<Value = (Codec, Model)> {
        let of = move |codec| models(codec, with_binary_keys).prop_map(move |model| (codec, model));
        prop_oneof![of(Codec::Json), of(Codec::MessagePack)]
    }

    /// Applies one step and returns the new bytes.
    fn step(codec: Codec, bytes: &[u8], step: &Value) -> Result<Vec<u8>, String> {
        let text = Value::Array(vec![step.clone()]).to_string();
        Patch::parse(&text).unwrap().apply(codec, bytes)
    }

    fn msgpack_of(patch: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
        Patch::parse(patch)?.apply(Codec::MessagePack, bytes)
    }

    proptest! {
        #[test]
        fn a_replaced_part_leaves_every_other_byte((codec, model) in both(true), at in any::<Index>()) {
            let mut pointers = Vec::new();
            model.pointers(codec, "", &mut pointers);
            let path = at.get(&pointers);
            let change = serde_json::json!({"op": "replace", "path": path, "value": "new"});
            let new = match codec {
                Codec::Json => b"\"new\"".to_vec(),
                Codec::MessagePack => b"\xa3new".to_vec(),
            };
            let mut wanted = model.clone();
            wanted.change(codec, &pointer::parts(path).unwrap(), Some(&Model::Leaf(new)));
            prop_assert_eq!(step(codec, &model.bytes(codec), &change), Ok(wanted.bytes(codec)));
        }

        #[test]
        fn a_removed_part_leaves_every_other_byte((codec, model) in both(true), at in any::<Index>()) {
            let mut pointers = Vec::new();
            model.pointers(codec, "", &mut pointers);
            let path = at.get(&pointers);
            prop_assume!(!path.is_empty());
            let change = serde_json::json!({"op": "remove", "path": path});
            let mut wanted = model.clone();
            wanted.change(codec, &pointer::parts(path).unwrap(), None);
            prop_assert_eq!(step(codec, &model.bytes(codec), &change), Ok(wanted.bytes(codec)));
        }

        #[test]
        fn a_copied_part_is_the_same_bytes((codec, model) in both(true), at in any::<Index>()) {
            let mut pointers = Vec::new();
            model.pointers(codec, "", &mut pointers);
            let path = at.get(&pointers);
            let mut part = Node::raw(model.bytes(codec));
            let part = pointer::at(&mut part, codec, &pointer::parts(path).unwrap()).unwrap();
            let part = part.clone().into_bytes(codec);
            let change = serde_json::json!({"op": "copy", "from": path, "path": ""});
            prop_assert_eq!(step(codec, &model.bytes(codec), &change), Ok(part));
        }

        #[test]
        fn the_shown_text_changes_nothing((codec, model) in both(false)) {
            let bytes = model.bytes(codec);
            let shown = Node::raw(bytes.clone()).to_json(codec).unwrap();
            let text = pretty(shown.get());
            prop_assert_eq!(Patch::whole(&text).unwrap().apply(codec, &bytes), Ok(bytes));
        }

        #[test]
        fn an_edited_text_leaves_every_other_byte((codec, model) in both(false)) {
            let around = Model::Array(false, vec![model.clone(), Model::Leaf(model_one(codec))]);
            let shown = Node::raw(around.bytes(codec)).to_json(codec).unwrap();
            let text = shown.get().strip_suffix("1]").unwrap().to_owned() + "2]";
            let mut wanted = around.bytes(codec);
            let last = wanted.len() - if codec == Codec::Json { 2 } else { 1 };
            wanted[last] += 1;
            prop_assert_eq!(Patch::whole(&text).unwrap().apply(codec, &around.bytes(codec)), Ok(wanted));
        }

        #[test]
        fn no_patch_makes_it_panic(
            (codec, model) in both(true),
            op in "add|remove|replace|move|copy|test",
            path in "(/[k0-9~-]{0,3}){0,4}",
            from in "(/[k0-9~-]{0,3}){0,4}",
        ) {
            let change = serde_json::json!({"op": op, "path": path, "from": from, "value": {"k0": 1}});
            if let Ok(new) = step(codec, &model.bytes(codec), &change) {
                prop_assert!(RawPayload::checked(codec, new.into()).is_ok());
            }
        }
    }

    fn model_one(codec: Codec) -> Vec<u8> {
        match codec {
            Codec::Json => b"1".to_vec(),
            Codec::MessagePack => vec![1],
        }
    }

    #[test]
    fn a_merge_patch_follows_its_standard() {
        // The examples of RFC 7396, appendix A.
        for (old, patch, new) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (r#"{"a":"foo"}"#, "null", "null"),
        ] {
            let made = Patch::parse(patch)
                .unwrap()
                .apply(Codec::Json, old.as_bytes());
            assert_eq!(made, Ok(new.as_bytes().to_vec()), "{old} {patch}");
            let packed = |text: &str| {
                let raw = RawPayload::walked(Codec::Json, text.as_bytes().to_vec().into());
                raw.to_codec(Codec::MessagePack)
                    .unwrap()
                    .as_bytes()
                    .to_vec()
            };
            assert_eq!(
                msgpack_of(patch, &packed(old)),
                Ok(packed(new)),
                "{old} {patch}"
            );
        }
    }

    #[test]
    fn steps_follow_their_standard() {
        for (old, steps, new) in [
            (
                "[1,3]",
                r#"[{"op":"add","path":"/1","value":2}]"#,
                "[1,2,3]",
            ),
            (
                "[1]",
                r#"[{"op":"add","path":"/-","value":null}]"#,
                "[1,null]",
            ),
            (
                r#"{"a":{"x":1},"b":{}}"#,
                r#"[{"op":"move","from":"/a/x","path":"/b/y"}]"#,
                r#"{"a":{},"b":{"y":1}}"#,
            ),
            (
                r#"{"a/b":1,"m~n":2}"#,
                r#"[{"op":"test","path":"/a~1b","value":1.0},{"op":"remove","path":"/m~0n"}]"#,
                r#"{"a/b":1}"#,
            ),
        ] {
            let made = Patch::parse(steps)
                .unwrap()
                .apply(Codec::Json, old.as_bytes());
            assert_eq!(made, Ok(new.as_bytes().to_vec()), "{steps}");
        }
        for (old, steps, rule) in [
            (
                "[1]",
                r#"[{"op":"add","path":"/2","value":2}]"#,
                "/2: the array is shorter",
            ),
            (
                "[1]",
                r#"[{"op":"remove","path":"/01"}]"#,
                "is not an index",
            ),
            (
                "{}",
                r#"[{"op":"remove","path":"/a"}]"#,
                "/a: the value has no such entry",
            ),
            ("{}", r#"[{"op":"add","path":"/a"}]"#, "has no value"),
            (
                "{}",
                r#"[{"op":"add","path":"a","value":1}]"#,
                "starts with /",
            ),
            (
                "{}",
                r#"[{"op":"add","path":"/a~","value":1}]"#,
                "writes ~ as ~0",
            ),
            (
                r#"{"a":{}}"#,
                r#"[{"op":"move","from":"/a","path":"/a/b"}]"#,
                "into itself",
            ),
            (
                "1",
                r#"[{"op":"add","path":"/a/b","value":1}]"#,
                "neither array nor map",
            ),
            ("[1]", r#"[{"op":"test","path":"/0","value":2}]"#, "differs"),
            (
                r#"{"a":1,"a":2}"#,
                r#"[{"op":"replace","path":"/a","value":3}]"#,
                "several keys \"a\"",
            ),
        ] {
            let rule_of = Patch::parse(steps)
                .unwrap()
                .apply(Codec::Json, old.as_bytes());
            let rule_of = rule_of.unwrap_err();
            assert!(rule_of.contains(rule), "{steps}: {rule_of}");
        }
    }

    #[test]
    fn values_that_json_lacks_are_kept_or_refused() {
        // {"b": <binary 0 255>, 5: "five", "n": 1}
        let old = b"\x83\xa1b\xc4\x02\0\xff\x05\xa4five\xa1n\x01";
        let new = msgpack_of(r#"{"n":2,"5":"V"}"#, old);
        assert_eq!(new.unwrap(), b"\x83\xa1b\xc4\x02\0\xff\x05\xa1V\xa1n\x02");
        for (patch, rule) in [
            (r#"{"b":{"x":1}}"#, "/b: the value is a MessagePack binary"),
            (r#"{"new":1}"#, "/new: the map has keys that are not text"),
            (
                r#"[{"op":"add","path":"/b/0","value":1}]"#,
                "leads into a MessagePack binary",
            ),
            (r#"{"n":1e400}"#, "/n: "),
            (
                r#"{"n":12345678901234567890123}"#,
                "MessagePack would round",
            ),
        ] {
            let refused = msgpack_of(patch, old).unwrap_err();
            assert!(refused.contains(rule), "{patch}: {refused}");
        }
        for (text, rule) in [
            (
                r#"{"b":[0,254],"5":"five","n":1}"#,
                "/b: the value is a MessagePack binary",
            ),
            (
                r#"{"5":"five","n":[0,255]}"#,
                "moves or leaves out a MessagePack binary",
            ),
            (r#"{"b":[0,255],"6":"five","n":1}"#, "/6: the map has keys"),
            (
                r#"{"b":[0,255],"b":[0,255],"5":"five","n":1}"#,
                "/b: the text has the key too often",
            ),
        ] {
            let refused = Patch::whole(text).unwrap().apply(Codec::MessagePack, old);
            let refused = refused.unwrap_err();
            assert!(refused.contains(rule), "{text}: {refused}");
        }
        let without = Patch::whole(r#"{"b":[0,255],"n":1}"#).unwrap();
        assert_eq!(
            without.apply(Codec::MessagePack, old).unwrap(),
            b"\x82\xa1b\xc4\x02\0\xff\xa1n\x01"
        );
        // A shorter array keeps its binaries.
        let array = b"\x94\xc4\x01\x01\x02\xc4\x01\x03\x04";
        let shorter = Patch::whole("[[1],[3],5]").unwrap();
        assert_eq!(
            shorter.apply(Codec::MessagePack, array).unwrap(),
            b"\x93\xc4\x01\x01\xc4\x01\x03\x05"
        );
    }

    #[test]
    fn a_patch_that_nests_too_deep_is_refused() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert_eq!(Patch::parse(&deep).unwrap_err(), "nests too deep");
    }
}
