//! The command line of `topics`.

use clap::{Args as ClapArgs, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use redstart::Topic;
use redstart::topics::Retention;

use super::number;
use crate::complete;
use crate::duration;

/// List the topics, create one, change its settings, or remove it.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  redstart topics
  redstart topics create orders --retention 7d --backlog-limit 200000
  redstart topics settings orders --retention 30d
  redstart topics remove orders --dry-run

With --json: one array of {\"topic\",\"entries\",\"later\",\"retention\",\"backlogLimit\",\"partitions\",
\"groups\":[{\"group\",\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\"}]}; later counts messages for
later; backlogLimit is null where the limit is off."
)]
pub(crate) struct TopicsArgs {
    /// Show at most N
    #[arg(long, short = 'n', visible_alias = "limit", value_name = "N", value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: Option<usize>,
    #[command(subcommand)]
    pub(crate) action: Option<TopicsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsAction {
    Create(CreateArgs),
    Settings(TopicSettingsArgs),
    Remove(RemoveTopicArgs),
}

/// Create a topic with its settings.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Create a topic with its settings. Publishing and subscribing create a missing topic with the
defaults, so create one with other settings first; `topics settings` changes them later.

A topic that exists with the same settings counts as created. One that exists with other settings
keeps them, and the command fails. Whatever the retention, a topic keeps each entry until every group
has settled it.",
    after_help = "\
Examples:
  redstart topics create orders
  redstart topics create orders --retention 7d
  redstart topics create metrics --retention 1000000 --backlog-limit none
  redstart topics create orders --partitions 12

With --json: {\"topic\",\"retention\",\"backlogLimit\",\"partitions\"}; backlogLimit is null where the limit is off."
)]
pub(crate) struct CreateArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// Which settled entries the topic keeps: settled (none), those of a time such as 7d, or a number of entries
    #[arg(long, value_name = "KEEP", default_value = "settled", value_parser = retention, allow_hyphen_values = true)]
    pub(crate) retention: Retention,
    /// Refuse publishes from this number of unsettled messages on; `none` switches the limit off
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = limit, allow_hyphen_values = true)]
    pub(crate) backlog_limit: u64,
    /// The number of partitions, from 1 to 256; it never changes
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256), allow_negative_numbers = true)]
    pub(crate) partitions: u16,
}

/// Show the settings of a topic, or change them.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Show the settings of a topic, or change them.

New settings apply to retention at once, and to publishers within 30 seconds. Services that create the topic
in their code with other settings fail when they start: change the code too. The journal of each group
keeps who changed them; `dead journal` shows it.

Shows what it will change and asks for the topic's name.",
    after_help = "\
Examples:
  redstart topics settings orders
  redstart topics settings orders --retention 7d --dry-run
  redstart topics settings orders --backlog-limit 2000000 --yes

With --json: {\"topic\",\"retention\",\"backlogLimit\",\"partitions\"}; with --dry-run {\"topic\",
\"before\":{\"retention\",\"backlogLimit\",\"partitions\"},\"after\":{…},\"entries\",\"backlog\",\"confirmation\"}.

Exit codes: 0 shown, changed or already as wanted, 1 failed or not confirmed, 2 wrong usage, or stdin is
not a terminal."
)]
pub(crate) struct TopicSettingsArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// Which settled entries the topic keeps: settled (none), those of a time such as 7d, or a number of entries
    #[arg(long, value_name = "KEEP", value_parser = retention, allow_hyphen_values = true)]
    pub(crate) retention: Option<Retention>,
    /// Refuse publishes from this number of unsettled messages on; `none` switches the limit off
    #[arg(long, value_name = "N", value_parser = limit, allow_hyphen_values = true)]
    pub(crate) backlog_limit: Option<u64>,
    /// Show what would be changed, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Skip the prompt
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// The operator's name for the journal [default: $USER or $LOGNAME, else `unknown`]
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
}

impl TopicSettingsArgs {
    /// Whether the command changes settings, rather than showing them.
    pub(crate) fn changes(&self) -> bool {
        (self.retention.is_some() || self.backlog_limit.is_some()) && !self.dry_run
    }
}

/// Remove a topic for good, with its entries and its groups.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Remove a topic for good, with its entries and its groups, their retries and their dead letters.

The server keeps a topic that is in use, unless --force is given: one with a group that has
undelivered, unsettled, scheduled or dead messages, or a consumer that was active in the last 120
seconds. Stop publishers and consumers first: they create the topic again. An administrator removes
topics; the role operator may not.

Shows what it will remove and asks for the topic's name.",
    after_help = "\
Examples:
  redstart topics remove orders --dry-run
  redstart topics remove orders --force --yes

With --json: {\"topic\",\"removed\",\"entries\",\"groups\"}; with --dry-run, and when the topic is in use,
{\"topic\",\"entries\",\"groups\":[…],\"liveConsumers\",\"force\",\"refused\",\"confirmation\"}.

Exit codes: 0 removed, or with --dry-run removable, 1 the topic is in use, does not exist, or was not
confirmed, 2 wrong usage, or stdin is not a terminal."
)]
pub(crate) struct RemoveTopicArgs {
    /// The topic
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Topic,
    /// Remove the topic even if it is in use
    #[arg(long)]
    pub(crate) force: bool,
    /// Show what would be removed, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Skip the prompt
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// The operator's name for the log [default: $USER or $LOGNAME, else `unknown`]
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
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
