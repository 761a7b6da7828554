//! `dead note`: an operator's note on a cause.

use redstart::dead_letters::{DeadLetterFilter, DeadLetters};
use redstart::{Container, Error, ErrorKind};

use crate::args::{GroupOf, NoteArgs};
use crate::escape;
use crate::failure::Failure;
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &NoteArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    let GroupOf { topic, group } = &args.of;
    let fingerprint = fingerprint(args, &dead).await?;
    let text = args.text.as_deref().unwrap_or_default();
    let operator = super::operator(args.operator.as_deref());
    let written = dead.set_note(topic, group, &fingerprint, text, &operator);
    written.await.map_err(Failure::of_arguments)?;
    if terminal.is_json() {
        let notes = dead.notes(topic, group).await?;
        let note = notes.iter().find(|note| note.fingerprint == fingerprint);
        return Ok(terminal.json(&note)?);
    }
    let done = if text.trim().is_empty() {
        "removed"
    } else {
        "written"
    };
    Ok(terminal.line(format_args!("note {done}"))?)
}

/// The fingerprint of the cause that `summary` shows in this form. A note on a cause that the group
/// does not have would show nowhere.
async fn fingerprint(args: &NoteArgs, dead: &DeadLetters) -> Result<String, Failure> {
    let GroupOf { topic, group } = &args.of;
    let given = args.fingerprint.as_str();
    let is_given = |known: &str| known == given || escape::text(known) == given;
    let causes = dead.causes(topic, group).await?;
    let causes = causes.into_iter().map(|cause| cause.fingerprint);
    let notes = dead.notes(topic, group).await?;
    let notes = notes.into_iter().map(|note| note.fingerprint);
    if let Some(known) = causes.chain(notes).find(|known| is_given(known)) {
        return Ok(known);
    }
    // A group can have more causes than it lists.
    let (filter, mut after) = (DeadLetterFilter::default().with_fingerprint(given), None);
    loop {
        let page = dead.list(topic, group, &filter, after, 1).await?;
        if let Some((_, letter)) = page.items.into_iter().next() {
            return Ok(letter.fingerprint);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let rule = format!(
        "no dead letter has this fingerprint; `redstart dead summary {topic} {group}` shows those \
         that they have"
    );
    let absent = Error::new(ErrorKind::NotFound, "cause", rule);
    Err(absent.on(format!("{given} of {topic}/{group}")).into())
}
