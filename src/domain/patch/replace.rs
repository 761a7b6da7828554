//! A new JSON form of a value: only the parts that differ are rewritten.

use std::collections::{HashMap, VecDeque};

use serde_json::value::RawValue;

use super::equal::equal;
use super::json::{self, Opened};
use super::node::{self, Node};
use super::pointer::join;
use crate::domain::codec::Codec;

pub(super) fn replace(
    target: &mut Node,
    codec: Codec,
    new: &RawValue,
    path: &str,
) -> Result<(), String> {
    let on = |rule: String| format!("{path:.200}: {rule}");
    let old = target.to_json(codec).map_err(on)?;
    if equal(old.get(), new.get())? {
        return Ok(());
    }
    if let Some(kind) = target.foreign(codec) {
        let rule = "which this text cannot change; replace it with a patch";
        return Err(on(format!("the value is {kind}, {rule}")));
    }
    target.open(codec)?;
    match (&mut *target, json::open(new.get())?) {
        (Node::Array(_, items), Opened::Array(wanted)) => array(items, codec, &wanted, path),
        (Node::Map(_, entries), Opened::Object(wanted)) => map(entries, codec, wanted, path),
        _ => {
            *target = Node::of_json(new, codec).map_err(on)?;
            Ok(())
        }
    }
}

/// Changes an array of the same length element by element. Of another length it keeps each element
/// that the new array has in the same order, and writes the others anew.
fn array(
    items: &mut Vec<Node>,
    codec: Codec,
    wanted: &[&RawValue],
    path: &str,
) -> Result<(), String> {
    if items.len() == wanted.len() {
        for (index, (item, wanted)) in items.iter_mut().zip(wanted).enumerate() {
            replace(item, codec, wanted, &join(path, &index.to_string()))?;
        }
        return Ok(());
    }
    let on = |rule: String| format!("{path:.200}: {rule}");
    let shown = items.iter().map(|item| item.to_json(codec));
    let shown: Vec<Box<RawValue>> = shown.collect::<Result<_, _>>().map_err(on)?;
    let mut kept = Vec::with_capacity(wanted.len());
    let mut from = 0;
    for one in wanted {
        let mut same = None;
        for (at, old) in shown.iter().enumerate().skip(from) {
            if equal(old.get(), one.get())? {
                same = Some(at);
                break;
            }
        }
        if let Some(at) = same {
            kept.push(items[at].clone());
            from = at + 1;
        } else {
            kept.push(Node::of_json(one, codec).map_err(on)?);
        }
    }
    *items = kept;
    Ok(())
}

/// Changes the entries of a map by their names; equal names in their order.
fn map(
    entries: &mut Vec<(Vec<u8>, Node)>,
    codec: Codec,
    wanted: Vec<(String, &RawValue)>,
    path: &str,
) -> Result<(), String> {
    let mut places: HashMap<String, VecDeque<usize>> = HashMap::new();
    for (at, (key, _)) in entries.iter().enumerate() {
        if let Some(name) = node::name(key, codec) {
            places.entry(name).or_default().push_back(at);
        }
    }
    let mut kept = vec![false; entries.len()];
    for (name, value) in wanted {
        let path = join(path, &name);
        let on = |rule: String| format!("{path:.200}: {rule}");
        match places.get_mut(&name).map(VecDeque::pop_front) {
            Some(Some(at)) => {
                replace(&mut entries[at].1, codec, value, &path)?;
                kept[at] = true;
            }
            Some(None) => return Err(on("the text has the key too often".to_owned())),
            None => {
                let key = node::new_key(&entries[..kept.len()], codec, &name).map_err(on)?;
                entries.push((key, Node::of_json(value, codec).map_err(on)?));
                places.insert(name, VecDeque::new());
            }
        }
    }
    let mut at = 0;
    entries.retain(|_| {
        at += 1;
        kept.get(at - 1).copied().unwrap_or(true)
    });
    Ok(())
}
