//! `dead redrive` and `dead purge`: one action on many dead letters.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use redstart::{
    Container, Error,
    dead_letters::{
        Confirmed, DeadLetters, JournalEntry, Plan, PlannedSweep, Selection, Sweep, SweepEnd,
        SweepProgress, SweepReport,
    },
};
use uuid::Uuid;

use super::export;
use crate::args::{DeadAction, GroupOf, PaceArgs, PurgeArgs, RedriveArgs, SelectionArgs};
use crate::failure::{FAILED, Failure, INTERRUPTED, written};
use crate::terminal::Terminal;

const BAR: &str = "{bar:30} {pos}/{len}  {rate}, {eta} left{msg}";
const RESUMED_BAR: &str = "{spinner} {pos}  {rate}, {elapsed}{msg}";

/// Refuses a wrong command line before the tool connects.
pub(in crate::commands) fn check_usage(action: &DeadAction) -> Result<(), Failure> {
    match action {
        DeadAction::Redrive(args) if args.resume.is_none() => redrive_of(args).map(drop),
        DeadAction::Purge(args) if args.resume.is_none() => purge_of(args).map(drop),
        DeadAction::List(args) => args.filter.check(),
        DeadAction::Export(args) => args.filter.check(),
        DeadAction::Watch(args) => args.filter.check(),
        _ => Ok(()),
    }
}

pub(super) async fn redrive(
    args: &RedriveArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    if let Some(operation) = args.resume {
        let action = action_of(&args.of, &dead, operation).await?;
        if action == "purge" {
            return Err(Failure::usage(format!(
                "operation {operation} is a purge; continue it with dead purge --resume"
            )));
        }
        return resume(&args.of, &dead, operation, &action, terminal).await;
    }
    let sweep = redrive_of(args)?;
    let plan = dead.plan(&args.of.topic, &args.of.group, sweep).await?;
    if args.dry_run {
        return dry_run(&plan, terminal);
    }
    tell_plan(plan.preview(), terminal);
    let planned = plan.preview().clone();
    run(&args.of, &dead, &planned, plan.confirm_unasked(), terminal).await
}

pub(super) async fn purge(
    args: &PurgeArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    if let Some(operation) = args.resume {
        let action = action_of(&args.of, &dead, operation).await?;
        if !["purge", ""].contains(&&*action) {
            return Err(Failure::usage(format!(
                "operation {operation} is not a purge; continue it with dead redrive --resume"
            )));
        }
        if !action.is_empty() && !args.yes {
            terminal.remark(format_args!(
                "will remove the remaining dead letters of operation {operation} for good"
            ));
            terminal.confirm_word("purge")?;
        }
        return resume(&args.of, &dead, operation, &action, terminal).await;
    }
    let plan = dead
        .plan(&args.of.topic, &args.of.group, purge_of(args)?)
        .await?;
    if args.dry_run {
        return dry_run(&plan, terminal);
    }
    tell_plan(plan.preview(), terminal);
    let planned = plan.preview().clone();
    let copy = args.export.as_deref().filter(|_| !planned.is_empty());
    if let Some(path) = copy {
        terminal.remark(format_args!("will first write them to {}", path.display()));
    }
    let confirmed = terminal.confirm(plan, args.yes)?;
    if let Some(path) = copy {
        keep_copy(&planned, &dead, path, terminal).await?;
    }
    run(&args.of, &dead, &planned, confirmed, terminal).await
}

async fn keep_copy(
    planned: &PlannedSweep,
    dead: &DeadLetters,
    path: &Path,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let written = export::to_file(dead.pages_of(planned), usize::MAX, path, terminal).await;
    if written.is_err() {
        terminal.remark("nothing was removed");
    }
    written.map(drop)
}

/// The sweep of a `redrive` command line.
fn redrive_of(args: &RedriveArgs) -> Result<Sweep, Failure> {
    let selection = selection(&args.which)?;
    let sweep = match &args.to {
        Some(topic) => Sweep::publish(topic.clone(), selection),
        None => Sweep::redrive(selection),
    };
    let mut sweep = paced(sweep, &args.pace);
    if let Some(share) = args.failure_limit {
        sweep = sweep.with_failure_limit(share);
    }
    sweep.validate().map_err(Failure::of_settings)?;
    Ok(sweep)
}

/// The sweep of a `purge` command line.
fn purge_of(args: &PurgeArgs) -> Result<Sweep, Failure> {
    let sweep = paced(Sweep::purge(selection(&args.which)?), &args.pace);
    sweep.validate().map_err(Failure::of_settings)?;
    Ok(sweep)
}

fn selection(which: &SelectionArgs) -> Result<Selection, Failure> {
    which.selection().map_err(Failure::usage)
}

fn paced(sweep: Sweep, pace: &PaceArgs) -> Sweep {
    let sweep = sweep.with_operator(super::operator(pace.operator.as_deref()));
    let sweep = sweep.with_note(pace.note.as_deref().unwrap_or_default());
    let sweep = match pace.up_to {
        Some(id) => sweep.with_watermark(id),
        None => sweep,
    };
    match pace.rate {
        Some(rate) => sweep.with_rate(rate, pace.ramp),
        None => sweep,
    }
}

