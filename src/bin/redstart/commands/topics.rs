//! `topics`: the topics of the namespace.

use redstart::{Container, topics::TopicStatus};

use crate::failure::Failure;
use crate::terminal::Terminal;

const HEADER: [&str; 5] = ["topic", "retention", "groups", "entries", "backlog limit"];

pub(super) async fn run(container: &Container, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let topics = container.topics().list().await?;
    if terminal.is_json() {
        return Ok(terminal.json(&topics)?);
    }
    if topics.is_empty() {
        terminal.remark("no topics; publishing or subscribing creates one");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = topics.iter().map(row).collect();
    Ok(terminal.table(&HEADER, &rows, 3..5)?)
}

fn row(status: &TopicStatus) -> Vec<String> {
    let groups: Vec<&str> = status.groups.iter().map(|one| one.group.as_str()).collect();
    let limit = status.settings.backlog_limit();
    vec![
        status.topic.to_string(),
        status.settings.retention().to_string(),
        if groups.is_empty() {
            "-".to_owned()
        } else {
            groups.join(", ")
        },
        status.entries.to_string(),
        if limit == u64::MAX {
            "none".to_owned()
        } else {
            limit.to_string()
        },
    ]
}
