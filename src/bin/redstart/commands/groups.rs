//! `groups`: the status of the groups, and of one with its consumers.

use redstart::topics::{ConsumerStatus, GroupStatus};
use redstart::views::{ListedGroup, ShownGroup};
use redstart::{Container, Topic};

use super::{group_remove, group_reset};
use crate::args::{GroupsAction, GroupsArgs, ShowGroupArgs};
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

const CONSUMERS: [&str; 3] = ["consumer", "in flight", "idle"];

pub(super) async fn run(
    args: &GroupsArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match &args.action {
        Some(GroupsAction::Remove(args)) => group_remove::run(args, container, terminal).await,
        Some(GroupsAction::Reset(args)) => group_reset::run(args, container, terminal).await,
        Some(GroupsAction::Show(args)) => show(args, container, terminal).await,
        None => list(args, container, terminal).await,
    }
}

async fn show(
    args: &ShowGroupArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (topics, topic) = (container.topics(), &args.topic);
    let status = topics.group(topic, &args.group).await?;
    let consumers = topics.consumers(topic, &args.group).await?;
    let ages = topics.ages(topic).await?;
    let group = ListedGroup::new(topic, &status, &ages);
    if terminal.is_json() {
        let shown = ShownGroup::new(group, &consumers);
        return Ok(terminal.json(&shown)?);
    }
    terminal.table(&HEADER, &[row(&group)], 2..8)?;
    if consumers.is_empty() {
        terminal.remark("no consumers");
        return Ok(());
    }
    terminal.line("")?;
    let row = |one: &ConsumerStatus| {
        let idle = duration::short(one.idle_for);
        vec![one.consumer.to_string(), one.in_flight.to_string(), idle]
    };
    let rows: Vec<Vec<String>> = consumers.iter().map(row).collect();
    Ok(terminal.table(&CONSUMERS, &rows, 1..3)?)
}

async fn list(
    args: &GroupsArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
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
