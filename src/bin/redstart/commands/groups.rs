//! `groups`: the status of the groups.

use redstart::{Container, Topic, topics::GroupStatus, views::OfTopic};

use super::group_remove;
use crate::args::{GroupsAction, GroupsArgs};
use crate::failure::Failure;
use crate::terminal::Terminal;

const HEADER: [&str; 7] = [
    "topic",
    "group",
    "lag",
    "in flight",
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
    let groups = all
        .iter()
        .flat_map(|(topic, groups)| groups.iter().map(move |value| OfTopic { topic, value }));
    if terminal.is_json() {
        let groups: Vec<OfTopic<'_, GroupStatus>> = groups.collect();
        return Ok(terminal.json(&groups)?);
    }
    let rows: Vec<Vec<String>> = groups.map(|group| row(&group)).collect();
    if rows.is_empty() {
        terminal.remark("no groups; subscribing creates one");
        return Ok(());
    }
    Ok(terminal.table(&HEADER, &rows, 2..7)?)
}

fn row(group: &OfTopic<'_, GroupStatus>) -> Vec<String> {
    let status = group.value;
    vec![
        group.topic.to_string(),
        status.group.to_string(),
        status.lag.to_string(),
        status.in_flight.to_string(),
        status.scheduled.to_string(),
        status.dead.to_string(),
        status.consumers.to_string(),
    ]
}
