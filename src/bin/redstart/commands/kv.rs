//! `kv`: values of the key-value store.

use std::collections::HashSet;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use redstart::views::{LISTED_BYTES, ListedValue, OnceState};
use redstart::{Container, Error, ErrorKind, Kv};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::args::{CasArgs, DeleteArgs, Form, GetArgs, KvAction, KvArgs, KvListArgs, SetArgs};
use crate::failure::{FAILED, Failure, chain, written};
use crate::table::Table;
use crate::terminal::Terminal;
use crate::{duration, escape, hex};

/// The longest value that is read from the standard input, in bytes: what a server accepts as one
/// string by default, less the few bytes that encoding a text adds.
const LONGEST: u64 = 512 * 1024 * 1024 - 64;

/// How many keys a listing asks for at once.
const PAGE: usize = 500;

/// How many characters of a value a list shows.
const VALUE: usize = 60;

pub(super) async fn run(
    args: &KvArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let kv = container.kv();
    match &args.action {
        KvAction::List(args) => list(args, &kv, terminal).await,
        KvAction::Get(args) => get(args, &kv, terminal).await,
        KvAction::Set(args) => set(args, &kv, terminal).await,
        KvAction::Delete(args) => delete(args, &kv, terminal).await,
        KvAction::Cas(args) => cas(args, &kv, terminal).await,
    }
}

async fn list(args: &KvListArgs, kv: &Kv, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let header = ["key", "form", "bytes", "expires in", "value"];
    let mut table = Table::new(&header, 2..3);
    let (mut seen, mut from, mut more) = (HashSet::new(), None, false);
    loop {
        // One more than asked for tells whether there are more.
        let wanted = (args.max - seen.len()).saturating_add(1).min(PAGE);
        let page = kv.keys(&args.prefix, from.as_ref(), wanted).await?;
        let mut keys: Vec<String> = page.keys;
        keys.retain(|key| !seen.contains(key));
        keys.sort_unstable();
        more |= keys.len() > args.max - seen.len();
        keys.truncate(args.max - seen.len());
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let peeked = kv.port().peek_bytes(&names, LISTED_BYTES).await?;
        // A value that has expired meanwhile is left out.
        let found = names.iter().zip(peeked);
        let found = found.filter_map(|(key, peeked)| Some(ListedValue::new(*key, peeked?)));
        let found: Vec<ListedValue> = found.collect();
        if terminal.is_json() {
            for value in &found {
                terminal.json(value)?;
            }
        } else if !found.is_empty() {
            let rows: Vec<Vec<String>> = found.iter().map(row).collect();
            terminal.rows(&mut table, &rows)?;
        }
        seen.extend(keys);
        from = page.next;
        if from.is_none() || more {
            break;
        }
    }
    if more {
        terminal.remark(format_args!(
            "more than {}; raise --max to see them",
            args.max
        ));
    } else if seen.is_empty() && !terminal.is_json() {
        terminal.remark(match args.prefix.as_str() {
            "" => "no keys".to_owned(),
            prefix => format!("no key begins with {prefix:?}"),
        });
    }
    Ok(())
}

fn row(value: &ListedValue) -> Vec<String> {
    let expires = value.expires_in_ms().map(Duration::from_millis);
    vec![
        value.key().to_owned(),
        value.form().to_owned(),
        value.bytes().to_string(),
        expires.map_or_else(|| "never".to_owned(), duration::short),
        value.excerpt(VALUE),
    ]
}

async fn get(args: &GetArgs, kv: &Kv, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let key = &args.key[..];
    if args.raw {
        let bytes = stored(kv, key).await?.ok_or_else(|| absent(key))?;
        if terminal.is_json() {
            terminal.json(&json!({ "key": key, "hex": hex::word(&bytes) }))?;
        } else if terminal.out_is_terminal() {
            for line in hex::view(&bytes) {
                terminal.line(line)?;
            }
        } else {
            terminal.bytes(&bytes)?;
        }
        return Ok(());
    }
    let found: Result<Option<Box<RawValue>>, Error> = kv.get(key).await;
    let value = match found {
        Ok(found) => found.ok_or_else(|| absent(key))?,
        Err(error) if error.kind() == ErrorKind::Decode => {
            let bytes = stored(kv, key).await?;
            return match bytes.as_deref().and_then(OnceState::of) {
                Some(state) => show_once(key, &state, terminal),
                None => Err(Failure::new(format!(
                    "{}; --raw shows its bytes",
                    chain(&error)
                ))),
            };
        }
        Err(error) => return Err(error.into()),
    };
    if terminal.is_json() {
        terminal.json(&json!({ "key": key, "value": value }))?;
    } else {
        terminal.json(&value)?;
    }
    Ok(())
}

