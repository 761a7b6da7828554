//! `topics`: what the namespace holds.

use redstart::{Container, topics::TopicStatus};
use serde::Serialize;

use crate::console::Console;
use crate::failure::Failure;

pub(super) async fn run(container: &Container, console: &mut Console<'_>) -> Result<(), Failure> {
    let topics = container.topics().list().await?;
    if console.is_json() {
        let rows: Vec<Row<'_>> = topics.iter().map(object).collect();
        console.json(&rows)?;
        return Ok(());
    }
    if topics.is_empty() {
        console.remark("no topics; publishing and subscribing create one");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = topics.iter().map(row).collect();
    let header = ["topic", "retention", "groups", "entries", "backlog limit"];
    Ok(console.table(&header, &rows, 3..5)?)
}

/// `None` where the limit is switched off.
fn backlog_limit(status: &TopicStatus) -> Option<u64> {
    Some(status.settings.backlog_limit()).filter(|limit| *limit < u64::MAX)
}

fn groups(status: &TopicStatus) -> Vec<&str> {
    status.groups.iter().map(|row| row.group.as_str()).collect()
}

fn row(status: &TopicStatus) -> Vec<String> {
    let groups = groups(status);
    vec![
        status.topic.to_string(),
        status.settings.retention().to_string(),
        if groups.is_empty() {
            "-".to_owned()
        } else {
            groups.join(", ")
        },
        status.entries.to_string(),
        backlog_limit(status).map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
    ]
}

#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    entries: u64,
    retention: String,
    backlog_limit: Option<u64>,
    groups: Vec<&'a str>,
}

fn object(status: &TopicStatus) -> Row<'_> {
    Row {
        topic: status.topic.as_str(),
        entries: status.entries,
        retention: status.settings.retention().to_string(),
        backlog_limit: backlog_limit(status),
        groups: groups(status),
    }
}
