//! The command line of `groups`.

use clap::{Args as ClapArgs, Subcommand};
use redstart::{Group, Topic};

/// List groups with their status, or remove a group.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    long_about = "\
List groups with their status, or remove a group.

  lag        entries not yet delivered to the group
  in flight  delivered and unsettled
  oldest     the age of the oldest of these two; a rising one means that the group stands still or a
             handler hangs
  scheduled  retries and snoozed messages, and redriven messages not yet delivered
  dead       dead letters
  consumers  consumers that the group knows, live or not",
    after_help = "\
Examples:
  redstart groups
  redstart groups orders --json | jq '.[] | select(.dead > 0)'
  redstart groups remove orders billing

With --json: one array of {\"topic\",\"group\",\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\",
\"oldestUndeliveredMs\",\"oldestInFlightMs\"}; an age is null without such a message, and for a user who may
not look."
)]
pub(crate) struct GroupsArgs {
    /// List the groups of this topic only
    pub(crate) topic: Option<Topic>,
    #[command(subcommand)]
    pub(crate) action: Option<GroupsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupsAction {
    Remove(RemoveArgs),
}

/// Remove a group for good, with its retries and its dead letters.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Remove a group for good: its cursor, its unsettled messages, its retries and its dead letters. The
topic's entries and the other groups stay; retention can then remove entries that only this group
had not settled.

The server keeps a group that is in use, unless --force is given: one with undelivered, unsettled,
scheduled or dead messages, or with a consumer that was active in the last 60 seconds. It checks
and removes in one step. With --force, stop the consumers first: live ones create the group again
and start at the oldest entry of the topic.

Shows what it will remove and asks for the group's name.",
    after_help = "\
Examples:
  redstart groups remove orders billing --dry-run
  redstart groups remove orders billing --force --yes

With --json: {\"topic\",\"removed\",\"group\",\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\",
\"liveConsumers\"}; with --dry-run, and when the group is in use, \"force\", \"refused\" and
\"confirmation\" in place of \"removed\".

Exit codes: 0 removed, or with --dry-run removable, 1 the group is in use, does not exist, or was
not confirmed, 2 wrong usage, or stdin is not a terminal."
)]
pub(crate) struct RemoveArgs {
    /// The topic
    pub(crate) topic: Topic,
    /// The group
    pub(crate) group: Group,
    /// Remove the group even if it is in use
    #[arg(long)]
    pub(crate) force: bool,
    /// Show what would be removed, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Skip the prompt
    #[arg(long, short)]
    pub(crate) yes: bool,
}
