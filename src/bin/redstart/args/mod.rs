//! The command line.

#[cfg(feature = "console")]
mod console;
mod context;
mod dead;
mod doctor;
pub(crate) mod format;
mod groups;
pub(crate) mod help;
mod janitor;
mod kv;
mod metrics;
mod number;
mod pages;
mod print;
mod publish;
mod retries;
mod schedules;
mod tail;
mod top;
mod topics;
mod work;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::demo::{DemoArgs, WorkerArgs};
use crate::settings::{NamespaceAccess, Settings};

#[cfg(feature = "console")]
pub(crate) use console::{ConsoleAction, ConsoleArgs, Payloads, ServeArgs};
pub(crate) use context::{AddContextArgs, ContextAction, ContextArgs, UseContextArgs};
pub(crate) use dead::{
    By, DeadAction, DeadArgs, DeadListArgs, EditArgs, ExportArgs, ImportArgs, JournalArgs,
    NoteArgs, PaceArgs, PurgeArgs, RedriveArgs, SelectionArgs, ShowArgs, SummaryArgs, WatchArgs,
};
pub(crate) use doctor::DoctorArgs;
pub(crate) use format::Format;
pub(crate) use groups::{GroupsAction, GroupsArgs, RemoveArgs, ResetArgs, ShowGroupArgs};
pub(crate) use janitor::JanitorArgs;
pub(crate) use kv::{CasArgs, DeleteArgs, Form, GetArgs, KvAction, KvArgs, KvListArgs, SetArgs};
pub(crate) use metrics::MetricsArgs;
pub(crate) use pages::{CompletionsArgs, ManArgs};
pub(crate) use print::{AclArgs, ExporterArgs, KedaArgs, PrintArgs, PrintWhat, Role, SystemdArgs};
pub(crate) use publish::PublishArgs;
pub(crate) use retries::{
    CancelArgs, GroupOf, ListArgs, RetriesAction, RetriesArgs, RunNowArgs, Which,
};
pub(crate) use schedules::{
    CancelSchedulesArgs, ListSchedulesArgs, RescheduleArgs, SchedulesAction, SchedulesArgs, when,
};
pub(crate) use tail::TailArgs;
pub(crate) use top::TopArgs;
pub(crate) use topics::{CreateArgs, RemoveTopicArgs, TopicSettingsArgs, TopicsAction, TopicsArgs};
pub(crate) use work::WorkArgs;

/// A durable message bus and key-value store on Redis Streams.
#[derive(Debug, Parser)]
#[command(
    name = "redstart",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
Settings come from the environment or a context; `redstart help settings` explains them:
  REDSTART_REDIS_URL   the server; put a password here, not on the command line, which every
                       user of the machine can read
  REDSTART_NAMESPACE   the prefix of all keys
  REDSTART_CODEC, REDSTART_MAX_MESSAGE_BYTES, REDSTART_MIGRATE_ON_CONNECT   as for services

Examples:
  redstart demo
  echo '{\"cents\":1250}' | redstart publish orders --type order.placed
  redstart tail orders --follow
  redstart top
  redstart doctor

Exit codes: 0 done, 1 failed, 2 the command line or a setting is wrong, 130 interrupted."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Publish(PublishArgs),
    Work(WorkArgs),
    Tail(TailArgs),
    Topics(TopicsArgs),
    Groups(GroupsArgs),
    Top(TopArgs),
    #[command(visible_alias = "dlq")]
    Dead(Box<DeadArgs>),
    Retries(RetriesArgs),
    Schedules(SchedulesArgs),
    Kv(KvArgs),
    Migrate(MigrateArgs),
    Health(HealthArgs),
    Doctor(DoctorArgs),
    Janitor(JanitorArgs),
    Metrics(MetricsArgs),
    #[cfg(feature = "console")]
    Console(Box<ConsoleArgs>),
    Print(PrintArgs),
    Context(ContextArgs),
    Settings(SettingsArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// A worker process of `demo`.
    #[command(hide = true)]
    DemoWorker(WorkerArgs),
}

