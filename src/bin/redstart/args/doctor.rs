//! The command line of `doctor`.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::duration;

/// Check the server, the namespace and its groups for problems.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Check the server, the namespace and its groups for problems: the server's version, memory,
persistence, clock and scripts, whether it takes writes, the namespace's layout, topics near their
backlog limit, entry ids ahead of the clock, entries removed before delivery, groups without a
consumer, overdue retries, deliveries held for long, topics that nobody trims, partitions without an
owner, keys that wait for a failed message. Changes nothing.

  ok       works as it should
  unknown  cannot be checked, because the user lacks a permission
  warning  messages are safe now, and could be lost later
  problem  messages are lost or work stands still, or soon will",
    after_help = "\
Examples:
  redstart doctor
  redstart doctor --strict && ./deploy
  redstart doctor --json | jq '.findings[] | select(.severity == \"problem\")'

With --json: {\"severity\",\"findings\":[{\"severity\",\"check\",\"what\",\"why\",\"advice\"}]}. The first
severity is the worst of all findings.

Exit codes: 0 no problem, 1 a problem, or with --strict a warning, 2 wrong usage."
)]
pub(crate) struct DoctorArgs {
    /// Report a group with undelivered messages if no consumer was active for this long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) stuck_after: Duration,
    /// Report a delivery that a consumer has held for this long, and a key that has waited for this long
    /// for a failed message [default: 15m, or for a delivery ten leases of the group if that is longer]
    #[arg(long = "held-after", value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) longest_pending: Option<Duration>,
    /// Treat a warning as a problem
    #[arg(long)]
    pub(crate) strict: bool,
}
