//! `groups`: the status of the groups, and of one with its consumers.

use std::time::Duration;

use redstart::topics::{ConsumerInFlight, GroupStatus};
use redstart::views::{GroupOnPartition, ListedGroup, ShownGroup};
use redstart::{Container, Topic};

use super::{group_remove, group_reset};
use crate::args::{GroupsAction, GroupsArgs, ShowGroupArgs};
use crate::duration;
use crate::failure::Failure;
use crate::terminal::Terminal;

const HEADER: [&str; 10] = [
    "topic",
    "group",
    "lag",
    "oldest",
    "in flight",
    "busy",
    "scheduled",
    "next due",
    "dead",
    "consumers",
];

const ON_PARTITIONS: [&str; 8] = [
    "topic",
    "group",
    "partition",
    "lag",
    "in flight",
    "scheduled",
    "dead",
    "consumers",
];

const CONSUMERS: [&str; 4] = ["consumer", "in flight", "busy", "idle"];

pub(super) async fn run(
    args: &GroupsArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match &args.action {
        Some(GroupsAction::Remove(args)) => group_remove::run(args, container, terminal).await,
        Some(GroupsAction::Reset(args)) => group_reset::run(args, container, terminal).await,
        Some(GroupsAction::Show(args)) => show(args, container, terminal).await,
        None => match &args.topic {
            Some(topic) if args.partitions => partitions(args, topic, container, terminal).await,
            _ => list(args, container, terminal).await,
        },
    }
}

async fn partitions(
    args: &GroupsArgs,
    topic: &Topic,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let all = container.topics().groups_by_partition(topic).await?;
    let mut parts: Vec<GroupOnPartition<'_>> = all
        .iter()
        .map(|(partition, status)| GroupOnPartition::new(topic, *partition, status))
        .collect();
    let more = Terminal::cut(&mut parts, args.max);
    if terminal.is_json() {
        return Ok(terminal.json(&parts)?);
    }
    if parts.is_empty() {
        terminal.remark("no groups; subscribing creates one");
        return Ok(());
    }
    let row = |one: &GroupOnPartition<'_>| {
        let GroupStatus {
            group,
            lag,
            in_flight,
            scheduled,
            dead,
            consumers,
            ..
        } = one.status;
        let numbers = [lag, in_flight, scheduled, dead, consumers].map(u64::to_string);
        let names = [
            topic.to_string(),
            group.to_string(),
            one.partition.to_string(),
        ];
        names.into_iter().chain(numbers).collect()
    };
    let rows: Vec<Vec<String>> = parts.iter().map(row).collect();
    terminal.table(&ON_PARTITIONS, &rows, 2..8)?;
    terminal.remark_more(more);
    Ok(())
}

async fn show(
    args: &ShowGroupArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (topics, topic) = (container.topics(), &args.topic);
    let status = topics.group(topic, &args.group).await?;
    let consumers = topics.in_flight(topic, &args.group).await?;
    let ages = topics.ages(topic).await?;
    let group = ListedGroup::new(topic, &status, &ages);
    if terminal.is_json() {
        let shown = ShownGroup::new(group, &consumers);
        return Ok(terminal.json(&shown)?);
    }
    terminal.table(&HEADER, &[row(&group)], 2..10)?;
    if consumers.is_empty() {
        terminal.remark("no consumers");
        return Ok(());
    }
    terminal.line("")?;
    let row = |one: &ConsumerInFlight| {
        vec![
            one.consumer.clone(),
            one.in_flight.to_string(),
            or_dash(one.longest()),
            or_dash(one.idle_for),
        ]
    };
    let rows: Vec<Vec<String>> = consumers.iter().map(row).collect();
    Ok(terminal.table(&CONSUMERS, &rows, 1..4)?)
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
    let more = Terminal::cut(&mut groups, args.max);
    if terminal.is_json() {
        return Ok(terminal.json(&groups)?);
    }
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    if rows.is_empty() {
        terminal.remark("no groups; subscribing creates one");
        return Ok(());
    }
    terminal.table(&HEADER, &rows, 2..10)?;
    terminal.remark_more(more);
    Ok(())
}

fn row(group: &ListedGroup<'_>) -> Vec<String> {
    let status = group.status();
    vec![
        group.topic().to_string(),
        status.group.to_string(),
        status.lag.to_string(),
        or_dash(group.oldest()),
        status.in_flight.to_string(),
        or_dash(group.busy()),
        status.scheduled.to_string(),
        next_due(group.next_retry_ms()),
        status.dead.to_string(),
        status.consumers.to_string(),
    ]
}

fn or_dash(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), duration::short)
}

/// When the next retry is due: in a time, or so long ago.
fn next_due(millis: Option<i64>) -> String {
    let Some(millis) = millis else {
        return "-".to_owned();
    };
    let time = duration::short(Duration::from_millis(millis.unsigned_abs()));
    if millis < 0 {
        return format!("{time} ago");
    }
    format!("in {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_due_in_a_time_or_overdue() {
        assert_eq!(next_due(None), "-");
        assert_eq!(next_due(Some(61_000)), "in 1 min 1 s");
        assert_eq!(next_due(Some(-2_000)), "2 s ago");
    }
}
