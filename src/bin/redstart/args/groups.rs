//! The command line of `groups`.

use clap::{Args as ClapArgs, Subcommand};
use redstart::{Group, Topic};

/// List groups and where they stand, or remove one.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    long_about = "\
List groups and where they stand, or remove one.

  lag        not yet delivered to the group
  in-flight  delivered and unsettled
  scheduled  retries and snoozed messages that wait for their time, and what is due or was redriven
             and is not yet delivered again
  dead       dead letters
  consumers  consumers that the group knows, alive or not",
    after_help = "\
Examples:
  redstart groups
  redstart groups orders --json | jq '.[] | select(.dead > 0)'
  redstart groups remove orders billing

With --json: one array of {\"topic\",\"group\",\"lag\",\"in_flight\",\"scheduled\",\"dead\",\"consumers\"}."
)]
pub(crate) struct GroupsArgs {
    /// Only the groups of this topic
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
Remove a group for good, with its cursor, what it holds, its retries and its dead letters. The
topic's entries and other groups stay as they are; what only this group has kept in the topic is
free to be removed by retention.

A group for which anything waits, dead letters included, or of which a consumer was heard in the
last 60 seconds, is not removed, unless --force is given. Nothing can come in between: the server
looks and removes in one step. With --force, stop its consumers first: those that live make the
group anew and begin at the oldest entry that the topic still holds.

Says what it will do, and asks for the group's name to be typed.",
    after_help = "\
Examples:
  redstart groups remove orders billing --dry-run
  redstart groups remove orders billing --force --yes

With --json: {\"removed\",\"topic\",\"group\",\"lag\",\"in_flight\",\"scheduled\",\"dead\",\"consumers\",\"living\"}.

Exit codes: 0 it was removed, or with --dry-run would be, 1 it is needed, is not there, or something
else was typed, 2 wrong usage, or there is no terminal to ask on."
)]
pub(crate) struct RemoveArgs {
    /// The topic
    pub(crate) topic: Topic,
    /// The group
    pub(crate) group: Group,
    /// Remove it whatever waits and whoever lives
    #[arg(long)]
    pub(crate) force: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}
