//! `schedules`: list messages for later, reschedule them, cancel them.

use redstart::schedules::{ScheduledMessage, Schedules, When};
use redstart::views::ListedSchedule;
use redstart::{Container, Error, ErrorKind};
use serde_json::json;

use crate::args::{
    CancelSchedulesArgs, ListSchedulesArgs, RescheduleArgs, SchedulesAction, SchedulesArgs, when,
};
use crate::failure::{FAILED, Failure, written};
use crate::table::Table;
use crate::terminal::Terminal;
use crate::{duration, escape};

const PAGE: usize = 500;

pub(super) async fn run(
    args: &SchedulesArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let topic = match &args.action {
        SchedulesAction::List(args) => &args.topic,
        SchedulesAction::Cancel(args) => &args.topic,
        SchedulesAction::Reschedule(args) => &args.topic,
    };
    // Names a topic that is spelt much like a missing one.
    container.topics().groups(topic).await?;
    let partition = match &args.action {
        SchedulesAction::List(args) => args.partition,
        SchedulesAction::Cancel(args) => args.partition,
        SchedulesAction::Reschedule(args) => args.partition,
    };
    let partitions = container.topics().partitions(topic).await?;
    let mut schedules = container.schedules();
    if let Some(number) = partition {
        if number >= partitions {
            let rule = format!("{topic} has {partitions} partitions, from 0 on");
            return Err(Failure::usage(rule));
        }
        schedules = schedules.in_partition(number);
    }
    match &args.action {
        SchedulesAction::List(args) => list(args, &schedules, partitions > 1, terminal).await,
        SchedulesAction::Cancel(args) => cancel(args, &schedules, terminal).await,
        SchedulesAction::Reschedule(args) => reschedule(args, &schedules, terminal).await,
    }
}

async fn list(
    args: &ListSchedulesArgs,
    schedules: &Schedules,
    is_partitioned: bool,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let heads: &[&str] = match is_partitioned {
        true => &["id", "due", "due in", "type", "partition"],
        false => &["id", "due", "due in", "type"],
    };
    let mut table = Table::new(heads, 3..3);
    let (mut last, mut count): (Option<ScheduledMessage>, usize) = (None, 0);
    loop {
        let left = (args.max - count).saturating_add(1).min(PAGE);
        let mut page = schedules.list(&args.topic, last.as_ref(), left).await?;
        let Some(end) = page.last().cloned() else {
            break;
        };
        last = Some(end);
        count += page.len();
        if count > args.max {
            page.pop();
        }
        if terminal.is_json() {
            for message in &page {
                terminal.json(&ListedSchedule::from(message))?;
            }
        } else {
            // A long list is written page by page, to bound the memory.
            let rows = page.iter().map(|message| {
                let partition = is_partitioned.then(|| message.partition.to_string());
                row(message).into_iter().chain(partition).collect()
            });
            let rows: Vec<Vec<String>> = rows.collect();
            terminal.rows(&mut table, &rows)?;
        }
        if count > args.max {
            let text = format_args!("more than {}; raise --max to see them", args.max);
            terminal.remark(text);
            break;
        }
    }
    if count == 0 && !terminal.is_json() {
        terminal.remark("no messages for later");
    }
    Ok(())
}

fn row(message: &ScheduledMessage) -> Vec<String> {
    let what = match &message.envelope {
        Ok(envelope) => envelope.message_type().to_owned(),
        Err(flaw) => flaw.to_string(),
    };
    vec![
        escape::text(message.id.as_str()),
        message.due.to_string(),
        duration::short(message.due_in),
        escape::text(&what),
    ]
}

async fn cancel(
    args: &CancelSchedulesArgs,
    schedules: &Schedules,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let done = schedules.cancel(&args.topic, &args.ids).await?;
    for same in done.moved.chunk_by(|one, next| one == next) {
        if let [id, _, ..] = same {
            let (id, count) = (escape::text(id.as_str()), same.len());
            terminal.remark(format_args!(
                "{id} named {count} messages, each in another partition"
            ));
        }
    }
    let (cancelled, missing) = (done.moved.len(), done.missing.len());
    let told = if terminal.is_json() {
        terminal.json(&json!({"cancelled": cancelled, "missing": missing}))
    } else if missing > 0 {
        terminal.line(format!("{cancelled} cancelled, {missing} not scheduled"))
    } else {
        terminal.line(format!("{cancelled} cancelled"))
    };
    let ended = match missing {
        0 => Ok(()),
        _ => Err(Failure::Said(FAILED)),
    };
    written(told, ended)
}

async fn reschedule(
    args: &RescheduleArgs,
    schedules: &Schedules,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let new = when(args.when.at, args.when.after).unwrap_or(When::After(std::time::Duration::ZERO));
    let (topic, id) = (&args.topic, &args.id);
    let all = schedules.reschedule(topic, id, new).await?;
    let (count, Some(due)) = (all.len(), all.iter().min()) else {
        let rule = "no message for later has this id; `schedules list` shows the ids";
        let error = Error::new(ErrorKind::NotFound, "reschedule", rule);
        return Err(error.on(format!("{topic}/{id}")).into());
    };
    if count > 1 {
        let id = escape::text(id.as_str());
        terminal.remark(format_args!(
            "{id} names {count} messages, each in another partition"
        ));
    }
    if terminal.is_json() {
        return Ok(terminal.json(&json!({"id": id, "due": due, "messages": count}))?);
    }
    Ok(terminal.line(format!("{} is due at {due}", escape::text(id.as_str())))?)
}
