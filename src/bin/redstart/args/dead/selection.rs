//! The selection of dead letters on the command line.

use clap::Args as ClapArgs;
use uuid::Uuid;

use redstart::{
    dead_letters::{DeadLetterFilter, Reason, Selection},
    envelope::{EntryId, Timestamp},
    memory::{Clock as _, SystemClock},
};

use super::super::number;
use crate::duration;
use crate::failure::{Failure, chain};

/// Conditions; a dead letter must meet all of them.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Which")]
pub(crate) struct FilterArgs {
    /// The reason: exhausted, rejected, undecodable, crashed or unhandled
    #[arg(long)]
    pub(crate) reason: Option<Reason>,
    /// The folded error, as `summary` shows it, or one error of that cause
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) fingerprint: Option<String>,
    /// A part of the error, in upper or lower case, or as `list` or `summary` shows it
    #[arg(long, value_name = "TEXT", value_parser = part, allow_hyphen_values = true)]
    pub(crate) error: Option<String>,
    /// A regular expression for the error
    #[arg(long, value_name = "REGEX", value_parser = pattern, allow_hyphen_values = true)]
    pub(crate) error_pattern: Option<String>,
    /// The message type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) message_type: Option<String>,
    /// The tenant; '' for messages without one
    #[arg(long, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// The correlation id
    #[arg(long, value_name = "ID")]
    pub(crate) correlation: Option<String>,
    /// Died at this time or later: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub(crate) since: Option<Timestamp>,
    /// Died at this time or earlier
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub(crate) until: Option<Timestamp>,
    /// At least N attempts
    #[arg(long, value_name = "N", value_parser = number::from_one::<u32>, allow_negative_numbers = true)]
    pub(crate) min_attempts: Option<u32>,
    /// At most N attempts
    #[arg(long, value_name = "N", value_parser = number::from_zero::<u32>, allow_negative_numbers = true)]
    pub(crate) max_attempts: Option<u32>,
    /// Redriven before
    #[arg(long, conflicts_with = "never_redriven")]
    pub(crate) redriven: bool,
    /// Never redriven
    #[arg(long)]
    pub(crate) never_redriven: bool,
    /// Died again after this operation redrove them
    #[arg(long, value_name = "OPERATION", conflicts_with = "never_redriven")]
    pub(crate) redriven_by: Option<Uuid>,
}

/// Ids, conditions, or all: exactly one of them.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct SelectionArgs {
    /// Ids, as `list` shows them
    #[arg(value_name = "ID", group = "selection")]
    pub(crate) ids: Vec<EntryId>,
    /// All dead letters of the group
    #[arg(long, group = "selection")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

impl FilterArgs {
    /// The filter, or the rule that the conditions break.
    pub(crate) fn filter(&self) -> Result<DeadLetterFilter, String> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            return Err(format!(
                "--since {since} is later than --until {until}: no dead letter can match"
            ));
        }
        if let (Some(least), Some(most)) = (self.min_attempts, self.max_attempts)
            && least > most
        {
            return Err(format!(
                "--min-attempts {least} is more than --max-attempts {most}: no dead letter can match"
            ));
        }
        let mut filter = DeadLetterFilter::default();
        if let Some(reason) = self.reason {
            filter = filter.with_reason(reason);
        }
        if let Some(text) = &self.fingerprint {
            filter = filter.with_fingerprint(text);
        }
        if let Some(text) = &self.error {
            filter = filter.with_error(text).map_err(|error| chain(&error))?;
        }
        if let Some(pattern) = &self.error_pattern {
            let filtered = filter.with_error_pattern(pattern);
            filter = filtered.map_err(|error| chain(&error))?;
        }
        if let Some(message_type) = &self.message_type {
            filter = filter.with_message_type(message_type);
        }
        if let Some(tenant) = &self.tenant {
            filter = filter.with_tenant(tenant);
        }
        if let Some(id) = &self.correlation {
            filter = filter.with_correlation(id);
        }
        if let Some(since) = self.since {
            filter = filter.with_since(since);
        }
        if let Some(until) = self.until {
            filter = filter.with_until(until);
        }
        if let Some(least) = self.min_attempts {
            filter = filter.with_min_attempts(least);
        }
        if let Some(most) = self.max_attempts {
            filter = filter.with_max_attempts(most);
        }
        if self.redriven || self.never_redriven {
            filter = filter.with_redriven(self.redriven);
        }
        if let Some(operation) = self.redriven_by {
            filter = filter.with_redriven_by(operation);
        }
        Ok(filter)
    }
}

