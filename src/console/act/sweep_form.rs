//! The fields of a sweep: what it does, to which dead letters, how fast, and until when.

use std::time::Duration;

use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as FieldError, MapDeserializer};

use super::fields::{FormFields, duration, typed};
use crate::console::dead::filter::FilterForm;
use crate::console::page::Command;
use crate::domain::{EntryId, Selection, Sweep, SweepAction, Timestamp, Topic};

/// How many ids a form may name.
const MAX_IDS: usize = 1_000;

/// A sweep as a form has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::console) struct SweepForm {
    /// `redrive`, `publish` or `purge`.
    pub(super) action: String,
    pub(super) to: String,
    pub(in crate::console) ids: Vec<EntryId>,
    /// Set by the button for everything that matches.
    pub(super) all: bool,
    pub(in crate::console) filter: FilterForm,
    /// The newest dead letter that the preview showed.
    pub(super) up_to: Option<EntryId>,
    pub(super) rate: String,
    pub(super) ramp: String,
    pub(super) stop: String,
    pub(super) note: String,
    /// What the operator typed to confirm.
    pub(super) typed: String,
    /// Set to look at everything, however long that takes.
    pub(super) count_all: bool,
}

impl SweepForm {
    pub(in crate::console) fn read(fields: &FormFields) -> Result<Self, String> {
        let ids = fields.all("id").filter(|id| !id.is_empty());
        let ids = ids.map(|id| {
            id.parse::<EntryId>()
                .map_err(|_| format!("{id} is not an id"))
        });
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        if ids.len() > MAX_IDS {
            return Err(format!(
                "select at most {MAX_IDS} dead letters, or use a filter"
            ));
        }
        let up_to = match fields.get("up_to") {
            "" => None,
            id => Some(
                id.parse()
                    .map_err(|_| "the form has no valid watermark".to_owned())?,
            ),
        };
        // The filter reads its own fields and ignores the others.
        let pairs = fields
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let known = |(name, _): &(&str, &str)| FilterForm::has(name);
        let pairs = pairs
            .filter(known)
            .map(|(name, value)| (name, value.into_deserializer()));
        let pairs = MapDeserializer::<_, FieldError>::new(pairs);
        let filter = FilterForm::deserialize(pairs);
        Ok(Self {
            action: match fields.get("action") {
                "" => "redrive".to_owned(),
                action => action.to_owned(),
            },
            to: fields.get("to").trim().to_owned(),
            ids,
            all: !fields.get("all").is_empty(),
            filter: filter.map_err(|_| "the filter has a field twice".to_owned())?,
            up_to,
            rate: fields.get("rate").trim().to_owned(),
            ramp: fields.get("ramp").trim().to_owned(),
            stop: fields
                .get("stop")
                .trim()
                .trim_end_matches('%')
                .trim()
                .to_owned(),
            note: fields.get("note").trim().to_owned(),
            typed: typed(fields.get("typed")),
            count_all: !fields.get("count_all").is_empty(),
        })
    }

    /// The same form with times in place of ages: what a preview shows is what runs later.
    pub(in crate::console) fn at(mut self, now: Timestamp) -> Self {
        self.filter = self.filter.at(now);
        self
    }

    /// Whether the form selects by ids.
    pub(super) fn by_ids(&self) -> bool {
        !self.ids.is_empty() && !self.all
    }

    /// The sweep, or the rule that a field breaks.
    pub(in crate::console) fn sweep(
        &self,
        operator: &str,
        now: Timestamp,
    ) -> Result<Sweep, String> {
        let selection: Selection = match (self.by_ids(), self.all || !self.filter.is_empty()) {
            (true, _) => self.ids.clone().into(),
            (false, true) => self.filter.filter(now)?.into(),
            (false, false) => {
                return Err("select dead letters first, or use the button for all".to_owned());
            }
        };
        let mut sweep = match self.action.as_str() {
            "redrive" => Sweep::redrive(selection),
            "purge" => Sweep::purge(selection),
            "publish" => {
                let to = Topic::new(&self.to);
                let to = to.map_err(|error| format!("topic: {}", error.message()))?;
                Sweep::publish(to, selection)
            }
            _ => return Err("the action must be redrive, publish or purge".to_owned()),
        };
        if !self.rate.is_empty() {
            let rate: u32 = typed(&self.rate)
                .parse()
                .map_err(|_| "rate: must be a whole number from 1".to_owned())?;
            sweep = sweep.with_rate(rate, ramp(&self.ramp)?);
        } else if !self.ramp.is_empty() {
            return Err("a ramp needs a rate".to_owned());
        }
        if !self.stop.is_empty() {
            let percent: f64 = self
                .stop
                .parse()
                .map_err(|_| "stop share: must be a percentage from 0 to 100".to_owned())?;
            sweep = sweep.with_failure_limit(percent / 100.0);
        }
        if let Some(id) = self.up_to.filter(|_| !self.by_ids()) {
            sweep = sweep.with_watermark(id);
        }
        sweep = sweep.with_operator(operator).with_note(&self.note);
        sweep
            .validate()
            .map_err(|error| format!("{}: {}", error.operation(), error.message()))?;
        Ok(sweep)
    }

