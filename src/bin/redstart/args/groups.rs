//! The command line of `groups`.

use clap::{Args as ClapArgs, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use redstart::envelope::EntryId;
use redstart::topics::ResetTo;
use redstart::{Group, Topic};

use super::dead::moment;
use super::number;
use crate::complete;

/// List groups with their status, show one, reset one, or remove one.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    long_about = "\
List groups with their status, show one, reset one, or remove one.

  kind       shared, or owned: each partition has one consumer at a time
  lag        entries not yet delivered to the group
  oldest     the age of the oldest of them; a rising one means that the group does not keep up
  in flight  delivered and unsettled
  busy       how long the oldest of them has been in flight; a rising one means that a handler hangs
  scheduled  retries and snoozed messages, and redriven messages not yet delivered
  next due   when the next of the scheduled ones is due
  dead       dead letters
  consumers  consumers that the group knows, live or not; the members of an owned group

With --partitions:

  owner      the member that owns the partition in an owned group
  token      the owner's token; each new owner has a greater one
  held back  keys that wait there for a failed message of an owned group",
    after_help = "\
Examples:
  redstart groups
  redstart groups orders --json | jq '.[] | select(.dead > 0)'
  redstart groups orders --partitions
  redstart groups show orders billing
  redstart groups reset orders billing --to 2h
  redstart groups remove orders billing

With --json: one array of {\"topic\",\"group\",\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\",
\"owned\",\"oldestUndeliveredMs\",\"oldestInFlightMs\",\"nextRetryMs\"}; an age is null without such a message,
and for a user who may not look; nextRetryMs is negative for a retry that is overdue. With --partitions
an array of {\"topic\",\"partition\",\"group\",\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\",
\"owned\",\"owner\",\"token\",\"heldBack\"}; the last three are null for a shared group, and owner and token
also while nobody owns the partition."
)]
pub(crate) struct GroupsArgs {
    /// List the groups of this topic only
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Option<Topic>,
    /// Show at most N
    #[arg(long, short = 'n', visible_alias = "limit", value_name = "N", value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: Option<usize>,
    /// Show each group on each partition of the topic
    #[arg(long, requires = "topic")]
    pub(crate) partitions: bool,
    #[command(subcommand)]
    pub(crate) action: Option<GroupsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupsAction {
    Show(ShowGroupArgs),
    Reset(ResetArgs),
    Remove(RemoveArgs),
}

/// Show a group, its consumers, and the partitions of an owned group.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Show a group and its consumers. For an owned group, show its members, and its partitions with their
owners and with the failed messages that hold back their keys.

  busy       how long the consumer has held its oldest delivery at most
  idle       how long ago the consumer last called the server; a running one calls every few seconds
  owns       the partitions that the member owns; one without a partition stands by
  low        every entry up to this one is settled
  high       no entry after this one has begun
  held back  keys that wait for a failed message, which keeps its place and is tried again
  next try   when the first of these messages is tried again

Lists the ten oldest failed messages of each partition, with their keys and errors.",
    after_help = "\
Examples:
  redstart groups show orders billing
  redstart groups show orders billing --json | jq '.consumersOf[] | select(.idleForMs > 60000)'

With --json: the object of `groups`, and \"consumersOf\":[{\"consumer\",\"inFlight\",\"idleForMs\",\"live\",
\"deliveries\":[{\"id\",\"heldForMs\",\"leaseAgeMs\"}]}]: the longest held first; leaseAgeMs is null for
a delivery that its consumer gave back. An owned group also has \"partitions\":[{\"partition\",\"owner\",
\"token\",\"low\",\"high\",\"heldBack\",\"nextTryMs\",\"oldest\":[{\"id\",\"key\",\"type\",\"attempts\",\"error\",
\"since\",\"due\",\"nextTryMs\"}]}]: nextTryMs is negative for a message that is due or running."
)]
pub(crate) struct ShowGroupArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// The group
    #[arg(add = ArgValueCompleter::new(complete::groups))]
    pub(crate) group: Group,
}

