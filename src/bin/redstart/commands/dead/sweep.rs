//! `dead redrive` and `dead purge`: what is done to many dead letters at once.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use redstart::dead_letters::JournalEntry;
use redstart::{
    Container, Error,
    dead_letters::{
        DeadLetters, Preview, Selection, SkipReason, Sweep, SweepEnd, SweepProgress, SweepReport,
    },
};
use serde_json::json;
use uuid::Uuid;

use super::export;
use crate::args::{DeadAction, GroupOf, PaceArgs, PurgeArgs, RedriveArgs, SelectionArgs};
use crate::console::Console;
use crate::failure::{FAILED, Failure, INTERRUPTED};

const BAR: &str = "{bar:30} {pos}/{len}  {rate}, {eta} left{msg}";

/// Refuses a command line that makes no sense, before anything is asked of the server.
pub(in crate::commands) fn check_usage(action: &DeadAction) -> Result<(), Failure> {
    match action {
        DeadAction::Redrive(args) if args.resume.is_none() => redrive_of(args).map(drop),
        DeadAction::Purge(args) if args.resume.is_none() => {
            purge_of(selection(&args.which)?, &args.pace).map(drop)
        }
        _ => Ok(()),
    }
}

pub(super) async fn redrive(
    args: &RedriveArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let dead = container.dead_letters();
    if let Some(operation) = args.resume {
        let action = action(&args.of, &dead, operation).await?;
        if action == "purge" {
            return Err(Failure::usage(format!(
                "operation {operation} is a purge; dead purge --resume goes on with it"
            )));
        }
        return resume(&args.of, &dead, operation, &action, console).await;
    }
    let sweep = redrive_of(args)?;
    let survey = look(&args.of, &sweep, &dead).await?;
    let where_to = match &args.to {
        Some(to) => format!("published to {to}, and so to all its groups"),
        None => format!("redriven to group {}", args.of.group),
    };
    if args.dry_run {
        return dry_run(&survey, &where_to, console);
    }
    tell_plan(&survey, &format!("to be {where_to}"), console);
    let action = sweep.action().to_string();
    go(&args.of, &dead, sweep, &survey, &action, console).await
}

/// The sweep that the command line of `redrive` asks for.
fn redrive_of(args: &RedriveArgs) -> Result<Sweep, Failure> {
    let which = selection(&args.which)?;
    let sweep = match &args.to {
        Some(topic) => Sweep::publish(topic.clone(), which),
        None => Sweep::redrive(which),
    };
    let mut sweep = paced(sweep, &args.pace);
    if let Some(share) = args.stop_share {
        sweep = sweep.with_failure_limit(share);
    }
    sweep.validate().map_err(Failure::of_settings)?;
    Ok(sweep)
}

/// A sweep as the command line of `purge` asks for it.
fn purge_of(which: Selection, pace: &PaceArgs) -> Result<Sweep, Failure> {
    let sweep = paced(Sweep::purge(which), pace);
    sweep.validate().map_err(Failure::of_settings)?;
    Ok(sweep)
}

pub(super) async fn purge(
    args: &PurgeArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let dead = container.dead_letters();
    if let Some(operation) = args.resume {
        let action = action(&args.of, &dead, operation).await?;
        if !["purge", ""].contains(&&*action) {
            return Err(Failure::usage(format!(
                "operation {operation} is no purge; dead redrive --resume goes on with it"
            )));
        }
        if !action.is_empty() && !args.yes {
            console.remark(format_args!(
                "What is left of operation {operation} is to be removed for good."
            ));
            console.confirm("purge")?;
        }
        return resume(&args.of, &dead, operation, &action, console).await;
    }
    // What is kept and what is removed must be the same, whatever dies in between.
    let which = selection(&args.which)?;
    let which = export::bounded(&args.of, which, args.which.filter.until, &dead).await?;
    let sweep = purge_of(which, &args.pace)?;
    let survey = look(&args.of, &sweep, &dead).await?;
    if args.dry_run {
        return dry_run(&survey, "removed for good", console);
    }
    tell_plan(&survey, "to be removed for good", console);
    if survey.matching > 0 {
        if let Some(path) = &args.export {
            console.remark(format_args!(
                "They are written to {} first.",
                path.display()
            ));
        }
        if !args.yes {
            console.confirm(&survey.matching.to_string())?;
        }
        if let Some(path) = &args.export {
            let kept = export::to_file(&args.of, sweep.selection(), &dead, path, console).await;
            if kept.is_err() {
                console.remark("nothing was removed");
            }
            kept?;
        }
    }
    go(&args.of, &dead, sweep, &survey, "purge", console).await
}

