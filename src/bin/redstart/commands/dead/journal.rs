//! `dead journal`: who did what.

use redstart::{Container, Operation};
use serde::Serialize;

use crate::args::JournalArgs;
use crate::console::Console;
use crate::failure::Failure;

pub(super) async fn run(
    args: &JournalArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let all = container
        .dead_letters()
        .operations(&args.of.topic, &args.of.group)
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
    let row = |operation: &Operation| {
        let line = Line::of(operation);
        let dash = || "-".to_owned();
        vec![
            line.operation,
            line.begun.chars().take(19).collect(),
            line.action.to_owned(),
            if line.by.is_empty() {
                dash()
            } else {
                line.by.to_owned()
            },
            line.taken.to_string(),
            line.result
                .map_or_else(|| "runs, or was cut off".to_owned(), str::to_owned),
            line.selection.unwrap_or_else(dash),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = [
        "operation",
        "begun",
        "action",
        "by",
        "taken",
        "result",
        "which",
    ];
    Ok(console.table(&header, &rows, 4..5)?)
}

#[derive(Serialize)]
struct Line<'a> {
    operation: String,
    begun: String,
    action: &'a str,
    by: &'a str,
    selection: Option<String>,
    taken: u64,
    result: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(operation: &'a Operation) -> Self {
        Self {
            operation: operation.id.to_string(),
            begun: operation.begun.to_string(),
            action: &operation.action,
            by: &operation.by,
            selection: operation.selection.as_ref().map(ToString::to_string),
            taken: operation.taken,
            result: operation.result.as_deref(),
        }
    }
}
