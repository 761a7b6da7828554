//! JSON merge patches, RFC 7396.

use serde_json::value::RawValue;

use super::json::{self, Opened};
use super::node::{self, Node};
use super::pointer::join;
use crate::domain::codec::Codec;

pub(super) fn merge(
    target: &mut Node,
    codec: Codec,
    patch: &RawValue,
    path: &str,
) -> Result<(), String> {
    let on = |rule: String| format!("{path:.200}: {rule}");
    let Opened::Object(changes) = json::open(patch.get())? else {
        *target = Node::of_json(patch, codec).map_err(on)?;
        return Ok(());
    };
    if let Some(kind) = target.foreign(codec) {
        return Err(on(format!(
            "the value is {kind}, which an object cannot patch"
        )));
    }
    target.open(codec)?;
    if !matches!(target, Node::Map(..)) {
        *target = Node::empty_map(codec);
        target.open(codec)?;
    }
    let Node::Map(_, entries) = target else {
        return Err(on("the value is not a map".to_owned()));
    };
    for (name, change) in changes {
        let path = join(path, &name);
        let on = |rule: String| format!("{path:.200}: {rule}");
        let found = node::find(entries, codec, &name).map_err(on)?;
        match (found, change.get()) {
            (Some(at), "null") => drop(entries.remove(at)),
            (None, "null") => {}
            (Some(at), _) => merge(&mut entries[at].1, codec, change, &path)?,
            (None, _) => {
                let key = node::new_key(entries, codec, &name).map_err(on)?;
                // An object of a patch loses its nulls also where it is new.
                let mut value = Node::empty_map(codec);
                merge(&mut value, codec, change, &path)?;
                entries.push((key, value));
            }
        }
    }
    Ok(())
}
