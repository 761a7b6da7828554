//! The arguments of `tail`.

use clap::Args as ClapArgs;
use clap_complete::engine::ArgValueCompleter;
use redstart::Topic;
use redstart::envelope::EntryId;

use super::format::Format;
use super::{groups, number};
use crate::complete;

/// Show the entries of a topic, without consuming them.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Show the entries of a topic, without consuming them.

Each line has the entry's id, the time of the envelope, its type, and the payload as JSON. An
undecodable entry shows the reason and its fields. The tool escapes control characters.

A topic with retention `settled` removes entries once every group has settled them: with busy
consumers --follow misses some.",
    after_help = "\
Examples:
  redstart tail orders                       the newest ten entries
  redstart tail orders --last 0 --follow     new entries only
  redstart tail orders --from 2h --max 20    the first twenty of the last two hours
  redstart tail orders --from-beginning --max 100 --json | jq .envelope.payload
  redstart tail orders --from-beginning --json | redstart publish copy --from -
  redstart tail orders --from-beginning --format cloudevents

With --json every line is {\"id\",\"codec\",\"envelope\":{…}}, the envelope as on the wire. Where that
JSON loses a part of the message, such as a binary value, \"fields\" holds the message exactly. An
undecodable entry is {\"id\",\"undecodable\",\"fields\":[…]}. `redstart publish --from` takes these
lines back. With --envelope and with --format the tool reports an undecodable entry on stderr.

Exit codes: 0 shown, 1 failed, or with --envelope or
--format an entry was undecodable, 2 wrong usage."
)]
pub(crate) struct TailArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// Start at the oldest entry
    #[arg(long, conflicts_with = "last")]
    pub(crate) from_beginning: bool,
    /// Start at an entry's id, a time such as 2025-11-12T14:20:00Z, or an age such as 2h
    #[arg(long, value_name = "PLACE", value_parser = groups::entry_at, conflicts_with_all = ["from_beginning", "last"], allow_hyphen_values = true)]
    pub(crate) from: Option<EntryId>,
    /// Start with the newest N entries
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = number::from_zero::<usize>, allow_negative_numbers = true)]
    pub(crate) last: usize,
    /// Keep showing new entries; waits for a topic that does not exist yet
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Write only the envelopes, as JSON, for `publish --envelope`
    #[arg(long)]
    pub(crate) envelope: bool,
    /// Write each message in this format, for `publish --format`
    #[arg(long, value_enum, conflicts_with = "envelope")]
    pub(crate) format: Option<Format>,
    /// With --format cloudevents, the source of messages that have none [default: a URN of the
    /// namespace and the topic, such as urn:redstart:shop:orders]
    #[arg(long, value_name = "URI", requires = "format")]
    pub(crate) source: Option<String>,
    /// Stop after N entries
    #[arg(long, visible_alias = "limit", value_name = "N", value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: Option<usize>,
}
