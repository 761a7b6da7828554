//! `dead summary`: how many died of what.

use redstart::{
    Container, Group, Topic,
    dead_letters::{Cause, CountBy, DeadLetters},
    envelope::EntryId,
};
use serde::Serialize;

use crate::args::{By, SummaryArgs};
use crate::commands::{group_of, groups_of};
use crate::console::Console;
use crate::duration;
use crate::failure::Failure;

pub(super) async fn run(
    args: &SummaryArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let groups = groups(args, container).await?;
    let dead = container.dead_letters();
    let tally = match args.by {
        By::Cause => return by_cause(args, &groups, &dead, console).await,
        By::Type => CountBy::Type,
        By::Tenant => CountBy::Tenant,
        By::Hour => CountBy::Hour,
    };
    let mut all = Vec::new();
    for (topic, group) in &groups {
        let mut counts = dead.counts(topic, group, tally).await?;
        // Hours in their order, the newest kept; the others by their weight.
        if tally == CountBy::Hour {
            let older = counts.len().saturating_sub(args.max);
            counts.drain(..older);
        } else {
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            counts.truncate(args.max);
        }
        all.extend(counts.into_iter().map(|(name, count)| Counted {
            topic: topic.to_string(),
            group: group.to_string(),
            name,
            count,
        }));
    }
    if console.is_json() {
        return Ok(console.json(&all)?);
    }
    if all.is_empty() {
        console.remark("no dead letters");
        return Ok(());
    }
    let row = |one: Counted| {
        let name = if one.name.is_empty() {
            "-".to_owned()
        } else {
            one.name
        };
        vec![one.topic, one.group, one.count.to_string(), name]
    };
    let rows: Vec<Vec<String>> = all.into_iter().map(row).collect();
    let what = match args.by {
        By::Hour => "hour",
        By::Tenant => "tenant",
        _ => "type",
    };
    Ok(console.table(&["topic", "group", "count", what], &rows, 2..3)?)
}

/// The groups asked about that have dead letters.
async fn groups(args: &SummaryArgs, container: &Container) -> Result<Vec<(Topic, Group)>, Failure> {
    let topics = match (&args.topic, &args.group) {
        (Some(topic), Some(group)) => {
            vec![(
                topic.clone(),
                vec![group_of(topic, group, container).await?],
            )]
        }
        (Some(topic), None) => vec![(topic.clone(), groups_of(topic, container).await?)],
        (None, _) => {
            let all = container.topics().list().await?.into_iter();
            all.map(|one| (one.topic, one.groups)).collect()
        }
    };
    let with_dead = topics.into_iter().flat_map(|(topic, groups)| {
        let dead = groups.into_iter().filter(|status| status.dead > 0);
        dead.map(move |status| (topic.clone(), status.group))
    });
    Ok(with_dead.collect())
}

async fn by_cause(
    args: &SummaryArgs,
    groups: &[(Topic, Group)],
    dead: &DeadLetters,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for (topic, group) in groups {
        let mut causes = dead.causes(topic, group).await?;
        let count: u64 = causes.iter().map(|cause| cause.count).sum();
        let rarer = causes.len().saturating_sub(args.max);
        causes.truncate(args.max);
        let samples = samples(topic, group, &causes, dead).await?;
        let shown = causes.into_iter().zip(samples);
        if console.is_json() {
            all.extend(shown.map(|(cause, sample)| Shown::of(topic, group, cause, sample)));
            continue;
        }
        let letters = if count == 1 { "letter" } else { "letters" };
        console.line(format_args!("{topic}/{group}: {count} dead {letters}"))?;
        let rows: Vec<Vec<String>> = shown.map(|(cause, sample)| row(cause, sample)).collect();
        let header = ["reason", "count", "first", "last", "sample", "error"];
        console.table(&header, &rows, 1..2)?;
        if rarer > 0 {
            console.remark(format_args!("{rarer} rarer causes; --max shows them"));
        }
    }
    if console.is_json() {
        console.json(&all)?;
    } else if groups.is_empty() {
        console.remark("no dead letters");
    }
    Ok(())
}

/// A cause for people, to whom times are ages.
fn row(cause: Cause, sample: Option<EntryId>) -> Vec<String> {
    let age = |id: EntryId| duration::short(duration::since(id.millis));
    vec![
        cause.reason.to_string(),
        cause.count.to_string(),
        age(cause.first),
        age(cause.last),
        sample.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        cause.fingerprint,
    ]
}

/// For each cause the id of one that is there.
async fn samples(
    topic: &Topic,
    group: &Group,
    causes: &[Cause],
    dead: &DeadLetters,
) -> Result<Vec<Option<EntryId>>, Failure> {
    let ends = causes.iter().flat_map(|cause| [cause.last, cause.first]);
    let ends: Vec<EntryId> = ends.collect();
    let found = dead.get(topic, group, &ends).await?;
    let is_there = |id: &EntryId| found.iter().any(|letter| letter.id == *id);
    let sample = |cause: &Cause| [cause.last, cause.first].into_iter().find(is_there);
    Ok(causes.iter().map(sample).collect())
}

#[derive(Serialize)]
struct Counted {
    topic: String,
    group: String,
    name: String,
    count: u64,
}

#[derive(Serialize)]
struct Shown {
    topic: String,
    group: String,
    reason: &'static str,
    fingerprint: String,
    count: u64,
    first: Option<String>,
    last: Option<String>,
    sample: Option<String>,
}

impl Shown {
    fn of(topic: &Topic, group: &Group, cause: Cause, sample: Option<EntryId>) -> Self {
        let time = |id: EntryId| id.time().map(|time| time.to_string());
        Self {
            topic: topic.to_string(),
            group: group.to_string(),
            reason: cause.reason.as_str(),
            count: cause.count,
            first: time(cause.first),
            last: time(cause.last),
            sample: sample.map(|id| id.to_string()),
            fingerprint: cause.fingerprint,
        }
    }
}
