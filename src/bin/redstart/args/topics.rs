//! The command line of `topics`.

use clap::{Args as ClapArgs, Subcommand};
use redstart::Topic;
use redstart::topics::Retention;

use super::number;
use crate::duration;

/// List the topics, or create one.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart topics
  redstart topics create orders --retention 7d --backlog-limit 200000

With --json: one array of {\"topic\",\"entries\",\"later\",\"retention\",\"backlogLimit\",\"groups\":[{\"group\",
\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\"}]}; later counts messages for later; backlogLimit is null where the limit is off.")]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    pub(crate) action: Option<TopicsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsAction {
    Create(CreateArgs),
}

/// Create a topic with its settings.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Create a topic with its settings, which stay as they are from then on. Publishing and subscribing
create a missing topic with the defaults, so create one with other settings first.

A topic that exists with the same settings counts as created. One that exists with other settings
keeps them, and the command fails. Whatever the retention, a topic keeps each entry until every group
has settled it.",
    after_help = "\
Examples:
  redstart topics create orders
  redstart topics create orders --retention 7d
  redstart topics create metrics --retention 1000000 --backlog-limit none

With --json: {\"topic\",\"retention\",\"backlogLimit\"}; backlogLimit is null where the limit is off."
)]
pub(crate) struct CreateArgs {
    /// The topic
    pub(crate) topic: Topic,
    /// How long it keeps settled entries: settled (not at all), a time such as 7d, or a number of entries
    #[arg(long, value_name = "KEEP", default_value = "settled", value_parser = retention, allow_hyphen_values = true)]
    pub(crate) retention: Retention,
    /// Publishing fails from this number of unsettled entries on; none to switch the limit off
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = limit, allow_hyphen_values = true)]
    pub(crate) backlog_limit: u64,
}

/// `settled`, a time, a number of entries, or a retention as `topics` prints it.
fn retention(text: &str) -> Result<Retention, String> {
    if let Ok(entries) = text.parse() {
        return Ok(Retention::Count(entries));
    }
    if let Ok(age) = duration::parse(text) {
        return match age.as_millis() {
            0 => Err("must be at least one millisecond".to_owned()),
            _ => Ok(Retention::Age(age)),
        };
    }
    let rule = "must be settled, a time such as 7d, or a number of entries";
    text.parse().map_err(|_| rule.to_owned())
}

fn limit(text: &str) -> Result<u64, &'static str> {
    match text {
        "none" => Ok(u64::MAX),
        _ => number::from_one(text).map_err(|_| "must be a whole number from 1, or none"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_retention_is_a_word_a_time_or_a_count() {
        let week = Retention::Age(Duration::from_secs(604_800));
        for (text, kept) in [
            ("settled", Retention::Settled),
            ("7d", week),
            ("age:604800000", week),
            ("5000", Retention::Count(5000)),
            ("length:5000", Retention::Count(5000)),
        ] {
            assert_eq!(retention(text), Ok(kept), "{text}");
        }
        for bad in ["", "-1", "-7d", "0s", "for ever"] {
            assert!(retention(bad).is_err(), "{bad}");
        }
        assert_eq!(limit("none"), Ok(u64::MAX));
        assert_eq!(limit("7"), Ok(7));
        assert!(limit("0").is_err() && limit("off").is_err());
    }
}