async fn stored(kv: &Kv, key: &str) -> Result<Option<Bytes>, Failure> {
    let found = kv.port().get_bytes(&[key]).await?;
    Ok(found.into_iter().next().flatten())
}

/// A key of `once` holds a claim: an operator asks whether the work was done, and with which result.
fn show_once(key: &str, state: &OnceState, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let OnceState { once, result } = state;
    if terminal.is_json() {
        terminal.json(&json!({ "key": key, "once": once, "result": result }))?;
        return Ok(());
    }
    match result {
        Some(result) => {
            let result = escape::to_json(result)?;
            terminal.line(format_args!("once: {once}, {result}"))?;
        }
        None => terminal.line(format_args!("once: {once}"))?,
    }
    Ok(())
}

async fn set(args: &SetArgs, kv: &Kv, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let text = match &args.value {
        Some(text) => text.clone(),
        None => input(std::io::stdin(), LONGEST)?,
    };
    let value = args.form.value("the value", &text)?;
    let stored = match args.form.ttl {
        Some(ttl) => kv.set_with_ttl(&args.key, &value, ttl).await,
        None => kv.set(&args.key, &value).await,
    };
    stored.map_err(Failure::of_arguments)?;
    if terminal.is_json() {
        terminal.json(&json!({ "set": args.key }))?;
    }
    Ok(())
}

async fn delete(args: &DeleteArgs, kv: &Kv, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let (mut deleted, mut missing) = (Vec::new(), Vec::new());
    for key in &args.keys {
        let list = if kv.delete(key).await? {
            &mut deleted
        } else {
            &mut missing
        };
        list.push(&key[..]);
    }
    let mut told = Ok(());
    if terminal.is_json() {
        told = terminal.json(&json!({ "deleted": deleted, "absent": missing }));
    }
    if missing.is_empty() {
        return Ok(told?);
    }
    terminal.remark(format_args!("absent: {}", missing.join(", ")));
    written(told, Err(Failure::Said(FAILED)))
}

async fn cas(args: &CasArgs, kv: &Kv, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let expected = match &args.expect {
        Some(text) => Some(args.form.value("the expected value", text)?),
        None => None,
    };
    let new = args.form.value("the value", &args.value)?;
    let swapped = kv
        .cas(&args.key, expected.as_ref(), &new, args.form.ttl)
        .await
        .map_err(Failure::of_arguments)?;
    let mut told = Ok(());
    if terminal.is_json() {
        told = terminal.json(&json!({ "swapped": swapped }));
    }
    if swapped {
        return Ok(told?);
    }
    terminal.remark("not swapped: the value differs from the expected one");
    written(told, Err(Failure::Said(FAILED)))
}

fn absent(key: &str) -> Failure {
    Error::new(ErrorKind::NotFound, "key", "does not exist")
        .on(key)
        .into()
}

/// Reads the whole input, or refuses it.
fn input(reader: impl Read, longest: u64) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    reader.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        let rule = format!("the standard input is longer than {longest} bytes; nothing was stored");
        return Err(Failure::usage(rule));
    }
    String::from_utf8(bytes)
        .map_err(|error| Failure::usage(format!("the standard input is not UTF-8: {error}")))
}

impl Form {
    /// A text of the command line as JSON, with every digit of its numbers.
    fn value(&self, what: &str, text: &str) -> Result<Box<RawValue>, Failure> {
        let parsed = if self.text {
            to_raw_value(text)
        } else {
            serde_json::from_str(text)
        };
        parsed.map_err(|error| {
            Failure::usage(format!(
                "{what} is not JSON: {error}; pass --text to store it as text"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_whole_or_refused() {
        assert_eq!(input(&b"12345"[..], 5).ok().as_deref(), Some("12345"));
        assert!(input(&b"123456"[..], 5).is_err());
        assert!(input("1234é".as_bytes(), 5).is_err());
        assert!(input(&b"\xff"[..], 5).is_err());
    }
}
