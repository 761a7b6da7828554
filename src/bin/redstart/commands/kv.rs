//! `kv`: values of the key-value store.

use std::io::Read as _;

use redstart::{Container, Kv};
use serde_json::{Value, json};

use crate::args::{CasArgs, DelArgs, Form, GetArgs, KvAction, KvArgs, SetArgs};
use crate::console::Console;
use crate::failure::{FAILED, Failure, chain};
use crate::shown;

/// The most that is read of the standard input, in bytes; what a string of the server holds.
const LONGEST: u64 = 512 * 1024 * 1024;

pub(super) async fn run(
    args: &KvArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let kv = container.kv();
    match &args.action {
        KvAction::Get(args) => get(args, &kv, console).await,
        KvAction::Set(args) => set(args, &kv, console).await,
        KvAction::Del(args) => del(args, &kv, console).await,
        KvAction::Cas(args) => cas(args, &kv, console).await,
    }
}

async fn get(args: &GetArgs, kv: &Kv, console: &mut Console<'_>) -> Result<(), Failure> {
    let key = &args.key[..];
    if args.raw {
        let found = kv
            .port()
            .get_bytes(&[key])
            .await?
            .into_iter()
            .next()
            .flatten();
        let bytes = found.ok_or_else(|| absent(key))?;
        if console.is_json() {
            console.json(&json!({ "key": key, "hex": shown::hex(&bytes) }))?;
        } else if console.out_is_terminal() {
            for line in shown::hex_view(&bytes) {
                console.line(line)?;
            }
        } else {
            console.bytes(&bytes)?;
        }
        return Ok(());
    }
    let found: Option<Value> = kv.get(key).await.map_err(|error| {
        let why = chain(&error);
        match error.kind() {
            redstart::ErrorKind::Decode => Failure::new(format!("{why}; --raw shows its bytes")),
            _ => error.into(),
        }
    })?;
    let value = found.ok_or_else(|| absent(key))?;
    if console.is_json() {
        console.json(&json!({ "key": key, "value": value }))?;
    } else {
        console.json(&value)?;
    }
    Ok(())
}

async fn set(args: &SetArgs, kv: &Kv, console: &mut Console<'_>) -> Result<(), Failure> {
    let text = match &args.value {
        Some(text) => text.clone(),
        None => input()?,
    };
    let value = args.form.value("the value", &text)?;
    let stored = match args.form.ttl {
        Some(ttl) => kv.set_with_ttl(&args.key, &value, ttl).await,
        None => kv.set(&args.key, &value).await,
    };
    stored.map_err(Failure::of_arguments)?;
    if console.is_json() {
        console.json(&json!({ "set": args.key }))?;
    }
    Ok(())
}

async fn del(args: &DelArgs, kv: &Kv, console: &mut Console<'_>) -> Result<(), Failure> {
    let (mut deleted, mut missing) = (Vec::new(), Vec::new());
    for key in &args.keys {
        let list = if kv.delete(key).await? {
            &mut deleted
        } else {
            &mut missing
        };
        list.push(&key[..]);
    }
    if console.is_json() {
        console.json(&json!({ "deleted": deleted, "absent": missing }))?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    console.remark(format_args!("absent: {}", missing.join(", ")));
    Err(Failure::Said(FAILED))
}

async fn cas(args: &CasArgs, kv: &Kv, console: &mut Console<'_>) -> Result<(), Failure> {
    let expected = match &args.expect {
        Some(text) => Some(args.form.value("what is expected", text)?),
        None => None,
    };
    let new = args.form.value("the value", &args.value)?;
    let swapped = kv
        .cas(&args.key, expected.as_ref(), &new, args.form.ttl)
        .await
        .map_err(Failure::of_arguments)?;
    if console.is_json() {
        console.json(&json!({ "swapped": swapped }))?;
    }
    if swapped {
        return Ok(());
    }
    console.remark("not swapped: it is not what was expected");
    Err(Failure::Said(FAILED))
}

fn absent(key: &str) -> Failure {
    Failure::new(format!("there is no key {key:?}"))
}

fn input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

impl Form {
    /// What a text on the command line says.
    fn value(&self, what: &str, text: &str) -> Result<Value, Failure> {
        if self.text {
            return Ok(Value::from(text));
        }
        serde_json::from_str(text).map_err(|error| {
            Failure::usage(format!(
                "{what} is no JSON: {error}; text is given with --text"
            ))
        })
    }
}
