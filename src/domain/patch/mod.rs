//! A change of an encoded value that touches only the parts it names.
//!
//! A message can hold values that JSON cannot: MessagePack binaries, extensions, map keys that are
//! not text, numbers of any length. A change that passes through JSON would alter them. This one
//! works on the encoded value itself, in either codec, and copies all other parts byte for byte.

mod equal;
mod json;
mod merge;
#[cfg(test)]
mod model;
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

    use super::model::{Model, both};
    use super::*;
    use crate::domain::RawPayload;

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