    /// The command that does the same, up to the watermark of a preview.
    pub(super) fn command(&self, topic: &str, group: &str, up_to: Option<EntryId>) -> Command {
        let verb = if self.action == "purge" {
            "purge"
        } else {
            "redrive"
        };
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut command = Command::new(&["dead", verb]).arg(topic).arg(group);
        if self.by_ids() {
            command = self.ids.iter().fold(command, |command, id| command.arg(id));
        } else {
            command = self
                .filter
                .on(command)
                .flag("--all", self.filter.is_empty());
        }
        command
            .option("--up-to", up_to.filter(|_| !self.by_ids()))
            .option("--to", set(&self.to).filter(|_| self.action == "publish"))
            .option("--rate", set(&typed(&self.rate)))
            .option("--ramp", set(&self.ramp))
            .option(
                "--failure-limit",
                set(&self.stop).map(|stop| format!("{stop}%")),
            )
            .option("--note", set(&self.note))
    }

    /// The fields that the confirmation hands on, beside those that it asks for.
    pub(super) fn hidden(&self) -> Vec<(String, String)> {
        let mut hidden = vec![("action".to_owned(), self.action.clone())];
        if self.by_ids() {
            hidden.extend(self.ids.iter().map(|id| ("id".to_owned(), id.to_string())));
        } else {
            hidden.push(("all".to_owned(), "1".to_owned()));
            hidden.extend(self.filter.query().fields().iter().cloned());
        }
        hidden
    }
}

/// The time of a ramp; none where the field is empty.
fn ramp(text: &str) -> Result<Duration, String> {
    match text {
        "" => Ok(Duration::ZERO),
        text => duration("ramp", text),
    }
}

/// Whether an action destroys: the operator then types the count also for ids.
pub(super) fn destroys(action: &SweepAction) -> bool {
    matches!(action, SweepAction::Purge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeadLetterFilter;

    fn fields(pairs: &[(&str, &str)]) -> FormFields {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        FormFields(pairs.iter().map(own).collect())
    }

    fn now() -> Timestamp {
        "2026-03-01T14:00:00Z".parse().unwrap()
    }

    fn sweep(pairs: &[(&str, &str)]) -> Result<Sweep, String> {
        SweepForm::read(&fields(pairs))?.sweep("ann", now())
    }

    #[test]
    fn a_form_selects_ids_or_a_filter_up_to_its_watermark() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        let by_ids = sweep(&[("id", "1-1"), ("id", "2-2"), ("up_to", "9-9")]).unwrap();
        let expected = Sweep::redrive(vec![id("1-1"), id("2-2")]).with_operator("ann");
        assert_eq!(by_ids, expected);
        let matching = sweep(&[
            ("action", "purge"),
            ("all", "1"),
            ("id", "1-1"),
            ("tenant", "acme"),
            ("up_to", "9-9"),
            ("note", "OPS-7"),
            ("rate", "1,000"),
            ("ramp", "30s"),
            ("stop", "5 %"),
            ("typed", "3"),
        ]);
        let expected = Sweep::purge(DeadLetterFilter::default().with_tenant("acme"))
            .with_rate(1_000, Duration::from_secs(30))
            .with_failure_limit(0.05)
            .with_watermark(id("9-9"))
            .with_note("OPS-7")
            .with_operator("ann");
        assert_eq!(matching.unwrap(), expected);
    }

    #[test]
    fn nothing_selected_is_not_everything() {
        for (pairs, word) in [
            (vec![("action", "purge")], "select"),
            (vec![("action", "explode"), ("all", "1")], "must be redrive"),
            (vec![("action", "publish"), ("all", "1")], "topic"),
            (vec![("id", "first")], "not an id"),
            (vec![("all", "1"), ("stop", "5")], "needs a rate"),
            (vec![("all", "1"), ("ramp", "5s")], "needs a rate"),
            (vec![("all", "1"), ("rate", "0")], "at least 1"),
            (vec![("all", "1"), ("rate", "x")], "whole number"),
            (vec![("all", "1"), ("since", "soon")], "time"),
        ] {
            let told = sweep(&pairs).unwrap_err();
            assert!(told.contains(word), "{pairs:?}: {told}");
        }
    }

    #[test]
    fn the_command_has_every_field() {
        let form = SweepForm::read(&fields(&[
            ("action", "publish"),
            ("to", "repair"),
            ("error", "no stock"),
            ("rate", "5"),
            ("ramp", "30s"),
            ("stop", "10"),
        ]));
        assert_eq!(
            form.unwrap().command("orders", "billing", None).line(),
            "redstart dead redrive orders billing --error 'no stock' --to repair --rate 5 --ramp 30s \
             --failure-limit 10%"
        );
        let all = SweepForm::read(&fields(&[("action", "purge"), ("all", "1")])).unwrap();
        assert_eq!(
            all.command("o", "g", None).line(),
            "redstart dead purge o g --all"
        );
    }
}
