//! `groups`: the status of the groups, and of one with its consumers and partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use redstart::envelope::EntryId;
use redstart::topics::{
    ConsumerInFlight, ConsumerName, GroupStatus, HoldingMessage, OwnedPartition,
};
use redstart::views::{GroupOnPartition, ListedGroup, ShownGroup};
use redstart::{Container, Group, Topic};

use super::{group_remove, group_reset};
use crate::args::{GroupsAction, GroupsArgs, ShowGroupArgs};
use crate::failure::Failure;
use crate::terminal::Terminal;
use crate::{duration, escape};

const HEADER: [&str; 11] = [
    "topic",
    "group",
    "kind",
    "lag",
    "oldest",
    "in flight",
    "busy",
    "scheduled",
    "next due",
    "dead",
    "consumers",
];

const ON_PARTITIONS: [&str; 11] = [
    "topic",
    "group",
    "partition",
    "owner",
    "token",
    "lag",
    "held back",
    "in flight",
    "scheduled",
    "dead",
    "consumers",
];

const CONSUMERS: [&str; 4] = ["consumer", "in flight", "busy", "idle"];

const MEMBERS: [&str; 2] = ["member", "owns"];

const OWNED: [&str; 7] = [
    "partition",
    "owner",
    "token",
    "low",
    "high",
    "held back",
    "next try",
];

const HOLDING: [&str; 6] = [
    "holds back",
    "message",
    "failed",
    "since",
    "next try",
    "error",
];

/// How many characters of an error are shown.
const ERROR: usize = 120;

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
    let topics = container.topics();
    let all = topics.groups_by_partition(topic).await?;
    let status = topics.get(topic).await?;
    let primaries = match &status {
        Some(status) => topics.primaries(status).await?,
        None => Vec::new(),
    };
    let mut owned: BTreeMap<&Group, Vec<OwnedPartition>> = BTreeMap::new();
    for (_, status) in all.iter().filter(|(at, one)| *at == 0 && one.owned) {
        let partitions = topics.owned_partitions(topic, &status.group).await?;
        owned.insert(&status.group, partitions);
    }
    let mut parts: Vec<GroupOnPartition<'_>> = all
        .iter()
        .map(|(partition, status)| {
            let owned = owned.get(&status.group);
            let owned = owned.and_then(|all| all.get(usize::from(*partition)));
            let primary = primaries.get(usize::from(*partition));
            let primary = primary.and_then(Option::as_deref);
            GroupOnPartition::new(topic, *partition, status, primary, owned)
        })
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
        let or_dash = |number: Option<u64>| number.map_or_else(dash, |one| one.to_string());
        let names = [
            topic.to_string(),
            group.to_string(),
            one.partition.to_string(),
            match one.held_back {
                Some(_) => owner_or_none(one.owner),
                None => dash(),
            },
            or_dash(one.token),
            lag.to_string(),
            or_dash(one.held_back),
        ];
        let numbers = [in_flight, scheduled, dead, consumers].map(u64::to_string);
        // A cell for each partition if the table has the column.
        let primary = (!primaries.is_empty()).then(|| one.primary.map_or_else(dash, str::to_owned));
        names.into_iter().chain(numbers).chain(primary).collect()
    };
    let rows: Vec<Vec<String>> = parts.iter().map(row).collect();
    let mut header = ON_PARTITIONS.to_vec();
    if !primaries.is_empty() {
        header.push("primary");
    }
    terminal.table(&header, &rows, 4..11)?;
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
    let partitions = match status.owned {
        true => topics.owned_partitions(topic, &args.group).await?,
        false => Vec::new(),
    };
    let group = ListedGroup::new(topic, &status, &ages);
    if terminal.is_json() {
        let shown = ShownGroup::new(group, &consumers, &partitions);
        return Ok(terminal.json(&shown)?);
    }
    terminal.table(&HEADER, &[row(&group)], 3..11)?;
    if status.owned {
        return show_owned(&consumers, &partitions, terminal);
    }
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

/// The members of an owned group, its partitions, and the failed messages that hold back their keys.
fn show_owned(
    members: &[ConsumerInFlight],
    partitions: &[OwnedPartition],
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if members.is_empty() {
        terminal.remark("no members");
    } else {
        terminal.line("")?;
        let row = |one: &ConsumerInFlight| {
            let owned = partitions.iter();
            let owned = owned.filter(|at| {
                let owner = at.owner.as_ref();
                owner.is_some_and(|owner| owner.as_str() == one.consumer)
            });
            let owned: Vec<String> = owned.map(|at| at.partition.to_string()).collect();
            let owned = match owned.is_empty() {
                true => "nothing, stands by".to_owned(),
                false => owned.join(", "),
            };
            vec![one.consumer.clone(), owned]
        };
        let rows: Vec<Vec<String>> = members.iter().map(row).collect();
        terminal.table(&MEMBERS, &rows, 2..2)?;
    }
    terminal.line("")?;
    let row = |at: &OwnedPartition| {
        vec![
            at.partition.to_string(),
            owner_or_none(at.owner.as_ref()),
            at.token.map_or_else(dash, |token| token.to_string()),
            id_or_dash(at.low),
            id_or_dash(at.high),
            at.held_back.to_string(),
            next_due(at.next_try),
        ]
    };
    let rows: Vec<Vec<String>> = partitions.iter().map(row).collect();
    terminal.table(&OWNED, &rows, 2..7)?;
    let listed = partitions.iter().flat_map(|at| &at.oldest);
    let rows: Vec<Vec<String>> = listed.map(holding).collect();
    if rows.is_empty() {
        return Ok(());
    }
    terminal.line("")?;
    terminal.table(&HOLDING, &rows, 2..5)?;
    let all: u64 = partitions.iter().map(|at| at.held_back).sum();
    let more = all.saturating_sub(rows.len() as u64);
    if more > 0 {
        terminal.remark(format_args!("{more} more hold back their keys"));
    }
    Ok(())
}

fn holding(one: &HoldingMessage) -> Vec<String> {
    let since = one
        .since
        .and_then(|since| u64::try_from(since.as_millis()).ok());
    vec![
        one.key.clone().unwrap_or_else(dash),
        one.id.to_string(),
        one.attempts.to_string(),
        or_dash(since.map(duration::since)),
        next_due(Some(one.next_try)),
        escape::excerpt(one.error.as_deref().unwrap_or("-"), ERROR),
    ]
}

fn owner_or_none(owner: Option<&ConsumerName>) -> String {
    owner.map_or_else(|| "none".to_owned(), ConsumerName::to_string)
}

fn id_or_dash(id: EntryId) -> String {
    match id.in_partition(0) == EntryId::default() {
        true => dash(),
        false => id.to_string(),
    }
}

fn dash() -> String {
    "-".to_owned()
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
    terminal.table(&HEADER, &rows, 3..11)?;
    terminal.remark_more(more);
    Ok(())
}

fn row(group: &ListedGroup<'_>) -> Vec<String> {
    let status = group.status();
    vec![
        group.topic().to_string(),
        status.group.to_string(),
        if status.owned { "owned" } else { "shared" }.to_owned(),
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
