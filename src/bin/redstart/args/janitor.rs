//! The command line of `janitor`.

use std::time::Duration;

use clap::Args as ClapArgs;
use clap_complete::engine::ArgValueCompleter;
use redstart::Topic;

use crate::complete;
use crate::duration;

/// Trim topics that no consumer of Redstart reads, and bring their due retries back.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Keep house for topics that no consumer of Redstart reads; for all other topics such consumers do it.
Each round removes the entries that a topic's retention no longer asks for, brings due retries
back to their groups, and removes consumers that have been inactive for 5 minutes and hold nothing.
Entries that a group has not settled stay.

Without a TOPIC it keeps house for all topics of the namespace. Name a topic that only other programs
write to: the first round then enters it in the namespace, with the settings of a new topic.

The janitor does not take deliveries from a consumer that died. The other consumers of its group do
that, with XAUTOCLAIM.

It writes a line for each topic where it did something. While the server is away it tries again. On
SIGTERM or ctrl-c it ends after the topic in hand. Several janitors may run at once. The rights of the
role `janitor` are enough.",
    after_help = "\
Examples:
  redstart janitor
  redstart janitor orders invoices --every 1m
  redstart janitor --once
  redstart print systemd --name redstart-janitor -- /usr/local/bin/redstart janitor

With --json every line is {\"topic\",\"removed\",\"promoted\",\"pruned\"}; with --once there is one for
every topic.

Exit codes: 0 stopped by a signal, or with --once done, 1 failed, 2 wrong usage."
)]
pub(crate) struct JanitorArgs {
    /// The topics [default: all]
    #[arg(value_name = "TOPIC")]
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topics: Vec<Topic>,
    /// The time between two rounds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) every: Duration,
    /// Do one round and end
    #[arg(long, conflicts_with = "every")]
    pub(crate) once: bool,
}
