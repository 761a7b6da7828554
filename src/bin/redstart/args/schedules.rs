//! The command line of `schedules`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use redstart::Topic;
use redstart::envelope::Timestamp;
use redstart::schedules::{ScheduleId, When};

use super::number;
use crate::complete;
use crate::duration;

/// List messages for later, reschedule them, or cancel them.
#[derive(Debug, ClapArgs)]
pub(crate) struct SchedulesArgs {
    #[command(subcommand)]
    pub(crate) action: SchedulesAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchedulesAction {
    List(ListSchedulesArgs),
    Cancel(CancelSchedulesArgs),
    Reschedule(RescheduleArgs),
}

/// List the messages for later of a topic, the earliest first.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
List the messages for later of a topic, the earliest first. `cancel` and `reschedule` take the ids.
`publish --at` and `publish --after` schedule a message.",
    after_help = "\
Examples:
  redstart schedules list reminders
  redstart schedules list reminders --max 100000 --json | jq -r .id

With --json every line is {\"id\",\"partition\",\"due\",\"dueInMs\",\"envelope\":{…}}, the envelope as on the wire. An
undecodable message has \"undecodable\" and \"fields\" in place of \"envelope\"."
)]
pub(crate) struct ListSchedulesArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// Stop after N
    #[arg(long, short = 'n', visible_alias = "limit", value_name = "N", default_value_t = 100, value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: usize,
    /// Only the messages of this partition of the topic
    #[arg(long, value_name = "N", value_parser = number::from_zero::<u16>, allow_negative_numbers = true)]
    pub(crate) partition: Option<u16>,
}

/// Cancel messages for later: remove them for good.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart schedules cancel reminders order-7
  redstart schedules list reminders --json > copy.ndjson    # keep a copy first

An id can name a message in each partition of a topic, under different keys. This cancels all of them
and says how many; with --partition it cancels the one of that partition.

With --json: {\"cancelled\",\"missing\"}, the number of messages and that of ids that named none. A
message that has become due is missing.

Exit codes: 0 all cancelled, 1 an id is not scheduled, 2 wrong usage.")]
pub(crate) struct CancelSchedulesArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// Ids, as `list` shows them
    #[arg(value_name = "ID", required = true, add = ArgValueCompleter::new(complete::schedules))]
    pub(crate) ids: Vec<ScheduleId>,
    /// Only the messages of this partition of the topic
    #[arg(long, value_name = "N", value_parser = number::from_zero::<u16>, allow_negative_numbers = true)]
    pub(crate) partition: Option<u16>,
}

/// Change when a message for later is due.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart schedules reschedule reminders order-7 --after 2h
  redstart schedules reschedule reminders order-7 --at 2031-05-01T08:00:00Z
  redstart schedules reschedule reminders order-7 --after 0s     # now

An id can name a message in each partition of a topic, under different keys. This changes all of them
and says how many; with --partition it changes the one of that partition.

With --json: {\"id\",\"due\",\"messages\"}, the earliest new time and the number of messages.

Exit codes: 0 rescheduled, 1 the id is not scheduled, 2 wrong usage.")]
pub(crate) struct RescheduleArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// The id, as `list` shows it
    #[arg(add = ArgValueCompleter::new(complete::schedules))]
    pub(crate) id: ScheduleId,
    #[command(flatten)]
    pub(crate) when: WhenArgs,
    /// Only the messages of this partition of the topic
    #[arg(long, value_name = "N", value_parser = number::from_zero::<u16>, allow_negative_numbers = true)]
    pub(crate) partition: Option<u16>,
}

/// A due time.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct WhenArgs {
    /// The new time, in the form of RFC 3339
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
    /// The new time, counted from now, such as 90s, 15m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) after: Option<Duration>,
}

/// The due time that the options name, if they do.
pub(crate) fn when(at: Option<Timestamp>, after: Option<Duration>) -> Option<When> {
    at.map(When::At).or(after.map(When::After))
}
