//! `topics`: lists the topics of the namespace, and creates one.

use redstart::Container;
use redstart::topics::{TopicSettings, TopicStatus};
use redstart::views::OfTopic;

use crate::args::{CreateArgs, TopicsAction, TopicsArgs};
use crate::failure::Failure;
use crate::terminal::Terminal;

const HEADER: [&str; 6] = [
    "topic",
    "retention",
    "groups",
    "entries",
    "later",
    "backlog limit",
];

pub(super) async fn run(
    args: &TopicsArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match &args.action {
        Some(TopicsAction::Create(args)) => create(args, container, terminal).await,
        None => list(container, terminal).await,
    }
}

async fn create(
    args: &CreateArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let topic = &args.topic;
    let settings = TopicSettings::default()
        .with_retention(args.retention)
        .with_backlog_limit(args.backlog_limit);
    container.topics().create(topic, settings).await?;
    if terminal.is_json() {
        return Ok(terminal.json(&OfTopic {
            topic,
            value: &settings,
        })?);
    }
    let (retention, limit) = (settings.retention(), limit(&settings));
    let text = format!("topic {topic}: retention {retention}, backlog limit {limit}");
    Ok(terminal.line(text)?)
}

async fn list(container: &Container, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let topics = container.topics().list().await?;
    if terminal.is_json() {
        return Ok(terminal.json(&topics)?);
    }
    if topics.is_empty() {
        terminal.remark("no topics; publishing or subscribing creates one");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = topics.iter().map(row).collect();
    Ok(terminal.table(&HEADER, &rows, 3..6)?)
}

fn row(status: &TopicStatus) -> Vec<String> {
    let groups: Vec<&str> = status.groups.iter().map(|one| one.group.as_str()).collect();
    vec![
        status.topic.to_string(),
        status.settings.retention().to_string(),
        if groups.is_empty() {
            "-".to_owned()
        } else {
            groups.join(", ")
        },
        status.entries.to_string(),
        status.later.to_string(),
        limit(&status.settings),
    ]
}

fn limit(settings: &TopicSettings) -> String {
    match settings.backlog_limit() {
        u64::MAX => "none".to_owned(),
        limit => limit.to_string(),
    }
}
