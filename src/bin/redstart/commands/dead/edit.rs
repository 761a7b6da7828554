//! `dead edit`: a dead letter comes back with another content.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use redstart::store::{Limits, decode_entry};
use redstart::{
    Container, Envelope,
    dead_letters::DeadLetter,
    envelope::{Codec, RawPayload},
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::args::EditArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::shown;

pub(super) async fn run(
    args: &EditArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let given = Given::of(args)?;
    super::check(&args.of, container).await?;
    let dead = container.dead_letters();
    let (topic, group) = (&args.of.topic, &args.of.group);
    let found = dead.get(topic, group, &[args.id]).await?.pop();
    let Some(letter) = found else {
        let text = format!("{topic}/{group} has no dead letter {}", args.id);
        return Err(Failure::new(text));
    };
    let old = wire(&letter.envelope()?)?;
    let mut new = old.clone();
    match given {
        Given::Merge(patch) => json_patch::merge(&mut new, &patch),
        Given::Steps(steps) => json_patch::patch(&mut new, &steps)
            .map_err(|error| Failure::new(format!("the patch does not fit: {error}")))?,
        Given::Whole(value) => new = value,
        Given::Nothing => new = by_hand(&letter, &old, console)?,
    }
    if new == old {
        return Err(Failure::new("nothing was changed; nothing was done"));
    }
    let envelope = envelope(&letter, &new)
        .map_err(|rule| Failure::usage(format!("the edited message {rule}")))?;
    let by = super::operator(args.by.as_deref());
    let message = dead.edit(topic, group, args.id, envelope, &by).await?;
    if console.is_json() {
        console.json(&json!({ "message": message.to_string() }))?;
    } else {
        console.line(format_args!("redriven as message {message}"))?;
    }
    Ok(())
}

/// What to make of the envelope, as far as the command line says it.
enum Given {
    /// A JSON merge patch.
    Merge(Value),
    /// A JSON patch.
    Steps(json_patch::Patch),
    Whole(Value),
    Nothing,
}

impl Given {
    fn of(args: &EditArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.file {
            return Ok(Self::Whole(json(path)?));
        }
        let Some(path) = &args.patch else {
            return Ok(Self::Nothing);
        };
        let patch = json(path)?;
        if !patch.is_array() {
            return Ok(Self::Merge(patch));
        }
        let steps = serde_json::from_value(patch);
        let rule = |error| Failure::usage(format!("{} is no JSON patch: {error}", name(path)));
        steps.map(Self::Steps).map_err(rule)
    }
}

/// The envelope as it is on the wire, as a value.
fn wire(envelope: &Envelope) -> Result<Value, Failure> {
    let text = shown::wire(envelope).map_err(Failure::new)?;
    parse(text.get()).map_err(Failure::new)
}

fn parse(text: &str) -> Result<Value, String> {
    let not_json = |error| format!("is no JSON: {error}");
    let raw: Box<RawValue> = serde_json::from_str(text).map_err(not_json)?;
    // A payload stays JSON where MessagePack would round a number, and so would the value here.
    if RawPayload::encode(Codec::MessagePack, &raw).is_ok_and(|raw| raw.codec() == Codec::Json) {
        return Err("holds a number with more digits than an edit keeps".to_owned());
    }
    serde_json::from_str(text).map_err(not_json)
}

/// What a file of the command line holds.
fn json(path: &Path) -> Result<Value, Failure> {
    parse(&read(path)?).map_err(|rule| Failure::usage(format!("{} {rule}", name(path))))
}

fn name(path: &Path) -> String {
    if path.as_os_str() == "-" {
        return "the standard input".to_owned();
    }
    path.display().to_string()
}

fn read(path: &Path) -> Result<String, Failure> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// What a value says as an envelope, by the rules of the wire.
fn envelope(letter: &DeadLetter, value: &Value) -> Result<Envelope, String> {
    let text = value.to_string();
    let pairs = [(&b"json"[..], text.as_bytes())];
    let limits = Limits::default().with_max_bytes(usize::MAX);
    let decoded = decode_entry(&letter.topic, letter.history.origin, pairs, limits);
    decoded.map_err(|flaw| format!("is no envelope: {flaw}"))
}

/// Opens an editor, again and again until what comes out is an envelope or the user gives up.
fn by_hand(letter: &DeadLetter, old: &Value, console: &mut Console<'_>) -> Result<Value, Failure> {
    if !console.in_is_terminal() {
        let text = "there is no terminal for an editor; --patch and --file do without";
        return Err(Failure::usage(text));
    }
    let file = tempfile::Builder::new()
        .prefix("redstart-")
        .suffix(".json")
        .tempfile()?;
    let pretty =
        serde_json::to_string_pretty(old).map_err(|error| Failure::new(error.to_string()))?;
    fs::write(file.path(), pretty + "\n")?;
    loop {
        open_editor(file.path())?;
        let text = fs::read_to_string(file.path())?;
        let read = parse(&text).and_then(|new| envelope(letter, &new).map(|_| new));
        match read {
            Ok(new) => return Ok(new),
            Err(rule) => {
                console.remark(format_args!("what was written {rule}"));
                console.confirm("edit")?;
            }
        }
    }
}

fn open_editor(path: &Path) -> Result<(), Failure> {
    let set = |name| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    };
    let editor = set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned());
    // As git does: the variable may hold arguments, which a shell takes apart.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$@\""), "sh"])
        .arg(path)
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the editor {editor:?} failed; nothing was done"
    )))
}
