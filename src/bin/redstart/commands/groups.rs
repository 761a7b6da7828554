//! `groups`: the status of the groups.

use redstart::{Container, Topic, topics::GroupStatus, views::ListedGroup};

use super::group_remove;
use crate::args::{GroupsAction, GroupsArgs};
use crate::duration;
use crate::failure::Failure;
use crate::terminal::Terminal;

const HEADER: [&str; 8] = [
    "topic",
    "group",
    "lag",
    "in flight",
    "oldest",
    "scheduled",
    "dead",
    "consumers",
];

pub(super) async fn run(
    args: &GroupsArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if let Some(GroupsAction::Remove(args)) = &args.action {
        return group_remove::run(args, container, terminal).await;
    }
    let topics = container.topics();
    let all: Vec<(Topic, Vec<GroupStatus>)> = match &args.topic {
        Some(topic) => vec![(topic.clone(), topics.groups(topic).await?)],
        None => {
            let all = topics.list().await?.into_iter();
            all.map(|one| (one.topic, one.groups)).collect()
        }
    };
    let mut groups = Vec::new();
    for (topic, status) in &all {
        let ages = topics.ages(topic).await?;
        let listed = status
            .iter()
            .map(|status| ListedGroup::new(topic, status, &ages));
        groups.extend(listed);
    }
    if terminal.is_json() {
        return Ok(terminal.json(&groups)?);
    }
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    if rows.is_empty() {
        terminal.remark("no groups; subscribing creates one");
        return Ok(());
    }
    Ok(terminal.table(&HEADER, &rows, 2..8)?)
}

fn row(group: &ListedGroup<'_>) -> Vec<String> {
    let status = group.status();
    vec![
        group.topic().to_string(),
        status.group.to_string(),
        status.lag.to_string(),
        status.in_flight.to_string(),
        group
            .oldest()
            .map_or_else(|| "-".to_owned(), duration::short),
        status.scheduled.to_string(),
        status.dead.to_string(),
        status.consumers.to_string(),
    ]
}