/// What the journal calls an operation; nothing where it has none of this id.
async fn action(of: &GroupOf, dead: &DeadLetters, operation: Uuid) -> Result<String, Failure> {
    let begun = find(of, dead, operation).await?;
    Ok(begun.map_or(String::new(), |one| one.action))
}

/// Goes on with an operation, whatever it does.
async fn resume(
    of: &GroupOf,
    dead: &DeadLetters,
    operation: Uuid,
    action: &str,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let bar = console.progress(None, "{spinner} {pos}  {rate}, {elapsed}{msg}");
    let tell = |progress: SweepProgress| show(&bar, progress);
    let running = dead.resume(&of.topic, &of.group, operation, &tell);
    let ended = until_interrupted(running).await;
    bar.finish_and_clear();
    account(of, dead, ended, operation, action, console).await
}

/// The operation, as the journal has it.
async fn find(
    of: &GroupOf,
    dead: &DeadLetters,
    operation: Uuid,
) -> Result<Option<JournalEntry>, Error> {
    let all = dead.journal(&of.topic, &of.group).await?;
    Ok(all.into_iter().find(|one| one.id == operation))
}

fn selection(which: &SelectionArgs) -> Result<Selection, Failure> {
    which.selection().map_err(Failure::usage)
}

fn paced(sweep: Sweep, pace: &PaceArgs) -> Sweep {
    let sweep = sweep.with_operator(super::operator(pace.by.as_deref()));
    match pace.rate {
        Some(rate) => sweep.with_rate(rate, pace.ramp),
        None => sweep,
    }
}

async fn look(of: &GroupOf, sweep: &Sweep, dead: &DeadLetters) -> Result<Preview, Failure> {
    Ok(dead.preview(&of.topic, &of.group, sweep).await?)
}

/// What would be done, as the result.
fn dry_run(survey: &Preview, what: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    if console.is_json() {
        let none = [SkipReason::NotMatching, SkipReason::Undecodable].map(|why| (why, 0));
        let left = none.into_iter().chain(survey.skipped.clone());
        let left = left.map(|(why, count)| (name(why).to_owned(), json!(count)));
        console.json(&json!({
            "matching": survey.matching,
            "left": left.collect::<serde_json::Map<_, _>>(),
            "missing": survey.missing,
            "oldest": survey.oldest,
            "newest": survey.newest,
        }))?;
    } else {
        console.line(format_args!("{} would be {what}", survey.matching))?;
        if let (Some(oldest), Some(newest)) = (survey.oldest, survey.newest) {
            console.line(format_args!("  from {oldest} to {newest}"))?;
        }
        for (why, count) in &survey.skipped {
            console.line(format_args!("{count} would be left: {why}"))?;
        }
    }
    if survey.missing > 0 {
        console.remark(format_args!("{} of the ids are not there", survey.missing));
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

/// Why one is left, for programs.
fn name(why: SkipReason) -> &'static str {
    match why {
        SkipReason::NotMatching => "not_matching",
        SkipReason::Undecodable => "undecodable",
        _ => "other",
    }
}

fn tell_plan(survey: &Preview, what: &str, console: &mut Console<'_>) {
    if survey.matching != 1 {
        console.remark(format_args!("{} dead letters are {what}.", survey.matching));
    } else {
        console.remark(format_args!("1 dead letter is {what}."));
    }
    for (why, count) in &survey.skipped {
        let are = if *count == 1 { "is" } else { "are" };
        console.remark(format_args!("{count} {are} left: {why}."));
    }
}

fn show(bar: &ProgressBar, progress: SweepProgress) {
    bar.set_position(progress.taken);
    if progress.died_again > 0 {
        bar.set_message(format!(", {} died again", progress.died_again));
    }
}

/// `None` when the user has had enough.
async fn until_interrupted(
    running: impl Future<Output = Result<SweepReport, Error>>,
) -> Option<Result<SweepReport, Error>> {
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => None,
        ended = running => Some(ended),
    }
}

