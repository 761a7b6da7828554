//! JSON pointers, RFC 6901.

use super::node::{self, Node};
use crate::domain::codec::Codec;

/// The parts of a pointer, unescaped.
pub(super) fn parts(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err("a path starts with /".to_owned());
    };
    rest.split('/').map(unescape).collect()
}

fn unescape(part: &str) -> Result<String, String> {
    let plain = part.replace("~0", "").replace("~1", "");
    if plain.contains('~') {
        return Err("a path writes ~ as ~0 and / as ~1".to_owned());
    }
    Ok(part.replace("~1", "/").replace("~0", "~"))
}

/// Writes one part behind a pointer.
pub(super) fn join(pointer: &str, part: &str) -> String {
    format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1"))
}

/// The part of the value at a path, whose parents are opened.
pub(super) fn at<'n>(
    mut node: &'n mut Node,
    codec: Codec,
    path: &[String],
) -> Result<&'n mut Node, String> {
    for part in path {
        node.open(codec)?;
        if let Some(kind) = node.foreign(codec) {
            return Err(format!("it leads into {kind}"));
        }
        node = match node {
            Node::Array(_, items) => {
                let index = index(part)?;
                items.get_mut(index).ok_or("the array is shorter")?
            }
            Node::Map(_, entries) => {
                let found = node::find(entries, codec, part)?;
                &mut entries[found.ok_or("the value has no such entry")?].1
            }
            Node::Raw(_) => return Err("the value there is neither array nor map".to_owned()),
        };
    }
    Ok(node)
}

/// An index of an array.
pub(super) fn index(part: &str) -> Result<usize, String> {
    let is_plain =
        part == "0" || (!part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit()));
    let index = if is_plain { part.parse().ok() } else { None };
    index.ok_or_else(|| format!("{part:.40?} is not an index"))
}
