//! `groups`: where the groups stand.

use redstart::{Container, Topic, topics::GroupStatus};
use serde::Serialize;

use super::{groups_of, remove};
use crate::args::{GroupsAction, GroupsArgs};
use crate::console::Console;
use crate::failure::Failure;

pub(super) async fn run(
    args: &GroupsArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if let Some(GroupsAction::Remove(args)) = &args.action {
        return remove::run(args, container, console).await;
    }
    let topics: Vec<(Topic, Vec<GroupStatus>)> = match &args.topic {
        Some(topic) => vec![(topic.clone(), groups_of(topic, container).await?)],
        None => {
            let all = container.topics().list().await?;
            all.into_iter().map(|row| (row.topic, row.groups)).collect()
        }
    };
    let groups = topics
        .iter()
        .flat_map(|(topic, groups)| groups.iter().map(move |group| (topic, group)));
    if console.is_json() {
        let rows: Vec<Row<'_>> = groups.map(|(topic, group)| object(topic, group)).collect();
        console.json(&rows)?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = groups.map(|(topic, group)| row(topic, group)).collect();
    if rows.is_empty() {
        console.remark("no groups; subscribing creates one");
        return Ok(());
    }
    let header = [
        "topic",
        "group",
        "lag",
        "in-flight",
        "scheduled",
        "dead",
        "consumers",
    ];
    Ok(console.table(&header, &rows, 2..7)?)
}

fn row(topic: &Topic, status: &GroupStatus) -> Vec<String> {
    vec![
        topic.to_string(),
        status.group.to_string(),
        status.lag.to_string(),
        status.in_flight.to_string(),
        status.scheduled.to_string(),
        status.dead.to_string(),
        status.consumers.to_string(),
    ]
}

#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    group: &'a str,
    lag: u64,
    in_flight: u64,
    scheduled: u64,
    dead: u64,
    consumers: u64,
}

fn object<'a>(topic: &'a Topic, status: &'a GroupStatus) -> Row<'a> {
    Row {
        topic: topic.as_str(),
        group: status.group.as_str(),
        lag: status.lag,
        in_flight: status.in_flight,
        scheduled: status.scheduled,
        dead: status.dead,
        consumers: status.consumers,
    }
}
