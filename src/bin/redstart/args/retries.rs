//! The command line of `retries`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use redstart::{Group, Topic, retries::DeliveryId};

use super::number;
use crate::complete;

/// List scheduled retries, run them now, or cancel them.
#[derive(Debug, ClapArgs)]
pub(crate) struct RetriesArgs {
    #[command(subcommand)]
    pub(crate) action: RetriesAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RetriesAction {
    List(ListArgs),
    RunNow(RunNowArgs),
    Cancel(CancelArgs),
}

/// List scheduled retries, the earliest first.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
List a group's scheduled retries and snoozed messages, the earliest first. `run-now` and `cancel`
take the ids. `attempts` counts the failed attempts so far. The list leaves out due retries on
their way to a consumer.",
    after_help = "\
Examples:
  redstart retries list orders billing
  redstart retries list orders billing --max 100000 --json | jq -r 'select(.attempts > 3) | .id'

With --json every line is {\"id\",\"due\",\"dueInMs\",\"attempts\",\"error\",\"origin\",\"firstFailure\",
\"redriven\",\"envelope\":{…}}, the envelope as on the wire. An undecodable message has
\"undecodable\" and \"fields\" in place of \"envelope\"."
)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// Stop after N
    #[arg(long, short = 'n', visible_alias = "limit", value_name = "N", default_value_t = 100, value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: usize,
}

/// Run retries before they are due.
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "redstart retries run-now [OPTIONS] <TOPIC> <GROUP> <ID...|--all>",
    long_about = "\
Run retries before they are due. Earlier failures still count: if the cause persists, these
retries use up the remaining attempts.",
    after_help = "\
Examples:
  redstart retries run-now orders billing 1762957200123-0 redo:1762957200456-0
  redstart retries run-now orders billing --all --dry-run

--all takes the retries that are scheduled when the command begins. With --json:
{\"action\",\"moved\",\"missing\"}, two counts; with --dry-run \"matching\" in place of \"moved\".

Exit codes: 0 all run, 1 a selected id is not scheduled, 2 wrong usage."
)]
pub(crate) struct RunNowArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Show what would run, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Cancel retries: remove their messages for good.
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "redstart retries cancel [OPTIONS] <TOPIC> <GROUP> <ID...|--all>",
    long_about = "\
Cancel retries: remove their messages for good. They do not become dead letters. --export writes
them to a file first.

Shows what it will cancel and asks for the count.",
    after_help = "\
Examples:
  redstart retries cancel orders billing 1762957200123-0
  redstart retries cancel orders billing --all --export cancelled.ndjson
  jq -c .envelope cancelled.ndjson | redstart publish orders --envelope    # again, to every group

--all takes the retries that are scheduled when the command begins. With --json:
{\"action\",\"moved\",\"missing\"}, two counts; with --dry-run \"matching\" in place of \"moved\".

Exit codes: 0 all cancelled, 1 a selected id is not scheduled, or not confirmed, 2 wrong usage, or
stdin is not a terminal."
)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: Which,
    /// First write them to a new file, as `list --json` does
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// Show what would be cancelled, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Skip the prompt
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GroupOf {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// The group
    #[arg(add = ArgValueCompleter::new(complete::groups))]
    pub(crate) group: Group,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Ids, as `list` shows them
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<DeliveryId>,
    /// All scheduled retries
    #[arg(long)]
    pub(crate) all: bool,
}
