//! `dead journal`: who did what.

use redstart::{Container, dead_letters::JournalEntry};
use serde::Serialize;

use super::UNKNOWN;
use crate::args::JournalArgs;
use crate::console::Console;
use crate::escape;
use crate::failure::Failure;

pub(super) async fn run(
    args: &JournalArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let all = container
        .dead_letters()
        .journal(&args.of.topic, &args.of.group)
        .await?;
    if console.is_json() {
        for operation in &all {
            console.json(&Line::of(operation))?;
        }
        return Ok(());
    }
    if all.is_empty() {
        console.remark("nothing was done yet");
        return Ok(());
    }
    for operation in &all {
        let line = Line::of(operation);
        let by = if line.by.is_empty() { UNKNOWN } else { line.by };
        let which = line.selection.unwrap_or_else(|| "-".to_owned());
        let command = if line.action == "purge" {
            "purge"
        } else {
            "redrive"
        };
        let open = format!("runs, or was cut off and is gone on with by dead {command} --resume");
        let result = line.result.unwrap_or(&open);
        let taken = line.taken;
        for text in [
            format!("{}  {}", line.operation, line.begun),
            match line.to {
                Some(to) => format!("  {} to {to} by {by}: {which}", line.action),
                None => format!("  {} by {by}: {which}", line.action),
            },
            format!("  {taken} taken in all; {result}"),
        ] {
            console.line(escape::text(&text))?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Line<'a> {
    operation: String,
    begun: String,
    action: &'a str,
    to: Option<&'a str>,
    by: &'a str,
    selection: Option<String>,
    taken: u64,
    result: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(operation: &'a JournalEntry) -> Self {
        Self {
            operation: operation.id.to_string(),
            begun: operation.begun.to_string(),
            action: &operation.action,
            to: operation.to.as_ref().map(redstart::Topic::as_str),
            by: &operation.operator,
            selection: operation.selection.as_ref().map(ToString::to_string),
            taken: operation.taken,
            result: operation.result.as_deref(),
        }
    }
}
