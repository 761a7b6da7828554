//! `dead`: dead letters.

mod edit;
mod export;
mod import;
mod journal;
mod list;
mod note;
mod show;
mod summary;
mod sweep;
mod watch;

pub(super) use sweep::check_usage;

use redstart::{
    Container, Error, ErrorKind,
    dead_letters::{DeadLetter, DeadLetters},
    envelope::EntryId,
};

use crate::args::{DeadAction, DeadArgs, GroupOf};
use crate::failure::Failure;
use crate::priority;
use crate::terminal::Terminal;

/// The operator's name when nobody gives one.
const UNKNOWN: &str = "unknown";
/// How many dead letters one call lists.
const PAGE: usize = 500;

pub(super) async fn run(
    args: &DeadArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if args.action.is_bulk_work() {
        priority::give_way();
    }
    match &args.action {
        DeadAction::Summary(args) => summary::run(args, container, terminal).await,
        DeadAction::List(args) => list::run(args, container, terminal).await,
        DeadAction::Show(args) => show::run(args, container, terminal).await,
        DeadAction::Redrive(args) => sweep::redrive(args, container, terminal).await,
        DeadAction::Edit(args) => edit::run(args, container, terminal).await,
        DeadAction::Purge(args) => sweep::purge(args, container, terminal).await,
        DeadAction::Export(args) => export::run(args, container, terminal).await,
        DeadAction::Import(args) => import::run(args, container, terminal).await,
        DeadAction::Watch(args) => watch::run(args, container, terminal).await,
        DeadAction::Journal(args) => journal::run(args, container, terminal).await,
        DeadAction::Note(args) => note::run(args, container, terminal).await,
    }
}

/// The dead letters, once it is clear that the group exists: a misspelt one would look empty.
async fn dead_letters_of(of: &GroupOf, container: &Container) -> Result<DeadLetters, Failure> {
    container.topics().group(&of.topic, &of.group).await?;
    Ok(container.dead_letters())
}

async fn find(of: &GroupOf, id: EntryId, dead: &DeadLetters) -> Result<DeadLetter, Failure> {
    let found = dead.get(&of.topic, &of.group, &[id]).await?.pop();
    found.ok_or_else(|| {
        let GroupOf { topic, group } = of;
        let subject = format!("{id} of {topic}/{group}");
        Error::new(ErrorKind::NotFound, "dead letter", "does not exist")
            .on(subject)
            .into()
    })
}

/// The operator's name for the journal.
pub(super) fn operator(given: Option<&str>) -> String {
    known_operator(given).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The operator's name, where somebody knows it.
pub(super) fn known_operator(given: Option<&str>) -> Option<String> {
    let set = |name| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    };
    given
        .map(str::to_owned)
        .or_else(|| set("USER"))
        .or_else(|| set("LOGNAME"))
}

/// A text, or a dash in place of an empty one.
fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