async fn go(
    of: &GroupOf,
    dead: &DeadLetters,
    sweep: Sweep,
    survey: &Preview,
    verb: &str,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if survey.matching == 0 {
        return nothing_to_do(survey, console);
    }
    let named = matches!(sweep.selection(), Selection::Ids(_));
    let bar = console.progress(Some(survey.matching), BAR);
    let operation = Mutex::new(Uuid::nil());
    let tell = |progress: SweepProgress| {
        *operation.lock().unwrap_or_else(PoisonError::into_inner) = progress.operation;
        show(&bar, progress);
    };
    let ended = until_interrupted(dead.sweep(&of.topic, &of.group, sweep, &tell)).await;
    bar.finish_and_clear();
    let operation = operation
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    account(of, dead, ended, operation, verb, console).await?;
    if named && survey.missing > 0 {
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

/// Nothing is begun, and the journal has no operation.
fn nothing_to_do(survey: &Preview, console: &mut Console<'_>) -> Result<(), Failure> {
    if console.is_json() {
        console.json(&json!({
            "operation": null,
            "ended": "done",
            "taken": 0,
            "left": survey.skipped.values().sum::<u64>(),
            "missing": survey.missing,
            "died_again": 0,
        }))?;
    } else {
        console.line("nothing to do")?;
    }
    if survey.missing > 0 {
        console.remark(format_args!("{} of the ids are not there", survey.missing));
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

/// Says what was done, and how to go on where it was cut off.
async fn account(
    of: &GroupOf,
    dead: &DeadLetters,
    ended: Option<Result<SweepReport, Error>>,
    operation: Uuid,
    verb: &str,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let GroupOf { topic, group } = of;
    let failure = match ended {
        Some(Ok(swept)) => return tell_end(&swept, verb, console),
        Some(Err(error)) => Failure::from(error),
        None => {
            console.remark("interrupted");
            Failure::Said(INTERRUPTED)
        }
    };
    // Where not even this can be asked, the journal tells it later.
    if let Ok(Some(begun)) = find(of, dead, operation).await
        && begun.result.is_none()
    {
        let command = if verb == "purge" { "purge" } else { "redrive" };
        console.remark(format_args!(
            "{} were taken out; the rest: redstart dead {command} {topic} {group} --resume {operation}",
            begun.taken
        ));
    }
    Err(failure)
}

fn tell_end(swept: &SweepReport, verb: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let SweepProgress {
        taken,
        skipped: left,
        missing,
        died_again,
        ..
    } = swept.progress;
    let stopped = swept.ended == SweepEnd::Stopped;
    if console.is_json() {
        console.json(&json!({
            "operation": swept.operation.to_string(),
            "ended": if stopped { "stopped" } else { "done" },
            "taken": taken,
            "left": left,
            "missing": missing,
            "died_again": died_again,
        }))?;
    } else {
        let mut text = format!(
            "{taken} {}",
            match verb {
                "purge" => "removed",
                "publish" => "published",
                _ => "redriven",
            }
        );
        for (count, what) in [
            (left, "left"),
            (missing, "taken by another meanwhile"),
            (died_again, "died again"),
        ] {
            if count > 0 {
                text = format!("{text}, {count} {what}");
            }
        }
        console.line(text)?;
        console.remark(format_args!("operation {}", swept.operation));
    }
    if stopped {
        console.remark("stopped: too many of the redriven died again");
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}
