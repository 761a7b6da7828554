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
mod retries;
mod schedules;
mod top;
mod topics;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use redstart::envelope::{EntryId, Timestamp};
use redstart::schedules::ScheduleId;
use redstart::{Durability, Topic};

use crate::complete;
use crate::demo::{DemoArgs, WorkerArgs};
use crate::duration;
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
pub(crate) use retries::{
    CancelArgs, GroupOf, ListArgs, RetriesAction, RetriesArgs, RunNowArgs, Which,
};
pub(crate) use schedules::{
    CancelSchedulesArgs, ListSchedulesArgs, RescheduleArgs, SchedulesAction, SchedulesArgs, when,
};
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

/// Publish lines of JSON from stdin.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Publish lines of JSON from stdin, in their order.

Each line is the payload of one message; the options set the other fields. With --envelope each
line is an envelope as on the wire: type, payload, and optionally id, corrId, tenantId, key,
headers. The options then fill the fields that a line leaves out. The tool ignores ts, attempts and
lastError, because it publishes a new message. A line with any other field fails, unless
--keep-unknown is given. It skips empty lines.

With --format cloudevents each line is a CloudEvent 1.0 as JSON. The message keeps its id, its time
and all of its attributes; the options fill the subject, tenantid and correlationid that it leaves
out.

With --from each line of the file is one of `redstart tail --json`. The copy has every part of the
message, byte for byte and in its own codec: binary values, long numbers, unknown fields, id and
time. It begins with no failed attempts. The tool reports a line without a message or with an
undecodable one.

With --at or --after the server keeps the messages and publishes them when they are due. They wait
under the ids of their envelopes, or under --id; `redstart schedules` lists them. A message with the
id of one that waits replaces it.

The tool reports a line that fails on stderr, with its number and the rule that it breaks, and
publishes the others, unless --stop-on-error is set.",
    after_help = "\
Examples:
  echo '{\"cents\":1250}' | redstart publish orders --type order.placed --key order-7
  redstart publish orders --envelope < orders.ndjson
  redstart tail orders --from-beginning --json | redstart publish copy --from -
  curl -s https://example.org/events | redstart publish orders --format cloudevents
  echo '{\"order\":7}' | redstart publish reminders --type order.unpaid --after 1d --id order-7

With --json: {\"published\",\"duplicates\",\"failed\",\"unknown\"}, four counts. A duplicate was published
before, within the deduplication window. An unknown message may have been published: the connection
broke after the tool sent it. With --at and --after also \"scheduled\"; \"published\" is then 0.

Exit codes: 0 all published or scheduled, 1 a message failed or is unknown, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct PublishArgs {
    /// The topic; publishing creates a missing one
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// The messages' type, such as order.placed
    #[arg(
        long = "type",
        value_name = "TYPE",
        required_unless_present_any = ["envelope", "format", "from"]
    )]
    pub(crate) message_type: Option<String>,
    /// Read each line as an envelope, not only a payload
    #[arg(long)]
    pub(crate) envelope: bool,
    /// Read each line as a message in this format
    #[arg(long, value_enum, conflicts_with_all = ["envelope", "message_type"])]
    pub(crate) format: Option<Format>,
    /// Publish the messages of this file, lines of `redstart tail --json`; - reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["envelope", "format", "message_type", "key", "tenant", "correlation", "headers"])]
    pub(crate) from: Option<PathBuf>,
    /// The messages' ordering key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The messages' tenant
    #[arg(long, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// The messages' correlation id [default: a new one for each]
    #[arg(long, value_name = "ID")]
    pub(crate) correlation: Option<String>,
    /// A header; repeat for several
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// What a message must survive before it counts as published: accepted, fsynced,
    /// replicated:REPLICAS or replicated:REPLICAS:TIME
    #[arg(long, value_name = "LEVEL", default_value = "accepted")]
    pub(crate) durability: Durability,
    /// With --envelope, publish fields that this version does not know as they are
    #[arg(long, requires = "envelope")]
    pub(crate) keep_unknown: bool,
    /// Publish the messages at this time, as RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    pub(crate) at: Option<Timestamp>,
    /// Publish the messages after this time, such as 90s, 15m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) after: Option<Duration>,
    /// With --at or --after, the id of the message for later; only for one line [default: the id of
    /// the envelope]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<ScheduleId>,
    /// Stop at the first line that fails
    #[arg(long)]
    pub(crate) stop_on_error: bool,
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE"),
    }
}

/// Show the entries of a topic, without consuming them.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Show the entries of a topic, without consuming them.

Each line has the entry's id, the time of the envelope, its type, and the payload as JSON. An
undecodable entry shows the reason and its fields. The tool escapes control characters.

A topic with retention `settled` removes entries once every group has settled them: with busy
consumers --follow misses some.",
    after_help = "\
Examples:
  redstart tail orders                       the newest ten entries
  redstart tail orders --last 0 --follow     new entries only
  redstart tail orders --from 2h --max 20    the first twenty of the last two hours
  redstart tail orders --from-beginning --max 100 --json | jq .envelope.payload
  redstart tail orders --from-beginning --json | redstart publish copy --from -
  redstart tail orders --from-beginning --format cloudevents

With --json every line is {\"id\",\"codec\",\"envelope\":{…}}, the envelope as on the wire. Where that
JSON loses a part of the message, such as a binary value, \"fields\" holds the message exactly. An
undecodable entry is {\"id\",\"undecodable\",\"fields\":[…]}. `redstart publish --from` takes these
lines back. With --envelope and with --format the tool reports an undecodable entry on stderr.

Exit codes: 0 shown, 1 failed, or with --envelope or
--format an entry was undecodable, 2 wrong usage."
)]
pub(crate) struct TailArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// Start at the oldest entry
    #[arg(long, conflicts_with = "last")]
    pub(crate) from_beginning: bool,
    /// Start at an entry's id, a time such as 2025-11-12T14:20:00Z, or an age such as 2h
    #[arg(long, value_name = "PLACE", value_parser = groups::entry_at, conflicts_with_all = ["from_beginning", "last"], allow_hyphen_values = true)]
    pub(crate) from: Option<EntryId>,
    /// Start with the newest N entries
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = number::from_zero::<usize>, allow_negative_numbers = true)]
    pub(crate) last: usize,
    /// Keep showing new entries; waits for a topic that does not exist yet
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Write the envelopes alone, as JSON on the wire, for `publish --envelope`
    #[arg(long)]
    pub(crate) envelope: bool,
    /// Write each message in this format, for `publish --format`
    #[arg(long, value_enum, conflicts_with = "envelope")]
    pub(crate) format: Option<Format>,
    /// With --format cloudevents, the source of messages without one of their own [default: of the
    /// namespace and the topic, as urn:redstart:shop:orders]
    #[arg(long, value_name = "URI", requires = "format")]
    pub(crate) source: Option<String>,
    /// Stop after N entries
    #[arg(long, visible_alias = "limit", value_name = "N", value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: Option<usize>,
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
    fn a_header_has_a_name_and_any_value() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(header("a="), Ok(("a".to_owned(), String::new())));
        assert!(header("=b").is_err());
        assert!(header("a").is_err());
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
