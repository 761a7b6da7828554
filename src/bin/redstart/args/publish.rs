//! The arguments of `publish`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use clap_complete::engine::ArgValueCompleter;
use redstart::envelope::Timestamp;
use redstart::schedules::ScheduleId;
use redstart::{Durability, Topic};

use super::format::Format;
use crate::complete;
use crate::duration;

/// Publish lines of JSON from stdin.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Publish lines of JSON from stdin, in their order.

Each line is the payload of one message; the options set the other fields. With --envelope each
line is an envelope as on the wire: type, payload, and optionally id, corrId, tenantId, key,
headers. The options then fill the fields that a line leaves out. The tool ignores ts, attempts and
lastError, because it publishes a new message. A line with any other field fails, unless
--keep-unknown is given. It skips empty lines.

With --format cloudevents each line is a CloudEvent 1.0 as JSON. The message keeps its id, its time
and all of its attributes; the options fill the subject, tenantid and correlationid that it leaves
out.

With --from each line of the file is one of `redstart tail --json`. The copy has every part of the
message, byte for byte and in its own codec: binary values, long numbers, unknown fields, id and
time. It begins with no failed attempts. The tool reports a line without a message or with an
undecodable one.

With --at or --after the server keeps the messages and publishes them when they are due. They wait
under the ids of their envelopes, or under --id; `redstart schedules` lists them. A message with the
id of one that waits replaces it.

The tool reports a line that fails on stderr, with its number and the rule that it breaks, and
publishes the others, unless --stop-on-error is set.",
    after_help = "\
Examples:
  echo '{\"cents\":1250}' | redstart publish orders --type order.placed --key order-7
  redstart publish orders --envelope < orders.ndjson
  redstart tail orders --from-beginning --json | redstart publish copy --from -
  curl -s https://example.org/events | redstart publish orders --format cloudevents
  echo '{\"order\":7}' | redstart publish reminders --type order.unpaid --after 1d --id order-7

With --json: {\"published\",\"duplicates\",\"failed\",\"unknown\"}, four counts. A duplicate was published
before, within the deduplication window. An unknown message may have been published: the connection
broke after the tool sent it. With --at and --after also \"scheduled\"; \"published\" is then 0.

Exit codes: 0 all published or scheduled, 1 a message failed or is unknown, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct PublishArgs {
    /// The topic; publishing creates a missing one
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// The messages' type, such as order.placed
    #[arg(
        long = "type",
        value_name = "TYPE",
        required_unless_present_any = ["envelope", "format", "from"]
    )]
    pub(crate) message_type: Option<String>,
    /// Read each line as an envelope and not as a payload
    #[arg(long)]
    pub(crate) envelope: bool,
    /// Read each line as a message in this format
    #[arg(long, value_enum, conflicts_with_all = ["envelope", "message_type"])]
    pub(crate) format: Option<Format>,
    /// Publish the messages of this file, lines of `redstart tail --json`; - reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["envelope", "format", "message_type", "key", "tenant", "correlation", "headers"])]
    pub(crate) from: Option<PathBuf>,
    /// The messages' ordering key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The messages' tenant
    #[arg(long, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// The messages' correlation id [default: a new one for each]
    #[arg(long, value_name = "ID")]
    pub(crate) correlation: Option<String>,
    /// A header; repeat for several
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// What a message must survive before it counts as published: accepted, fsynced,
    /// replicated:REPLICAS or replicated:REPLICAS:TIME
    #[arg(long, value_name = "LEVEL", default_value = "accepted")]
    pub(crate) durability: Durability,
    /// With --envelope, publish fields that this version does not know as they are
    #[arg(long, requires = "envelope")]
    pub(crate) keep_unknown: bool,
    /// Publish the messages at this time, in the form of RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    pub(crate) at: Option<Timestamp>,
    /// Publish the messages after this time, such as 90s, 15m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) after: Option<Duration>,
    /// With --at or --after, the id of the message for later; only for one line [default: the id of
    /// the envelope]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<ScheduleId>,
    /// Stop at the first line that fails
    #[arg(long)]
    pub(crate) stop_on_error: bool,
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_a_name_and_any_value() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(header("a="), Ok(("a".to_owned(), String::new())));
        assert!(header("=b").is_err());
        assert!(header("a").is_err());
    }
}
