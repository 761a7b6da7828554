//! `dead edit`: a dead letter comes back with a changed envelope.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use redstart::{
    Container, Envelope, Error,
    dead_letters::{DeadLetter, EnvelopeEdit},
    views::{envelope_json, pretty_json},
};
use serde_json::json;

use crate::args::EditArgs;
use crate::failure::Failure;
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &EditArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let change = given(args)?;
    let dead = super::dead_letters_of(&args.of, container).await?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    let letter = super::find(&args.of, args.id, &dead).await?;
    let old = letter.envelope()?;
    let new = match change {
        Some(change) => change.apply(&letter).map_err(Failure::of_edit)?,
        None => edit_in_editor(&letter, &old, terminal)?,
    };
    if new == old {
        return Err(Failure::new("the message is unchanged; nothing was done"));
    }
    let operator = super::operator(args.operator.as_deref());
    let message = dead.edit(topic, group, args.id, new, &operator).await?;
    if terminal.is_json() {
        terminal.json(&json!({ "messageId": message.to_string() }))?;
    } else {
        terminal.line(format_args!("redriven as message {message}"))?;
    }
    Ok(())
}

/// The change that the command line gives; without one the user makes it in an editor.
fn given(args: &EditArgs) -> Result<Option<EnvelopeEdit>, Failure> {
    let (path, change) = if let Some(path) = &args.file {
        (path, EnvelopeEdit::whole(&read(path)?))
    } else if let Some(path) = &args.patch {
        (path, EnvelopeEdit::patch(&read(path)?))
    } else {
        return Ok(None);
    };
    let named = |error: Error| Failure::usage(format!("{} {}", name(path), error.message()));
    change.map(Some).map_err(named)
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

/// Opens an editor until the file holds a valid envelope or the user gives up.
fn edit_in_editor(
    letter: &DeadLetter,
    old: &Envelope,
    terminal: &mut Terminal<'_>,
) -> Result<Envelope, Failure> {
    if !terminal.in_is_terminal() {
        let text = "stdin is not a terminal, so no editor can open; use --patch or --file";
        return Err(Failure::usage(text));
    }
    let file = tempfile::Builder::new()
        .prefix("redstart-")
        .suffix(".json")
        .tempfile()?;
    fs::write(file.path(), pretty_json(&envelope_json(old)?) + "\n")?;
    loop {
        open_editor(file.path())?;
        let text = fs::read_to_string(file.path())?;
        let rule = match EnvelopeEdit::whole(&text) {
            Ok(edit) => match edit.apply(letter) {
                Ok(new) => return Ok(new),
                Err(error) => error.message().to_owned(),
            },
            Err(error) => format!("the edited text {}", error.message()),
        };
        terminal.remark(format_args!("{rule}"));
        terminal.confirm_word("edit")?;
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
