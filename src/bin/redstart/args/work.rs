//! The command line of `work`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{GroupOf, number};
use crate::duration;

/// Handle messages with a command or an HTTP endpoint, written in any language.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Handle the messages of a group with a command or an HTTP endpoint, written in any language.

--exec runs a command once for each message, by /bin/sh. It gets the payload as JSON on its standard
input, and the rest in its environment:

  REDSTART_TOPIC, REDSTART_GROUP, REDSTART_ATTEMPT (from 1), REDSTART_MESSAGE_ID,
  REDSTART_MESSAGE_TYPE, REDSTART_MESSAGE_TS, and where the message has them
  REDSTART_MESSAGE_CORR_ID, REDSTART_MESSAGE_TENANT_ID, REDSTART_MESSAGE_KEY,
  REDSTART_MESSAGE_HEADERS (a JSON object), TRACEPARENT (the header of this name)

Its exit code ends the attempt:

  0           the group is done with the message
  65          dead letter: no attempt can succeed
  69          a service that it needs is away: again later, and no attempt counts
  126, 127    the command cannot run: the worker stops, and no attempt counts
  75, others  the attempt failed: again by the retry policy, or a dead letter after the last attempt

The error of a failed attempt is the last text that the command wrote to its standard error.

--http posts the payload as JSON, with the rest in headers: Redstart-Topic, Redstart-Message-Id and so
on, named like the variables, and Traceparent. A token in REDSTART_WORK_TOKEN goes along as
`Authorization: Bearer`. The status of the answer ends the attempt:

  2xx                       the group is done with the message
  400, 413, 415, 422        dead letter: no attempt can succeed
  429, 503                  busy: again after Retry-After, or later; no attempt counts
  3xx, 401, 403, 404, 405,  the wrong endpoint, or none: again later, and no attempt counts
  410, no connection
  others, or none           the attempt failed: again after Retry-After or by the retry policy, or a
                            dead letter after the last attempt

The time of an attempt begins once a connection is open; connecting may take 10 s, or --timeout if
that is less. A status counts also where the rest of the answer does not come.

Messages come at least once: after a crash of the worker, a message may be handled again.

On SIGTERM or ctrl-c the worker takes no more messages, and waits for the running handlers until
--grace ends. It cuts off those that still run and gives their messages back; no attempt counts. A
second signal does so at once.",
    after_help = "\
Examples:
  redstart work orders billing --exec 'python3 charge.py'
  redstart work orders billing --exec 'node charge.mjs' --concurrency 4 --timeout 30s
  redstart work orders billing --http http://127.0.0.1:8080/charge --max-attempts 5

Exit codes: 0 stopped by a signal, 1 failed, or handlers still ran at the end of the grace,
2 wrong usage, 130 a second signal."
)]
pub(crate) struct WorkArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// Run this command by /bin/sh for each message
    #[arg(
        long,
        value_name = "COMMAND",
        required_unless_present = "http",
        conflicts_with = "http"
    )]
    pub(crate) exec: Option<String>,
    /// Post each message to this http:// URL
    #[arg(long, value_name = "URL")]
    pub(crate) http: Option<String>,
    /// Handle at most N messages at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) concurrency: usize,
    /// End an attempt that takes longer, a command first with SIGTERM and after 5 s with SIGKILL
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) timeout: Duration,
    /// Attempts before a message becomes a dead letter [default: that of the retry policy]
    #[arg(long, value_name = "N", value_parser = number::from_one::<u32>, allow_negative_numbers = true)]
    pub(crate) max_attempts: Option<u32>,
    /// How long running handlers may take after the first signal
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) grace: Duration,
}
