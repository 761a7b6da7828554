//! Completion of names that the server or the file of contexts has.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Command, FromArgMatches as _};
use clap_complete::CompletionCandidate;
use redstart::{Container, Topic};

use crate::candidates::matching;
use crate::settings::{NamespaceAccess, Settings};

/// A shell waits for the answer: a server that takes longer completes nothing.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How many ids a topic has candidates of.
const MOST: usize = 500;

/// The definition of the command line, which the completers of its values read again.
static COMMAND: OnceLock<fn() -> Command> = OnceLock::new();

/// Answers a shell that completes a command line, and ends the process then.
pub(crate) fn answer(command: fn() -> Command) {
    let command = COMMAND.get_or_init(|| command);
    clap_complete::CompleteEnv::with_factory(command).complete();
}

/// The names of topics.
pub(crate) fn topics(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = asked(async |container, _| {
        let topics = container.topics().names().await.ok()?;
        Some(topics.iter().map(Topic::to_string).collect())
    });
    matching(names.unwrap_or_default(), current)
}

/// The names of groups: of the topics that the command line names, or of all topics.
pub(crate) fn groups(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = asked(async |container, line| {
        let topics = container.topics();
        let all = topics.names().await.ok()?;
        let is_named = |topic: &&Topic| line.iter().any(|word| *word == *topic.as_str());
        let named: Vec<&Topic> = all.iter().filter(is_named).collect();
        let wanted = if named.is_empty() {
            all.iter().collect()
        } else {
            named
        };
        let mut names = Vec::new();
        for topic in wanted {
            let groups = topics.groups(topic).await.unwrap_or_default();
            names.extend(groups.iter().map(|one| one.group.to_string()));
        }
        names.sort();
        names.dedup();
        Some(names)
    });
    matching(names.unwrap_or_default(), current)
}

/// The ids of messages for later, of the topics that the command line names: of each the earliest.
pub(crate) fn schedules(current: &OsStr) -> Vec<CompletionCandidate> {
    let ids = asked(async |container, line| {
        let mut ids = Vec::new();
        for topic in named(&container, line).await? {
            let page = container.schedules().list(&topic, None, MOST).await;
            ids.extend(page.ok()?.into_iter().map(|one| one.id.to_string()));
        }
        Some(ids)
    });
    matching(ids.unwrap_or_default(), current)
}

/// The topics that a command line names.
async fn named(container: &Container, line: &[OsString]) -> Option<Vec<Topic>> {
    let mut all = container.topics().names().await.ok()?;
    all.retain(|topic| line.iter().any(|word| *word == *topic.as_str()));
    Some(all)
}

/// Asks the server of the command line that is being completed.
fn asked(
    ask: impl AsyncFnOnce(Container, &[OsString]) -> Option<Vec<String>>,
) -> Option<Vec<String>> {
    let line: Vec<OsString> = std::env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect();
    let settings = settings(COMMAND.get()?(), &line)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let asking = async {
        let container = settings.connect_for(NamespaceAccess::Read).await.ok()?;
        ask(container, &line).await
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await.ok()? })
}

/// The settings of an unfinished command line.
fn settings(command: Command, line: &[OsString]) -> Option<Settings> {
    let parsed = command.ignore_errors(true).try_get_matches_from(line);
    let parsed = parsed.ok()?;
    let mut settings = Settings::from_arg_matches(&parsed).ok()?;
    settings.resolve(&parsed).ok()?;
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_command_line_has_its_settings() {
        let words = [
            "redstart",
            "dead",
            "list",
            "--namespace",
            "shop",
            "orders",
            "",
        ];
        let line: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let list = Command::new("list").arg(clap::Arg::new("topic"));
        let dead = Command::new("dead").subcommand(list);
        let command = <Settings as clap::Args>::augment_args(Command::new("redstart"));
        let settings = settings(command.subcommand(dead), &line).unwrap();
        assert_eq!(settings.namespace.as_deref(), Some("shop"));
    }
}
