//! `dead journal`: who did what.

use redstart::{Container, Group, Topic, dead_letters::JournalEntry};
use serde::Serialize;

use super::UNKNOWN;
use crate::args::JournalArgs;
use crate::escape;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// An operation, with its group where the list has several.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    of: Option<GroupOf<'a>>,
    #[serde(flatten)]
    entry: &'a JournalEntry,
}

#[derive(Serialize)]
struct GroupOf<'a> {
    topic: &'a Topic,
    group: &'a Group,
}

pub(super) async fn run(
    args: &JournalArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (groups, dead) = (groups(args, container).await?, container.dead_letters());
    let mut all = Vec::new();
    for (topic, group) in &groups {
        let entries = dead.journal(topic, group).await?;
        all.extend(entries.into_iter().map(|entry| (topic, group, entry)));
    }
    all.sort_by_key(|(_, _, entry)| (entry.begun, entry.id));
    all.drain(..all.len().saturating_sub(args.max));
    if !terminal.is_json() && all.is_empty() {
        terminal.remark("the journal is empty");
        return Ok(());
    }
    for (topic, group, entry) in &all {
        let of = args.group.is_none().then_some(GroupOf { topic, group });
        if terminal.is_json() {
            terminal.json(&Listed { of, entry })?;
            continue;
        }
        let mut lines = lines(entry);
        if of.is_some() {
            lines[0] = format!("{}  {topic}/{group}", lines[0]);
        }
        for text in lines {
            terminal.line(escape::text(&text))?;
        }
    }
    Ok(())
}

/// The groups whose journals are shown.
async fn groups(args: &JournalArgs, container: &Container) -> Result<Vec<(Topic, Group)>, Failure> {
    let topics = container.topics();
    let all = match (&args.topic, &args.group) {
        (Some(topic), Some(group)) => {
            vec![(topic.clone(), vec![topics.group(topic, group).await?])]
        }
        (Some(topic), None) => vec![(topic.clone(), topics.groups(topic).await?)],
        (None, _) => {
            let all = topics.list().await?.into_iter();
            all.map(|one| (one.topic, one.groups)).collect()
        }
    };
    let pairs = all.into_iter().flat_map(|(topic, groups)| {
        groups
            .into_iter()
            .map(move |status| (topic.clone(), status.group))
    });
    Ok(pairs.collect())
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
