//! `topics`: lists the topics of the namespace, and creates one.

use redstart::Container;
use redstart::topics::{TopicSettings, TopicStatus};
use redstart::views::ListedTopic;

use super::topic_change::{self, limit};
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
        Some(TopicsAction::Settings(args)) => {
            topic_change::settings(args, container, terminal).await
        }
        Some(TopicsAction::Remove(args)) => topic_change::remove(args, container, terminal).await,
        None => list(args, container, terminal).await,
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
        .with_backlog_limit(args.backlog_limit)
        .with_partitions(args.partitions);
    container.topics().create(topic, settings).await?;
    topic_change::tell(topic, &settings, terminal)
}

async fn list(
    args: &TopicsArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut all = container.topics().list().await?;
    let more = Terminal::cut(&mut all, args.max);
    let mut topics = Vec::new();
    for status in all {
        let primaries = container.topics().primaries(&status).await?;
        topics.push(ListedTopic { status, primaries });
    }
    if terminal.is_json() {
        return Ok(terminal.json(&topics)?);
    }
    if topics.is_empty() {
        terminal.remark("no topics; publishing or subscribing creates one");
        return Ok(());
    }
    // A column for what no topic has would be noise.
    let are_divided = topics
        .iter()
        .any(|one| one.status.settings.partitions() > 1);
    let is_cluster = topics.iter().any(|one| !one.primaries.is_empty());
    let mut header = HEADER.to_vec();
    header.extend(are_divided.then_some("partitions"));
    let numbers = 3..header.len();
    header.extend(is_cluster.then_some("primaries"));
    let rows = topics.iter().map(|one| {
        let mut row = row(&one.status);
        row.extend(are_divided.then(|| one.status.settings.partitions().to_string()));
        row.extend(is_cluster.then(|| one.primaries_in_words()));
        row
    });
    terminal.table(&header, &rows.collect::<Vec<_>>(), numbers)?;
    terminal.remark_more(more);
    Ok(())
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
