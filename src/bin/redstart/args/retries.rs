//! The command line of `retries`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use redstart::{Group, Topic, retries::DeliveryId};

/// Look at retries that wait for their time, bring them back now, or cancel them.
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

/// List what waits for its time, the earliest first.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
List what waits for its time in a group, the earliest first: messages that failed and wait for their
next attempt, and snoozed ones. The id is what `run-now` and `cancel` take; tries are the failed
attempts so far. What is due and on its way to a consumer is not listed.",
    after_help = "\
Examples:
  redstart retries list orders billing
  redstart retries list orders billing --max 100000 --json | jq -r 'select(.attempts > 3) | .id'

With --json every line is {\"id\",\"due\",\"due_in_ms\",\"attempts\",\"last_error\",\"origin\",
\"first_failure\",\"redriven\",\"envelope\":{…}}, the envelope as it is on the wire; one that cannot be
decoded has \"error\" and \"fields\" instead of \"envelope\"."
)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// Stop after N
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max: usize,
}

/// Bring retries back now, before their time.
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "redstart retries run-now [OPTIONS] <TOPIC> <GROUP> <ID...|--all>",
    long_about = "\
Bring retries back now: they go to the group as if they were due. The next failure counts as any
other, so that a cause that still holds uses up their attempts.",
    after_help = "\
Examples:
  redstart retries run-now orders billing 1762957200123-0 redo:1762957200456-0
  redstart retries run-now orders billing --all --dry-run

With --all these are all that wait when the command begins; what fails meanwhile is not among them.
With --json: {\"run_now\",\"missing\"}, both counts.

Exit codes: 0 all were brought back, 1 some of those named do not wait any more, 2 wrong usage."
)]
pub(crate) struct RunNowArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Only say how many would be brought back
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Remove retries for good.
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "redstart retries cancel [OPTIONS] <TOPIC> <GROUP> <ID...|--all>",
    long_about = "\
Remove retries for good. They do not become dead letters, which are what a group has failed: this is
for what nobody wants any more. --export keeps them in a file first.

Says what it will do, and asks for the count to be typed.",
    after_help = "\
Examples:
  redstart retries cancel orders billing 1762957200123-0
  redstart retries cancel orders billing --all --export cancelled.ndjson
  jq -c .envelope cancelled.ndjson | redstart publish orders --envelope    # to every group, as new

With --all these are all that wait when the command begins. With --json: {\"cancelled\",\"missing\"},
both counts.

Exit codes: 0 all were removed, 1 some of those named do not wait any more, or something else was
typed, 2 wrong usage, or there is no terminal to ask on."
)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Write them to a new file first, as `list --json` does
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GroupOf {
    /// The topic
    pub(crate) topic: Topic,
    /// The group
    pub(crate) group: Group,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Their ids, as `list` shows them
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<DeliveryId>,
    /// All that wait now
    #[arg(long)]
    pub(crate) all: bool,
}
