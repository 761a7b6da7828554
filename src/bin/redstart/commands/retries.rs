//! `retries`: list scheduled retries, run them now, cancel them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use redstart::{
    Container,
    retries::{
        DeliveryId, PlannedRetries, Retries, RetriesReport, RetryAction, RetrySelection,
        ScheduledRetry,
    },
    views::ListedRetry,
};

use crate::args::{CancelArgs, GroupOf, ListArgs, RetriesAction, RetriesArgs, RunNowArgs, Which};
use crate::failure::{FAILED, Failure, written};
use crate::table::Table;
use crate::terminal::Terminal;
use crate::{duration, escape, priority};

const PAGE: usize = 500;
/// How many characters of an error are shown.
const ERROR: usize = 120;

pub(super) async fn run(
    args: &RetriesArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let retries = container.retries();
    let of = match &args.action {
        RetriesAction::List(args) => &args.of,
        RetriesAction::RunNow(args) => &args.of,
        RetriesAction::Cancel(args) => &args.of,
    };
    container.topics().group(&of.topic, &of.group).await?;
    if !matches!(args.action, RetriesAction::List(_)) {
        priority::give_way();
    }
    match &args.action {
        RetriesAction::List(args) => list(args, &retries, terminal).await,
        RetriesAction::RunNow(args) => run_now(args, &retries, terminal).await,
        RetriesAction::Cancel(args) => cancel(args, &retries, terminal).await,
    }
}

/// Calls `each` with every scheduled retry, page by page, until it returns false.
async fn walk(
    retries: &Retries,
    of: &GroupOf,
    mut each: impl FnMut(ScheduledRetry) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut last: Option<ScheduledRetry> = None;
    loop {
        let page = retries.list(&of.topic, &of.group, last.as_ref(), PAGE);
        let page = page.await?;
        last = page.last().cloned();
        if last.is_none() {
            return Ok(());
        }
        for retry in page {
            if !each(retry)? {
                return Ok(());
            }
        }
    }
}

async fn list(
    args: &ListArgs,
    retries: &Retries,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let header = ["id", "due in", "attempts", "type", "error"];
    let mut table = Table::new(&header, 2..3);
    let (mut rows, mut count) = (Vec::new(), 0);
    walk(retries, &args.of, |retry| {
        count += 1;
        if count > args.max {
            return Ok(false);
        }
        if terminal.is_json() {
            terminal.json(&ListedRetry::from(&retry))?;
            return Ok(true);
        }
        rows.push(row(&retry));
        // A long list is written page by page, to bound the memory.
        if rows.len() == PAGE {
            terminal.rows(&mut table, &std::mem::take(&mut rows))?;
        }
        Ok(true)
    })
    .await?;
    if !rows.is_empty() {
        terminal.rows(&mut table, &rows)?;
    }
    if count > args.max {
        terminal.remark(format_args!(
            "more than {}; raise --max to see them",
            args.max
        ));
    } else if count == 0 && !terminal.is_json() {
        terminal.remark("no retries are scheduled");
    }
    Ok(())
}

async fn run_now(
    args: &RunNowArgs,
    retries: &Retries,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (of, selection) = (&args.of, selection(&args.which));
    let plan = retries
        .plan(&of.topic, &of.group, RetryAction::RunNow, selection)
        .await?;
    if args.dry_run {
        return preview(&plan, plan.preview(), terminal);
    }
    let report = retries.run(plan.confirm_unasked()).await?;
    tell(&report, terminal)
}

async fn cancel(
    args: &CancelArgs,
    retries: &Retries,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (of, selection) = (&args.of, selection(&args.which));
    let plan = retries
        .plan(&of.topic, &of.group, RetryAction::Cancel, selection)
        .await?;
    if args.dry_run {
        return preview(&plan, plan.preview(), terminal);
    }
    let planned = plan.preview().clone();
    if !planned.ids.is_empty() {
        terminal.remark_wrapped(&planned.to_string());
        if let Some(path) = &args.export {
            terminal.remark(format_args!("will first write them to {}", path.display()));
        }
    }
    let confirmed = terminal.confirm(plan, args.yes)?;
    if let Some(path) = args.export.as_ref().filter(|_| !planned.ids.is_empty()) {
        export(&planned, retries, of, path).await?;
    }
    let report = retries.run(confirmed).await?;
    tell(&report, terminal)
}

fn selection(which: &Which) -> RetrySelection {
    if which.all {
        RetrySelection::All
    } else {
        RetrySelection::Ids(which.ids.clone())
    }
}

/// Writes the planned retries that are still scheduled to a new file. A retry that became due
/// meanwhile will not be cancelled either.
async fn export(
    planned: &PlannedRetries,
    retries: &Retries,
    of: &GroupOf,
    path: &Path,
) -> Result<(), Failure> {
    let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create_new(path).map_err(named)?);
    let ids: HashSet<&DeliveryId> = planned.ids.iter().collect();
    walk(retries, of, |retry| {
        if ids.contains(&retry.id) {
            let line = escape::to_json(&ListedRetry::from(&retry))?;
            writeln!(file, "{line}").map_err(named)?;
        }
        Ok(true)
    })
    .await?;
    // The copy must be on the disk before the originals go.
    let file = file.into_inner();
    let file = file.map_err(|error| named(error.into_error()))?;
    file.sync_all().map_err(named)
}

/// Shows a dry run.
fn preview<T: serde::Serialize>(
    plan: &T,
    planned: &PlannedRetries,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let told = if terminal.is_json() {
        terminal.json(plan)
    } else {
        terminal.line(planned)
    };
    written(told, fail_for_missing(planned.missing))
}

fn tell(report: &RetriesReport, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let told = if terminal.is_json() {
        terminal.json(report)
    } else {
        let done = match report.action {
            RetryAction::RunNow => "run now",
            _ => "cancelled",
        };
        let mut text = format!("{} {done}", report.moved);
        if report.missing > 0 {
            text = format!("{text}, {} not scheduled", report.missing);
        }
        terminal.line(text)
    };
    written(told, fail_for_missing(report.missing))
}

fn fail_for_missing(missing: u64) -> Result<(), Failure> {
    if missing > 0 {
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

fn row(retry: &ScheduledRetry) -> Vec<String> {
    let (attempts, message_type, error) = match &retry.envelope {
        Ok(envelope) => (
            envelope.failed_attempts().to_string(),
            envelope.message_type().to_owned(),
            envelope.last_error().unwrap_or("-").to_owned(),
        ),
        Err(flaw) => {
            let dash = || "-".to_owned();
            (dash(), dash(), format!("undecodable: {flaw}"))
        }
    };
    vec![
        retry.id.to_string(),
        duration::short(retry.due_in),
        attempts,
        message_type,
        escape::excerpt(&error, ERROR),
    ]
}
