//! `dead journal`: who did what.

use redstart::{Container, dead_letters::JournalEntry};

use super::UNKNOWN;
use crate::args::JournalArgs;
use crate::escape;
use crate::failure::Failure;
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &JournalArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    let mut all = dead.journal(&args.of.topic, &args.of.group).await?;
    let older = all.len().saturating_sub(args.max);
    all.drain(..older);
    if terminal.is_json() {
        return Ok(all.iter().try_for_each(|entry| terminal.json(entry))?);
    }
    if all.is_empty() {
        terminal.remark("the journal is empty");
        return Ok(());
    }
    for text in all.iter().flat_map(lines) {
        terminal.line(escape::text(&text))?;
    }
    Ok(())
}

fn lines(entry: &JournalEntry) -> Vec<String> {
    let action = &entry.action;
    let operator = Some(&*entry.operator).filter(|name| !name.is_empty());
    let operator = operator.unwrap_or(UNKNOWN);
    let selection = entry.selection.as_ref();
    let selection = selection.map_or_else(|| "-".to_owned(), ToString::to_string);
    let command = if action == "purge" {
        "purge"
    } else {
        "redrive"
    };
    let open = match action.as_str() {
        "edit" | "reset" | "settings" => "running or interrupted".to_owned(),
        _ => format!("running or interrupted; dead {command} --resume continues it"),
    };
    if let Some(to) = &entry.reset_to {
        return vec![
            format!("{}  {}", entry.id, entry.begun),
            format!("  reset to {to} by {operator}"),
            format!("  {}", entry.result.as_ref().unwrap_or(&open)),
        ];
    }
    if action == "settings" {
        return vec![
            format!("{}  {}", entry.id, entry.begun),
            format!("  settings by {operator}: {}", entry.note),
            format!("  {}", entry.result.as_ref().unwrap_or(&open)),
        ];
    }
    let to = entry.to.as_ref().map(|to| format!(" to {to}"));
    let mut lines = vec![
        format!("{}  {}", entry.id, entry.begun),
        format!(
            "  {action}{} by {operator}: {selection}",
            to.unwrap_or_default()
        ),
        format!(
            "  {} taken in all; {}",
            entry.taken,
            entry.result.as_ref().unwrap_or(&open)
        ),
    ];
    if !entry.note.is_empty() {
        lines.push(format!("  note: {}", entry.note));
    }
    lines
}