impl Command {
    /// How the command uses its namespace.
    pub(crate) fn access(&self) -> NamespaceAccess {
        let changes = match self {
            Self::Demo(_) | Self::DemoWorker(_) | Self::Publish(_) | Self::Work(_) => {
                return NamespaceAccess::Create;
            }
            Self::Kv(args) => match &args.action {
                KvAction::Set(_) | KvAction::Cas(_) => return NamespaceAccess::Create,
                KvAction::Delete(_) => true,
                KvAction::Get(_) | KvAction::List(_) => false,
            },
            Self::Groups(args) => match &args.action {
                Some(GroupsAction::Remove(args)) => !args.dry_run,
                Some(GroupsAction::Reset(args)) => !args.dry_run,
                Some(GroupsAction::Show(_)) | None => false,
            },
            Self::Retries(args) => match &args.action {
                RetriesAction::RunNow(args) => !args.dry_run,
                RetriesAction::Cancel(args) => !args.dry_run,
                RetriesAction::List(_) => false,
            },
            Self::Schedules(args) => !matches!(args.action, SchedulesAction::List(_)),
            Self::Dead(args) => match &args.action {
                DeadAction::Redrive(args) => !args.dry_run,
                DeadAction::Purge(args) => !args.dry_run,
                DeadAction::Edit(_) | DeadAction::Import(_) | DeadAction::Note(_) => true,
                DeadAction::Summary(_)
                | DeadAction::List(_)
                | DeadAction::Show(_)
                | DeadAction::Export(_)
                | DeadAction::Watch(_)
                | DeadAction::Journal(_) => false,
            },
            Self::Topics(args) => match &args.action {
                Some(TopicsAction::Create(_)) => return NamespaceAccess::Create,
                Some(TopicsAction::Settings(args)) => args.changes(),
                Some(TopicsAction::Remove(args)) => !args.dry_run,
                None => false,
            },
            Self::Migrate(args) => match &args.action {
                MigrateAction::Up { .. } => return NamespaceAccess::Create,
                MigrateAction::Status => false,
            },
            Self::Janitor(_) => true,
            #[cfg(feature = "console")]
            Self::Console(args) => !args.serve.read_only,
            Self::Tail(_)
            | Self::Top(_)
            | Self::Health(_)
            | Self::Doctor(_)
            | Self::Metrics(_)
            | Self::Print(_)
            | Self::Context(_)
            | Self::Settings(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        };
        if changes {
            NamespaceAccess::Change
        } else {
            NamespaceAccess::Read
        }
    }
}

impl Command {
    /// Whether the command does nothing but write to the standard output, and has no answer in its
    /// exit code.
    pub(crate) fn only_shows(&self) -> bool {
        match self {
            Self::Tail(_) | Self::Print(_) | Self::Settings(_) => true,
            Self::Topics(args) => args.action.is_none(),
            Self::Groups(args) => matches!(args.action, None | Some(GroupsAction::Show(_))),
            Self::Metrics(args) => args.listen.is_none(),
            Self::Dead(args) => args.action.only_shows(),
            Self::Retries(args) => matches!(args.action, RetriesAction::List(_)),
            Self::Schedules(args) => matches!(args.action, SchedulesAction::List(_)),
            Self::Migrate(args) => matches!(args.action, MigrateAction::Status),
            #[cfg(feature = "console")]
            Self::Console(_) => false,
            Self::Demo(_)
            | Self::DemoWorker(_)
            | Self::Publish(_)
            | Self::Work(_)
            | Self::Kv(_)
            | Self::Health(_)
            | Self::Doctor(_)
            | Self::Janitor(_)
            | Self::Top(_)
            | Self::Context(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }

    /// Whether a context can name the server of the command. The demo brings its own, and must not
    /// reach another one unasked.
    pub(crate) fn uses_context(&self) -> bool {
        !matches!(
            self,
            Self::Demo(_)
                | Self::DemoWorker(_)
                | Self::Context(_)
                | Self::Completions(_)
                | Self::Man(_)
        )
    }
}

/// Show the layout of the namespace, or migrate it.
#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    pub(crate) action: MigrateAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateAction {
    /// List the migrations and their state
    #[command(after_help = "\
States: applied, pending, dirty (begun and not finished), changed (applied in another form than
this version has), unknown (applied by a newer version).

With --json: one array of {\"number\",\"name\",\"state\",\"appliedAt\"}.")]
    Status,
    /// Apply the pending migrations
    #[command(after_help = "\
Waits while another process migrates. With --json: {\"applied\":[numbers]}.")]
    Up {
        /// Apply a dirty migration again
        #[arg(long)]
        repair: bool,
        /// Also apply the migration for owned groups, as their first subscription does; versions that
        /// do not know such groups then refuse the namespace
        #[arg(long)]
        owned_groups: bool,
    },
}