/// Move a group in its topic: back to handle messages again, or forward to skip some.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Move a group in its topic: back to handle messages again, or forward to skip some.

By default retention removes messages once every group has settled them: the group can go back only
to those that the topic still holds. Messages that it skips are not delivered to it, and
retention can then remove them for good. Messages in flight, scheduled retries and dead letters
stay as they are, so the group can get such a message twice.

Stop the consumers of the group first: the server refuses while one was active in the last 120
seconds. It checks and moves in one step. The journal of the group keeps who reset it; `dead
journal` shows it.

Shows what it will do and asks for the group's name.",
    after_help = "\
Examples:
  redstart groups reset orders billing --to beginning --dry-run
  redstart groups reset orders billing --to 2025-11-12T14:20:00Z
  redstart groups reset orders billing --to 1763043600000-0 --yes

With --json: {\"topic\",\"group\",\"to\",\"moved\",\"liveConsumers\",\"before\",\"after\"}: before and
after are the newest ids that count as delivered; with --dry-run, and when a consumer is live,
{\"topic\",\"group\",\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\",\"to\",\"next\",\"more\",
\"liveConsumers\",\"refused\",\"confirmation\"}.

Exit codes: 0 reset, or with --dry-run resettable, 1 a consumer is live, the group does not exist,
or it was not confirmed, 2 wrong usage, or stdin is not a terminal."
)]
pub(crate) struct ResetArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// The group
    #[arg(add = ArgValueCompleter::new(complete::groups))]
    pub(crate) group: Group,
    /// The place to move the group to: beginning, end, an entry's id, a time such as 2025-11-12T14:20:00Z, or an age such as 2h
    #[arg(long, value_name = "PLACE", value_parser = place, allow_hyphen_values = true)]
    pub(crate) to: ResetTo,
    /// Show what would be done, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Skip the prompt
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// The operator's name for the journal [default: $USER or $LOGNAME, else `unknown`]
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
}

/// The entry that an id, a time or an age names, or the next one.
pub(in crate::args) fn entry_at(text: &str) -> Result<EntryId, String> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => moment(text)
            .map(EntryId::first_of)
            .map_err(|rule| format!("{rule}, or an id")),
    }
}

/// A place in a topic. A time is the first id of its millisecond.
fn place(text: &str) -> Result<ResetTo, String> {
    match text {
        "beginning" => return Ok(ResetTo::Beginning),
        "end" => return Ok(ResetTo::End),
        _ => {}
    }
    if let Ok(id) = text.parse() {
        return Ok(ResetTo::Entry(id));
    }
    let time = moment(text).map_err(|rule| format!("{rule}; or beginning, end, or an id"))?;
    Ok(ResetTo::Entry(EntryId::first_of(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_an_id_a_time_or_an_age() {
        let id = |millis, sequence| ResetTo::Entry(EntryId::new(millis, sequence));
        assert_eq!(place("beginning"), Ok(ResetTo::Beginning));
        assert_eq!(place("end"), Ok(ResetTo::End));
        assert_eq!(place("17-3"), Ok(id(17, 3)));
        assert_eq!(place("1970-01-01T00:00:01.5Z"), Ok(id(1500, 0)));
        assert!(matches!(place("2h"), Ok(ResetTo::Entry(id)) if id.millis > 0));
        for bad in ["", "17", "start", "-2h"] {
            let rule = place(bad).unwrap_err();
            assert!(rule.ends_with("or an id"), "{rule}");
        }
    }
}

/// Remove a group for good, with its retries and its dead letters.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Remove a group for good: its cursor, its unsettled messages, its retries and its dead letters. The
topic's entries and the other groups stay; retention can then remove entries that only this group
had not settled.

The server keeps a group that is in use, unless --force is given: one with undelivered, unsettled,
scheduled or dead messages, or with a consumer that was active in the last 120 seconds. It checks
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
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// The group
    #[arg(add = ArgValueCompleter::new(complete::groups))]
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
