//! `dead edit`: a dead letter comes back with a changed envelope.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use redstart::store::{Limits, decode_entry};
use redstart::{
    Container, Envelope,
    dead_letters::DeadLetter,
    envelope::{Codec, RawPayload},
    views::envelope_json,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::args::EditArgs;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// The fields of an envelope on the wire.
const FIELDS: [&str; 10] = [
    "id",
    "type",
    "ts",
    "corrId",
    "tenantId",
    "key",
    "headers",
    "payload",
    "attempts",
    "lastError",
];

pub(super) async fn run(
    args: &EditArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let change = Change::of(args)?;
    let dead = super::dead_letters_of(&args.of, container).await?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    let letter = super::find(&args.of, args.id, &dead).await?;
    let old = envelope_value(&letter.envelope()?)?;
    let mut new = old.clone();
    match change {
        Change::Merge(patch) => json_patch::merge(&mut new, &patch),
        Change::Steps(steps) => json_patch::patch(&mut new, &steps)
            .map_err(|error| Failure::new(format!("the patch does not apply: {error}")))?,
        Change::Whole(value) => new = value,
        Change::InEditor => new = edit_in_editor(&letter, &old, terminal)?,
    }
    if new == old {
        return Err(Failure::new("the message is unchanged; nothing was done"));
    }
    let envelope = no_new_field(&old, &new)
        .and_then(|()| envelope(&letter, &new))
        .map_err(|rule| Failure::usage(format!("the edited message {rule}")))?;
    let operator = super::operator(args.operator.as_deref());
    let message = dead
        .edit(topic, group, args.id, envelope, &operator)
        .await?;
    if terminal.is_json() {
        terminal.json(&json!({ "messageId": message.to_string() }))?;
    } else {
        terminal.line(format_args!("redriven as message {message}"))?;
    }
    Ok(())
}

/// How the command line changes the envelope.
enum Change {
    /// A JSON merge patch.
    Merge(Value),
    /// A JSON patch.
    Steps(json_patch::Patch),
    /// A whole envelope in place of it.
    Whole(Value),
    /// The user changes it in an editor.
    InEditor,
}

impl Change {
    fn of(args: &EditArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.file {
            return Ok(Self::Whole(json(path)?));
        }
        let Some(path) = &args.patch else {
            return Ok(Self::InEditor);
        };
        let patch = json(path)?;
        if !patch.is_array() {
            return Ok(Self::Merge(patch));
        }
        let steps = serde_json::from_value(patch);
        let rule = |error| Failure::usage(format!("{} is not a JSON patch: {error}", name(path)));
        steps.map(Self::Steps).map_err(rule)
    }
}

/// The envelope as the wire has it, as a JSON value.
fn envelope_value(envelope: &Envelope) -> Result<Value, Failure> {
    let text = envelope_json(envelope)?;
    parse(text.get()).map_err(Failure::new)
}

fn parse(text: &str) -> Result<Value, String> {
    let not_json = |error| format!("is not JSON: {error}");
    let raw: Box<RawValue> = serde_json::from_str(text).map_err(not_json)?;
    // A payload stays JSON where MessagePack would round a number, and so would the value here.
    if RawPayload::encode(Codec::MessagePack, &raw).is_ok_and(|raw| raw.codec() == Codec::Json) {
        return Err("holds a number with more digits than an edit keeps".to_owned());
    }
    serde_json::from_str(text).map_err(not_json)
}

/// The JSON of a file on the command line.
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

/// Reads a value as an envelope, by the rules of the wire.
fn envelope(letter: &DeadLetter, value: &Value) -> Result<Envelope, String> {
    let text = value.to_string();
    let pairs = [(&b"json"[..], text.as_bytes())];
    let limits = Limits::default().with_max_bytes(usize::MAX);
    let decoded = decode_entry(&letter.topic, letter.history.origin, pairs, limits);
    decoded.map_err(|flaw| format!("is not an envelope: {flaw}"))
}

/// Refuses a field that no envelope has, such as a misspelt one: the wire would keep it, and nobody
/// would read it. A field that the message has already may come from a newer version.
fn no_new_field(old: &Value, new: &Value) -> Result<(), String> {
    let fields = new.as_object().into_iter().flatten();
    let mut unknown = fields.map(|(name, _)| name.as_str());
    let is_new = |name: &&str| !FIELDS.contains(name) && old.get(*name).is_none();
    match unknown.find(is_new) {
        Some(name) => Err(format!("has an unknown field `{name}`")),
        None => Ok(()),
    }
}

/// Opens an editor until the file holds a valid envelope or the user gives up.
fn edit_in_editor(
    letter: &DeadLetter,
    old: &Value,
    terminal: &mut Terminal<'_>,
) -> Result<Value, Failure> {
    if !terminal.in_is_terminal() {
        let text = "stdin is not a terminal, so no editor can open; use --patch or --file";
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
        let read = parse(&text).and_then(|new| {
            no_new_field(old, &new)?;
            envelope(letter, &new).map(|_| new)
        });
        match read {
            Ok(new) => return Ok(new),
            Err(rule) => {
                terminal.remark(format_args!("the edited text {rule}"));
                terminal.confirm_word("edit")?;
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
    // The variable may hold arguments; a shell splits them, as it does for git.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$@\""), "sh"])
        .arg(path)
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the editor {editor:?} failed; nothing was changed"
    )))
}