fn dry_run(plan: &Plan<PlannedSweep>, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let told = if terminal.is_json() {
        terminal.json(plan)
    } else {
        terminal.line(plan.preview())
    };
    written(told, fail_for_missing(plan.preview().preview.missing))
}

fn tell_plan(planned: &PlannedSweep, terminal: &mut Terminal<'_>) {
    // A plan without dead letters ends with "nothing to do".
    if !planned.is_empty() {
        for line in planned.to_string().lines() {
            terminal.remark(line);
        }
    }
}

fn fail_for_missing(missing: u64) -> Result<(), Failure> {
    if missing > 0 {
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

/// The action of an operation in the journal; empty where the journal does not have it.
async fn action_of(of: &GroupOf, dead: &DeadLetters, operation: Uuid) -> Result<String, Failure> {
    let entry = find(of, dead, operation).await?;
    Ok(entry.map_or(String::new(), |entry| entry.action))
}

async fn find(
    of: &GroupOf,
    dead: &DeadLetters,
    operation: Uuid,
) -> Result<Option<JournalEntry>, Error> {
    let all = dead.journal(&of.topic, &of.group).await?;
    Ok(all.into_iter().find(|entry| entry.id == operation))
}

async fn run(
    of: &GroupOf,
    dead: &DeadLetters,
    planned: &PlannedSweep,
    confirmed: Confirmed<PlannedSweep>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let bar = terminal.progress(Some(planned.preview.matching), BAR);
    let operation = Mutex::new(Uuid::nil());
    let tell = |progress: SweepProgress| {
        *operation.lock().unwrap_or_else(PoisonError::into_inner) = progress.operation;
        show(&bar, progress);
    };
    let ended = until_interrupted(dead.run(confirmed, &tell)).await;
    bar.finish_and_clear();
    let operation = operation
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let finished = finish(of, dead, ended, operation, &planned.action, terminal).await;
    if !matches!(finished, Ok(()) | Err(Failure::ReaderGone)) {
        return finished;
    }
    if planned.preview.missing > 0 {
        let missing = planned.preview.missing;
        let ids = if missing == 1 { "id does" } else { "ids do" };
        terminal.remark(format_args!("{missing} {ids} not exist"));
    }
    fail_for_missing(planned.preview.missing).and(finished)
}

/// Continues an interrupted operation.
async fn resume(
    of: &GroupOf,
    dead: &DeadLetters,
    operation: Uuid,
    action: &str,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let bar = terminal.progress(None, RESUMED_BAR);
    let tell = |progress: SweepProgress| show(&bar, progress);
    let running = dead.resume(&of.topic, &of.group, operation, &tell);
    let ended = until_interrupted(running).await;
    bar.finish_and_clear();
    finish(of, dead, ended, operation, action, terminal).await
}

fn show(bar: &ProgressBar, progress: SweepProgress) {
    bar.set_position(progress.taken);
    if progress.died_again > 0 {
        bar.set_message(format!(", {} died again", progress.died_again));
    }
}

/// Waits for the end of an operation; `None` after ctrl-c.
async fn until_interrupted(
    running: impl Future<Output = Result<SweepReport, Error>>,
) -> Option<Result<SweepReport, Error>> {
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => None,
        ended = running => Some(ended),
    }
}

/// Reports the result, or how to continue an interrupted operation.
async fn finish(
    of: &GroupOf,
    dead: &DeadLetters,
    ended: Option<Result<SweepReport, Error>>,
    operation: Uuid,
    action: &str,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let GroupOf { topic, group } = of;
    let failure = match ended {
        Some(Ok(report)) => return tell_report(&report, action, terminal),
        Some(Err(error)) => Failure::from(error),
        None => {
            terminal.remark("interrupted");
            Failure::Said(INTERRUPTED)
        }
    };
    // A server that is away cannot be asked now; `dead journal` tells it later.
    if let Ok(Some(entry)) = find(of, dead, operation).await
        && entry.result.is_none()
    {
        let command = if action == "purge" {
            "purge"
        } else {
            "redrive"
        };
        terminal.remark(format_args!(
            "{} taken so far; to continue: \
             redstart dead {command} {topic} {group} --resume {operation}",
            entry.taken
        ));
    }
    Err(failure)
}

fn tell_report(
    report: &SweepReport,
    action: &str,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let told = if terminal.is_json() {
        terminal.json(report)
    } else if report.operation.is_nil() {
        terminal.line("nothing to do")
    } else {
        let told = terminal.line(summary_of(&report.progress, action));
        terminal.remark(format_args!("operation {}", report.operation));
        told
    };
    let mut ended = Ok(());
    if report.ended == SweepEnd::Stopped {
        terminal.remark("stopped: too many redriven messages died again");
        ended = Err(Failure::Said(FAILED));
    }
    written(told, ended)
}

fn summary_of(progress: &SweepProgress, action: &str) -> String {
    let done = match action {
        "purge" => "removed",
        "publish" => "published",
        _ => "redriven",
    };
    let mut text = format!("{} {done}", progress.taken);
    for (count, what) in [
        (progress.skipped, "skipped"),
        (progress.missing, "already gone"),
        (progress.died_again, "died again"),
    ] {
        if count > 0 {
            text = format!("{text}, {count} {what}");
        }
    }
    text
}
