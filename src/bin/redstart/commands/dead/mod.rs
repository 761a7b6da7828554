//! `dead`: looking after dead letters.

mod edit;
mod export;
mod journal;
mod list;
mod show;
mod summary;
mod sweep;
mod watch;

pub(super) use sweep::check_usage;

use redstart::{Container, dead_letters::DeadLetterSummary, envelope::EntryId};
use serde::Serialize;

use crate::args::{DeadAction, DeadArgs, GroupOf};
use crate::console::Console;
use crate::failure::Failure;
use crate::priority;

/// Who did something, where nobody said it.
const UNKNOWN: &str = "unknown";
/// How many dead letters one call lists.
const PAGE: usize = 500;

pub(super) async fn run(
    args: &DeadArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if args.action.is_bulk_work() {
        priority::give_way();
    }
    match &args.action {
        DeadAction::Summary(args) => summary::run(args, container, console).await,
        DeadAction::List(args) => list::run(args, container, console).await,
        DeadAction::Show(args) => show::run(args, container, console).await,
        DeadAction::Redrive(args) => sweep::redrive(args, container, console).await,
        DeadAction::Edit(args) => edit::run(args, container, console).await,
        DeadAction::Purge(args) => sweep::purge(args, container, console).await,
        DeadAction::Export(args) => export::export(args, container, console).await,
        DeadAction::Import(args) => export::import(args, container, console).await,
        DeadAction::Watch(args) => watch::run(args, container, console).await,
        DeadAction::Journal(args) => journal::run(args, container, console).await,
    }
}

/// Fails where there is no such group.
async fn check(of: &GroupOf, container: &Container) -> Result<(), Failure> {
    let found = super::group_of(&of.topic, &of.group, container).await;
    found.map(drop)
}

/// Who does it, for the journal.
fn operator(by: Option<&str>) -> String {
    let set = |name| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    };
    by.map(str::to_owned)
        .or_else(|| set("USER"))
        .or_else(|| set("LOGNAME"))
        .unwrap_or_else(|| UNKNOWN.to_owned())
}

/// A dead letter in a list, for programs.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    died: Option<String>,
    reason: &'static str,
    error: &'a str,
    fingerprint: &'a str,
    r#type: &'a str,
    tenant: Option<&'a str>,
    corr_id: Option<&'a str>,
    message: Option<String>,
    attempts: u32,
    redriven: u32,
    redriven_by: Option<String>,
}

fn line(id: EntryId, head: &DeadLetterSummary) -> Line<'_> {
    Line {
        id: id.to_string(),
        died: id.time().map(|time| time.to_string()),
        reason: head.reason.as_str(),
        error: &head.error,
        fingerprint: &head.fingerprint,
        r#type: &head.message_type,
        tenant: head.tenant.as_deref(),
        corr_id: head.correlation.as_deref(),
        message: head.message_id.map(|id| id.to_string()),
        attempts: head.attempts,
        redriven: head.redriven,
        redriven_by: head.redriven_by.map(|id| id.to_string()),
    }
}
