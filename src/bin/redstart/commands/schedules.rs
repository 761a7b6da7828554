//! `schedules`: list messages for later, reschedule them, cancel them.

use redstart::schedules::{ScheduledMessage, When};
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
    match &args.action {
        SchedulesAction::List(args) => list(args, container, terminal).await,
        SchedulesAction::Cancel(args) => cancel(args, container, terminal).await,
        SchedulesAction::Reschedule(args) => reschedule(args, container, terminal).await,
    }
}

async fn list(
    args: &ListSchedulesArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut table = Table::new(&["id", "due", "due in", "type"], 3..3);
    let (mut last, mut count): (Option<ScheduledMessage>, usize) = (None, 0);
    loop {
        let left = (args.max - count).saturating_add(1).min(PAGE);
        let schedules = container.schedules();
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
            let rows: Vec<Vec<String>> = page.iter().map(row).collect();
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
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let done = container.schedules().cancel(&args.topic, &args.ids).await?;
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
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let new = when(args.when.at, args.when.after).unwrap_or(When::After(std::time::Duration::ZERO));
    let (topic, id) = (&args.topic, &args.id);
    let due = container.schedules().reschedule(topic, id, new).await?;
    let Some(due) = due else {
        let rule = "no message for later has this id; `schedules list` shows the ids";
        let error = Error::new(ErrorKind::NotFound, "reschedule", rule);
        return Err(error.on(format!("{topic}/{id}")).into());
    };
    if terminal.is_json() {
        return Ok(terminal.json(&json!({"id": id, "due": due}))?);
    }
    Ok(terminal.line(format!("{} is due at {due}", escape::text(id.as_str())))?)
}
