//! `dead summary`: dead letters by cause, type, tenant or hour.

use redstart::{
    Container, Group, Topic,
    dead_letters::{CauseNote, CauseSummary, CountBy, CountSummary, DeadLetters},
    envelope::EntryId,
};

use super::{UNKNOWN, or_dash};
use crate::args::{By, SummaryArgs};
use crate::duration;
use crate::escape;
use crate::failure::Failure;
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &SummaryArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let groups = groups(args, container).await?;
    let dead = container.dead_letters();
    match args.by {
        By::Cause => by_cause(args, &groups, &dead, terminal).await,
        By::Type => by(CountBy::Type, "type", args, &groups, &dead, terminal).await,
        By::Tenant => by(CountBy::Tenant, "tenant", args, &groups, &dead, terminal).await,
        By::Hour => by(CountBy::Hour, "hour", args, &groups, &dead, terminal).await,
    }
}

/// The selected groups that have dead letters.
async fn groups(args: &SummaryArgs, container: &Container) -> Result<Vec<(Topic, Group)>, Failure> {
    let topics = container.topics();
    let all = match (&args.topic, &args.group) {
        (Some(topic), Some(group)) => {
            vec![(topic.clone(), vec![topics.group(topic, group).await?])]
        }
        (Some(topic), None) => vec![(topic.clone(), topics.groups(topic).await?)],
        (None, _) => {
            let all = topics.list().await?.into_iter();
            all.map(|one| (one.topic, one.groups)).collect()
        }
    };
    let with_dead = all.into_iter().flat_map(|(topic, groups)| {
        let dead = groups.into_iter().filter(|status| status.dead > 0);
        dead.map(move |status| (topic.clone(), status.group))
    });
    Ok(with_dead.collect())
}

async fn by(
    by: CountBy,
    name: &str,
    args: &SummaryArgs,
    groups: &[(Topic, Group)],
    dead: &DeadLetters,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for (topic, group) in groups {
        all.extend(dead.summary_by(topic, group, by, args.max).await?);
    }
    if terminal.is_json() {
        return Ok(terminal.json(&all)?);
    }
    if all.is_empty() {
        terminal.remark("no dead letters");
        return Ok(());
    }
    let row = |one: CountSummary| {
        vec![
            one.topic.to_string(),
            one.group.to_string(),
            one.count.to_string(),
            or_dash(&one.name).to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = all.into_iter().map(row).collect();
    Ok(terminal.table(&["topic", "group", "count", name], &rows, 2..3)?)
}

async fn by_cause(
    args: &SummaryArgs,
    groups: &[(Topic, Group)],
    dead: &DeadLetters,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for (topic, group) in groups {
        let summary = dead.summary(topic, group, args.max).await?;
        if terminal.is_json() {
            all.extend(summary.causes);
            continue;
        }
        let letters = if summary.count == 1 {
            "letter"
        } else {
            "letters"
        };
        terminal.line(format_args!(
            "{topic}/{group}: {} dead {letters}",
            summary.count
        ))?;
        let notes: Vec<(String, CauseNote)> = notes_of(&summary.causes);
        let rows = summary.causes.into_iter().map(|one| row(one, args.wide));
        let rows: Vec<Vec<String>> = rows.collect();
        let header: &[&str] = match args.wide {
            true => &["reason", "count", "first", "last", "sample", "error"],
            false => &["reason", "count", "first", "last", "error"],
        };
        terminal.table(header, &rows, 1..4)?;
        for (error, note) in &notes {
            let operator = match note.operator.as_str() {
                "" => UNKNOWN,
                name => name,
            };
            let text = &note.text;
            terminal.line(escape::text(&format!(
                "note on {error}: {text} ({operator})"
            )))?;
        }
        if summary.rarer > 0 {
            let (rarer, causes) = match summary.rarer {
                1 => (1, "cause"),
                many => (many, "causes"),
            };
            terminal.remark(format_args!(
                "{rarer} rarer {causes}; raise --max to see more"
            ));
        }
    }
    if terminal.is_json() {
        terminal.json(&all)?;
    } else if groups.is_empty() {
        terminal.remark("no dead letters");
    }
    Ok(())
}

/// Notes beside the causes that they are about, whole, so that `--fingerprint` takes the text.
fn notes_of(causes: &[CauseSummary]) -> Vec<(String, CauseNote)> {
    let noted = causes.iter().filter_map(|one| {
        let note = one.note.clone()?;
        Some((one.cause.fingerprint.clone(), note))
    });
    noted.collect()
}

/// A cause for people, who read ages rather than times.
fn row(summary: CauseSummary, wide: bool) -> Vec<String> {
    let cause = summary.cause;
    let age = |id: EntryId| duration::short(duration::since(id.millis));
    let mut cells = vec![
        cause.reason.to_string(),
        cause.count.to_string(),
        age(cause.first),
        age(cause.last),
    ];
    if wide {
        let sample = summary.sample.map(|id| id.to_string());
        cells.push(sample.unwrap_or_else(|| "-".to_owned()));
    }
    cells.push(cause.fingerprint);
    cells
}