/// Check that the bus and the key-value store work.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
With --json: {\"ok\",\"bus\":{\"ok\",\"reasons\"},\"kv\":{\"ok\",\"reasons\"}}.

Exit codes: 0 both work, 1 one does not, 2 wrong usage.")]
pub(crate) struct HealthArgs {}

/// Show the settings in force, and explain them.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Show the settings in force and where each comes from: an option, the environment, a context, or the
default. The tool never shows a password.

An option wins over the environment, the environment over a context. Services and the tool read the
same variables; the guide \"Running in production\" lists all of them.",
    after_help = "\
Examples:
  redstart settings
  redstart settings --context staging
  redstart help settings

With --json: one array of {\"name\",\"value\",\"source\"}."
)]
pub(crate) struct SettingsArgs {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    /// Words as a shell tells them apart, as far as the guide needs it.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.extend(Some(std::mem::take(&mut word))),
                c => word.push(c),
            }
        }
        words.push(word);
        words
    }

    #[test]
    fn the_command_lines_of_the_guide_parse() {
        let guide = include_str!("../../../docs/dead_letters.md");
        let lines = guide.lines().filter_map(|line| line.strip_prefix("$ "));
        let mut count = 0;
        for line in lines {
            let command = line.rsplit(" | ").next().unwrap_or(line);
            let command = command.split(" < ").next().unwrap_or(command);
            if let Err(error) = Args::try_parse_from(words(command)) {
                panic!("{line}: {error}");
            }
            count += 1;
        }
        assert!(count > 8, "{count}");
    }

    #[test]
    fn resume_takes_no_other_selection_or_pace() {
        let parse = |command: &str, rest: &str| {
            let id = "0190163d-8694-739b-aea5-966c26f8ad90";
            let line = format!("redstart dead {command} orders billing --resume {id} {rest}");
            Args::try_parse_from(line.split_whitespace()).map(|_| ())
        };
        for command in ["redrive", "purge"] {
            assert!(parse(command, "").is_ok());
            assert!(parse(command, "--json").is_ok());
            for rest in [
                "1-1",
                "--all",
                "--reason exhausted",
                "--fingerprint x",
                "--error x",
                "--error-pattern x",
                "--type t",
                "--tenant acme",
                "--correlation c",
                "--since 2h",
                "--until 2h",
                "--min-attempts 2",
                "--max-attempts 2",
                "--redriven",
                "--never-redriven",
                "--rate 5",
                "--rate 5 --ramp 1s",
                "--operator ann",
                "--dry-run",
            ] {
                let error = parse(command, rest).unwrap_err().to_string();
                assert!(
                    error.contains("--resume") && error.contains("cannot be used with"),
                    "{command} {rest}: {error}"
                );
            }
        }
        assert!(parse("purge", "--yes").is_ok());
        assert!(parse("purge", "--export f").is_err());
        assert!(parse("redrive", "--to copies").is_err());
    }

    #[test]
    fn destructive_commands_document_examples_and_exit_codes() {
        for line in [
            "dead redrive",
            "dead edit",
            "dead purge",
            "dead export",
            "dead import",
            "retries run-now",
            "retries cancel",
            "groups remove",
        ] {
            let words = ["redstart"].into_iter().chain(line.split(' '));
            let help = Args::try_parse_from(words.chain(["--help"])).unwrap_err();
            let help = help.to_string();
            assert!(help.contains("Examples:"), "{line}: {help}");
            assert!(help.contains("Exit codes: 0 "), "{line}: {help}");
            assert!(!help.contains("expired"), "{line}: {help}");
        }
    }

    #[test]
    fn help_never_shows_the_value_of_the_url() {
        let argument = Args::command();
        let url = argument
            .get_arguments()
            .find(|argument| argument.get_id() == "redis_url")
            .unwrap();
        assert!(url.is_hide_env_values_set());
    }

    #[test]
    fn a_payload_needs_a_type_and_an_envelope_has_its_own() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).map(|_| ());
        assert!(parse("redstart publish orders").is_err());
        assert!(parse("redstart publish orders --type t").is_ok());
        assert!(parse("redstart publish orders --envelope").is_ok());
        assert!(parse("redstart publish a/b --envelope").is_err());
        assert!(parse("redstart tail orders --from-beginning --last 3").is_err());
        assert!(parse("redstart demo --workers 1").is_err());
    }
}