impl FilterArgs {
    /// Refuses conditions that break a rule.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.filter().map(drop).map_err(Failure::usage)
    }
}

impl SelectionArgs {
    /// The selection, or the rule that the command line breaks.
    pub(crate) fn selection(&self) -> Result<Selection, String> {
        let filter = self.filter.filter()?;
        match (self.ids.is_empty(), self.all, filter.matches_all()) {
            (false, false, true) => Ok(Selection::Ids(self.ids.clone())),
            (true, true, true) | (true, false, false) => Ok(filter.into()),
            (true, false, true) => Err(
                "select dead letters: give ids, a condition such as --reason, or --all".to_owned(),
            ),
            _ => Err("give either ids, or conditions, or --all".to_owned()),
        }
    }
}

/// Checks the text before the tool connects.
fn part(text: &str) -> Result<String, String> {
    not_empty(text)?;
    let filter = DeadLetterFilter::default().with_error(text);
    filter.map_err(|error| chain(&error))?;
    Ok(text.to_owned())
}

/// Checks the pattern before the tool connects.
fn pattern(text: &str) -> Result<String, String> {
    not_empty(text)?;
    let filter = DeadLetterFilter::default().with_error_pattern(text);
    filter.map_err(|error| chain(&error))?;
    Ok(text.to_owned())
}

/// An empty text is in every error: it would select everything without --all.
fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty; --all selects all dead letters".to_owned());
    }
    Ok(())
}

/// A time, or an age.
pub(in crate::args) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let rule = || {
        let forms = "must be a time such as 2025-11-12T14:20:00Z, or an age such as 2h";
        match text.strip_prefix('-') {
            Some(age) if duration::parse(age).is_ok() => {
                format!("{forms}; an age has no sign: write {age}")
            }
            _ => forms.to_owned(),
        }
    };
    let ago = duration::parse(text).map_err(|_| rule())?;
    let now = SystemClock.now().as_millis();
    let ago = i64::try_from(ago.as_millis()).map_err(|_| rule())?;
    Timestamp::from_millis(now.saturating_sub(ago)).map_err(|_| rule())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct TestArgs {
        #[command(flatten)]
        which: SelectionArgs,
    }

    fn read(line: &str) -> Result<String, String> {
        let words = line.split_whitespace();
        let line = TestArgs::try_parse_from(["dead"].into_iter().chain(words));
        let line = line.map_err(|error| error.to_string())?;
        line.which
            .selection()
            .map(|selection| selection.to_string())
    }

    #[test]
    fn exactly_one_of_ids_conditions_and_all_is_given() {
        assert_eq!(read("1-1").unwrap(), "1-1");
        assert_eq!(read("1-1 2-2").unwrap(), "2 ids");
        assert!(read("--all").is_ok());
        assert_eq!(
            read("--reason expired").unwrap(),
            "reason expired",
            "for records of other versions"
        );
        assert_eq!(
            read("--type t --reason crashed").unwrap(),
            "reason crashed, type \"t\""
        );
        for bad in [
            "",
            "--all 1-1",
            "--all --type t",
            "1-1 --type t",
            "--reason bored",
            "x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("--redriven --never-redriven").is_err());
        for contradiction in ["--since 1h --until 2h", "--min-attempts 3 --max-attempts 2"] {
            let rule = read(contradiction).unwrap_err();
            assert!(rule.ends_with("no dead letter can match"), "{rule}");
        }
        for bad in ["--since -2h", "--min-attempts 0", "--max-attempts -1"] {
            let (name, value) = bad.split_once(' ').unwrap();
            let rule = read(bad).unwrap_err();
            assert!(rule.contains(name) && rule.contains(value), "{rule}");
            assert!(rule.contains("must be a"), "{rule}");
        }
        for empty in ["--error=", "--error-pattern="] {
            assert!(
                read(empty).unwrap_err().contains("must not be empty"),
                "{empty}"
            );
        }
        assert!(read("--error-pattern (").unwrap_err().contains("pattern"));
    }

    #[test]
    fn a_time_can_be_an_age() {
        let time = moment("2025-11-12T14:20:00Z").unwrap();
        assert_eq!(time.to_string(), "2025-11-12T14:20:00.000Z");
        let now = SystemClock.now().as_millis();
        let ago = now - moment("2h").unwrap().as_millis();
        assert!((7_190_000..=7_200_000).contains(&ago), "{ago}");
        assert!(moment("yesterday").is_err());
        let rule = moment("-2h").unwrap_err();
        assert!(rule.ends_with("an age has no sign: write 2h"), "{rule}");
    }
}
