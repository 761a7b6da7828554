//! The command line of `top`.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::duration;

/// Watch groups live: lag, rates, ages, dead letters.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Watch groups live: lag, rates, ages, dead letters. Enter opens a group with its consumers and the
causes of its dead letters. Reads only; the rights of a viewer are enough.

  in/s, out/s  entries published to the topic and delivered to the group, in the last ten seconds
  oldest       the age of the oldest entry that is not delivered yet
  busy         how long the oldest delivery has been in flight
  died         messages that died in the last ten seconds

Keys: arrows or j and k to move, Enter to open, Esc to go back, s to sort by another column, / to
filter, space to freeze the figures, q to quit.",
    after_help = "\
Examples:
  redstart top
  redstart top billing --every 5s

A pipe gets the same figures from `redstart metrics --json`."
)]
pub(crate) struct TopArgs {
    /// Show only groups and topics whose name contains this text
    pub(crate) filter: Option<String>,
    /// How often to measure
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = pace)]
    pub(crate) every: Duration,
}

/// A time that a server can keep up with.
fn pace(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time < Duration::from_millis(200) {
        return Err("must be at least 200ms".to_owned());
    }
    Ok(time)
}
