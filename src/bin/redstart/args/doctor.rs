//! The command line of `doctor`.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::duration;

/// Look for what may go wrong.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Look for what may go wrong: the server's version, memory, persistence, clock and scripts, the
namespace's layout, topics near their backlog limit, groups that no consumer serves and that pin
their topic, retries that nobody brings back. Changes nothing.

  ok       as it should be
  unknown  could not be found out, for want of a permission
  warning  messages are safe now; it may cost some later
  problem  messages are lost or work stands still, or either is about to happen",
    after_help = "\
Examples:
  redstart doctor
  redstart doctor --strict && ./deploy
  redstart doctor --json | jq '.findings[] | select(.level == \"problem\")'

With --json: {\"level\",\"findings\":[{\"level\",\"check\",\"what\",\"why\",\"advice\"}]}; level is that of the
worst finding.

Exit codes: 0 no problem, 1 a problem, or with --strict a warning, 2 wrong usage."
)]
pub(crate) struct DoctorArgs {
    /// A group counts as stuck when messages wait and no consumer was heard of for so long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    pub(crate) stuck_after: Duration,
    /// A warning counts as a problem
    #[arg(long)]
    pub(crate) strict: bool,
}
