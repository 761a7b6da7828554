//! JSON patches, RFC 6902.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::equal::equal;
use super::node::{self, Node};
use super::pointer::{at, index, parts};
use crate::domain::codec::Codec;

/// One operation of a patch.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Step {
    op: Op,
    path: String,
    from: Option<String>,
    /// Present and `null` differs from absent.
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Step {
    pub(super) fn apply(&self, root: &mut Node, codec: Codec) -> Result<(), String> {
        self.run(root, codec)
            .map_err(|rule| format!("{:.200}: {rule}", self.path))
    }

    fn run(&self, root: &mut Node, codec: Codec) -> Result<(), String> {
        let path = parts(&self.path)?;
        match self.op {
            Op::Add => add(root, codec, &path, Node::of_json(self.value()?, codec)?),
            Op::Remove => remove(root, codec, &path).map(drop),
            Op::Replace => {
                *at(root, codec, &path)? = Node::of_json(self.value()?, codec)?;
                Ok(())
            }
            Op::Move => {
                let from = parts(self.from()?)?;
                if from.len() < path.len() && path.starts_with(&from) {
                    return Err("a value does not move into itself".to_owned());
                }
                let value = remove(root, codec, &from)?;
                add(root, codec, &path, value)
            }
            Op::Copy => {
                let value = at(root, codec, &parts(self.from()?)?)?.clone();
                add(root, codec, &path, value)
            }
            Op::Test => {
                let found = at(root, codec, &path)?.to_json(codec)?;
                if equal(found.get(), self.value()?.get())? {
                    return Ok(());
                }
                Err("the value differs from the tested one".to_owned())
            }
        }
    }

    fn value(&self) -> Result<&RawValue, String> {
        self.value
            .as_deref()
            .ok_or_else(|| "the step has no value".to_owned())
    }

    fn from(&self) -> Result<&str, String> {
        self.from
            .as_deref()
            .ok_or_else(|| "the step has no from".to_owned())
    }
}

fn add(root: &mut Node, codec: Codec, path: &[String], value: Node) -> Result<(), String> {
    let Some((last, parents)) = path.split_last() else {
        *root = value;
        return Ok(());
    };
    let parent = at(root, codec, parents)?;
    parent.open(codec)?;
    match parent {
        Node::Array(_, items) => {
            let index = if last == "-" {
                items.len()
            } else {
                index(last)?
            };
            if index > items.len() {
                return Err("the array is shorter".to_owned());
            }
            items.insert(index, value);
        }
        Node::Map(_, entries) => match node::find(entries, codec, last)? {
            Some(found) => entries[found].1 = value,
            None => {
                let key = node::new_key(entries, codec, last)?;
                entries.push((key, value));
            }
        },
        Node::Raw(_) => return Err(no_parent(parent, codec)),
    }
    Ok(())
}

fn remove(root: &mut Node, codec: Codec, path: &[String]) -> Result<Node, String> {
    let (last, parents) = path
        .split_last()
        .ok_or("the whole value cannot be removed")?;
    let parent = at(root, codec, parents)?;
    parent.open(codec)?;
    match parent {
        Node::Array(_, items) => {
            let index = index(last)?;
            if index >= items.len() {
                return Err("the array is shorter".to_owned());
            }
            Ok(items.remove(index))
        }
        Node::Map(_, entries) => {
            let found = node::find(entries, codec, last)?;
            Ok(entries
                .remove(found.ok_or("the value has no such entry")?)
                .1)
        }
        Node::Raw(_) => Err(no_parent(parent, codec)),
    }
}

fn no_parent(parent: &Node, codec: Codec) -> String {
    match parent.foreign(codec) {
        Some(kind) => format!("it leads into {kind}"),
        None => "the value there is neither array nor map".to_owned(),
    }
}
