//! The filter of a list of dead letters: its form, its address and its command have the same fields.

use jiff::{Span, SpanRelativeTo};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use crate::console::page::{Command, Query};
use crate::domain::{Cause, DeadLetterFilter, Error, Reason, Timestamp, describe};

/// What a visitor filters by. An empty field sets no condition.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub(in crate::console) struct FilterForm {
    pub(super) reason: String,
    pub(super) fingerprint: String,
    pub(super) error: String,
    pub(super) error_pattern: String,
    #[serde(rename = "type")]
    pub(super) message_type: String,
    pub(super) tenant: String,
    /// Messages without a tenant.
    pub(super) no_tenant: String,
    pub(super) correlation: String,
    pub(in crate::console) since: String,
    pub(in crate::console) until: String,
    pub(super) min_attempts: String,
    pub(super) max_attempts: String,
    /// `yes`, `no` or empty.
    pub(super) redriven: String,
    /// The operation that redrove them before they died again.
    pub(super) redriven_by: String,
}

const REASONS: [Reason; 6] = [
    Reason::Exhausted,
    Reason::Rejected,
    Reason::Undecodable,
    Reason::Crashed,
    Reason::Expired,
    Reason::Unhandled,
];

impl FilterForm {
    /// The dead letters of a cause, by the names of an address.
    pub(in crate::console) fn of(reason: &str, fingerprint: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            fingerprint: fingerprint.to_owned(),
            ..Self::default()
        }
    }

    /// The dead letters that an operation redrove and that died again.
    pub(in crate::console) fn died_again(operation: Uuid) -> Self {
        Self {
            redriven_by: operation.to_string(),
            ..Self::default()
        }
    }

    pub(super) fn of_cause(cause: &Cause) -> Self {
        Self {
            reason: cause.reason.to_string(),
            fingerprint: cause.fingerprint.clone(),
            ..Self::default()
        }
    }

    /// Whether a form's field is one of the filter.
    pub(in crate::console) fn has(name: &str) -> bool {
        Self::default()
            .fields()
            .iter()
            .any(|(known, _)| *known == name)
    }

    fn fields(&self) -> [(&'static str, &str); 14] {
        [
            ("reason", &self.reason),
            ("fingerprint", &self.fingerprint),
            ("error", &self.error),
            ("error_pattern", &self.error_pattern),
            ("type", &self.message_type),
            ("tenant", &self.tenant),
            ("no_tenant", &self.no_tenant),
            ("correlation", &self.correlation),
            ("since", &self.since),
            ("until", &self.until),
            ("min_attempts", &self.min_attempts),
            ("max_attempts", &self.max_attempts),
            ("redriven", &self.redriven),
            ("redriven_by", &self.redriven_by),
        ]
    }

    pub(in crate::console) fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, value)| value.is_empty())
    }

    pub(in crate::console) fn query(&self) -> Query {
        let fields = self.fields().into_iter();
        fields.fold(Query::default(), |query, (name, value)| {
            query.with(name, value)
        })
    }

    /// The same filter with times in place of ages, so that it means the same later. Fields that break
    /// a rule stay as they are.
    pub(in crate::console) fn at(mut self, now: Timestamp) -> Self {
        for field in [&mut self.since, &mut self.until] {
            if let Ok(Some(time)) = moment(field, now) {
                *field = time.to_string();
            }
        }
        self
    }

    /// Whether a field has an age, which means another time at each request.
    pub(in crate::console) fn has_ages(&self) -> bool {
        let mut fields = [&self.since, &self.until].into_iter();
        fields.any(|text| !text.trim().is_empty() && text.trim().parse::<Timestamp>().is_err())
    }

    /// The filter, or the rule that a field breaks. `now` turns ages into times.
    pub(in crate::console) fn filter(&self, now: Timestamp) -> Result<DeadLetterFilter, String> {
        let told = |name: &'static str| move |error: Error| format!("{name}: {}", describe(&error));
        let mut filter = DeadLetterFilter::default();
        if !self.reason.is_empty() {
            filter = filter.with_reason(self.reason.parse().map_err(told("reason"))?);
        }
        if !self.fingerprint.is_empty() {
            filter = filter.with_fingerprint(&self.fingerprint);
        }
        if !self.error.is_empty() {
            filter = filter.with_error(&self.error).map_err(told("error"))?;
        }
        if !self.error_pattern.is_empty() {
            let pattern = filter.with_error_pattern(&self.error_pattern);
            filter = pattern.map_err(told("expression"))?;
        }
        if !self.message_type.is_empty() {
            filter = filter.with_message_type(&self.message_type);
        }
        match (self.no_tenant.is_empty(), self.tenant.is_empty()) {
            (false, _) => filter = filter.with_tenant(""),
            (true, false) => filter = filter.with_tenant(&self.tenant),
            (true, true) => {}
        }
        if !self.correlation.is_empty() {
            filter = filter.with_correlation(&self.correlation);
        }
        let (since, until) = (moment(&self.since, now)?, moment(&self.until, now)?);
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            return Err("the first time is later than the last: no dead letter can match".into());
        }
        if let Some(since) = since {
            filter = filter.with_since(since);
        }
        if let Some(until) = until {
            filter = filter.with_until(until);
        }
        let attempts = |text: &str| match text {
            "" => Ok(None),
            text => {
                let count = text.parse::<u32>().map(Some);
                count.map_err(|_| "attempts: must be a whole number".to_owned())
            }
        };
        if let Some(least) = attempts(&self.min_attempts)? {
            filter = filter.with_min_attempts(least);
        }
        if let Some(most) = attempts(&self.max_attempts)? {
            filter = filter.with_max_attempts(most);
        }
        match self.redriven.as_str() {
            "" => {}
            "yes" => filter = filter.with_redriven(true),
            "no" => filter = filter.with_redriven(false),
            _ => return Err("redriven: must be yes or no".to_owned()),
        }
        if !self.redriven_by.is_empty() {
            let operation = self.redriven_by.parse();
            let operation =
                operation.map_err(|_| "redriven by: must be an operation".to_owned())?;
            filter = filter.with_redriven_by(operation);
        }
        Ok(filter)
    }

    /// Adds the conditions to a command.
    pub(in crate::console) fn on(&self, command: Command) -> Command {
        let set = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let tenant = match self.no_tenant.is_empty() {
            true => set(&self.tenant),
            false => Some(String::new()),
        };
        command
            .option("--reason", set(&self.reason))
            .option("--fingerprint", set(&self.fingerprint))
            .option("--error", set(&self.error))
            .option("--error-pattern", set(&self.error_pattern))
            .option("--type", set(&self.message_type))
            .option("--tenant", tenant)
            .option("--correlation", set(&self.correlation))
            .option("--since", set(&self.since))
            .option("--until", set(&self.until))
            .option("--min-attempts", set(&self.min_attempts))
            .option("--max-attempts", set(&self.max_attempts))
            .flag("--redriven", self.redriven == "yes")
            .flag("--never-redriven", self.redriven == "no")
            .option("--redriven-by", set(&self.redriven_by))
    }

    /// The form. It asks for a page with its fields in the address.
    pub(in crate::console) fn show(&self, address: &str) -> Markup {
        let text = |label: &str, name: &str, value: &str, hint: &str| {
            html! { label { (label) input name=(name) value=(value) placeholder=[(!hint.is_empty()).then_some(hint)] autocomplete="off"; } }
        };
        html! {
            details open[!self.is_empty()] {
                summary { "Filter" }
                form method="get" action=(address) {
                    div.filter {
                        (text("Error contains", "error", &self.error, ""))
                        (text("Error matches", "error_pattern", &self.error_pattern, "regular expression"))
                        (text("Cause", "fingerprint", &self.fingerprint, "the folded error"))
                        label { "Reason"
                            select name="reason" {
                                option value="" { "any" }
                                @for reason in REASONS {
                                    option value=(reason) selected[self.reason == reason.as_str()] { (reason) }
                                }
                            }
                        }
                        (text("Type", "type", &self.message_type, ""))
                        (text("Tenant", "tenant", &self.tenant, ""))
                        (text("Correlation id", "correlation", &self.correlation, ""))
                        (text("Died since", "since", &self.since, "2h or 2026-03-01T14:00:00Z"))
                        (text("Died until", "until", &self.until, "15m"))
                        (text("At least attempts", "min_attempts", &self.min_attempts, ""))
                        (text("At most attempts", "max_attempts", &self.max_attempts, ""))
                        label { "Redriven before"
                            select name="redriven" {
                                option value="" { "any" }
                                option value="yes" selected[self.redriven == "yes"] { "yes" }
                                option value="no" selected[self.redriven == "no"] { "no" }
                            }
                        }
                        (text("Redriven by operation", "redriven_by", &self.redriven_by, ""))
                        @if !self.no_tenant.is_empty() {
                            label { input type="checkbox" name="no_tenant" value="1" checked; " Without a tenant" }
                        }
                    }
                    div.row {
                        button type="submit" { "Filter" }
                        @if !self.is_empty() { a href=(address) { "Show all" } }
                    }
                }
            }
        }
    }
}

/// A time, or an age such as `2h`.
fn moment(text: &str, now: Timestamp) -> Result<Option<Timestamp>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(time));
    }
    let rule =
        || "time: give RFC 3339, such as 2026-03-01T14:00:00Z, or an age, such as 2h".to_owned();
    let span: Span = text.parse().map_err(|_| rule())?;
    let age = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let age = i64::try_from(age.map_err(|_| rule())?.as_millis()).map_err(|_| rule())?;
    if age < 0 {
        return Err(rule());
    }
    let time = now.as_millis().saturating_sub(age);
    Timestamp::from_millis(time).map(Some).map_err(|_| rule())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T14:00:00Z".parse().unwrap()
    }

    #[test]
    fn every_field_is_in_the_filter_the_address_and_the_command() {
        let all = FilterForm {
            reason: "rejected".into(),
            fingerprint: "f".into(),
            error: "e".into(),
            error_pattern: "p".into(),
            message_type: "t".into(),
            tenant: "acme".into(),
            no_tenant: String::new(),
            correlation: "c".into(),
            since: "2h".into(),
            until: "2026-03-01T13:00:00Z".into(),
            min_attempts: "2".into(),
            max_attempts: "9".into(),
            redriven: "no".into(),
            redriven_by: Uuid::nil().to_string(),
        };
        let expected = DeadLetterFilter::default()
            .with_reason(Reason::Rejected)
            .with_fingerprint("f")
            .with_error("e")
            .unwrap()
            .with_error_pattern("p")
            .unwrap()
            .with_message_type("t")
            .with_tenant("acme")
            .with_correlation("c")
            .with_since("2026-03-01T12:00:00Z".parse().unwrap())
            .with_until("2026-03-01T13:00:00Z".parse().unwrap())
            .with_min_attempts(2)
            .with_max_attempts(9)
            .with_redriven(false)
            .with_redriven_by(Uuid::nil());
        assert_eq!(all.filter(now()).unwrap(), expected);
        assert_eq!(all.query().fields().len(), 13);
        let line = all.on(Command::new(&["dead", "list"])).line();
        assert_eq!(line.matches(" --").count(), 13, "{line}");
    }

    #[test]
    fn ages_become_times_that_mean_the_same_later() {
        let form = FilterForm {
            since: " 2h".into(),
            until: "2026-03-01T13:00:00Z".into(),
            error: "e".into(),
            ..FilterForm::default()
        };
        let fixed = form.clone().at(now());
        assert_eq!(
            (&*fixed.since, &*fixed.until, &*fixed.error),
            ("2026-03-01T12:00:00.000Z", "2026-03-01T13:00:00.000Z", "e")
        );
        assert!(form.has_ages() && !fixed.has_ages());
        let later = "2026-03-02T14:00:00Z".parse().unwrap();
        assert_eq!(form.filter(now()).unwrap(), fixed.filter(later).unwrap());
        let wrong = FilterForm {
            since: "soon".into(),
            ..FilterForm::default()
        };
        assert_eq!(wrong.clone().at(now()), wrong);
        assert!(!FilterForm::default().has_ages());
    }

    #[test]
    fn a_filter_for_messages_without_a_tenant_is_not_one_for_all() {
        let form = FilterForm {
            no_tenant: "1".into(),
            ..FilterForm::default()
        };
        let expected = DeadLetterFilter::default().with_tenant("");
        assert_eq!(form.filter(now()).unwrap(), expected);
        assert!(FilterForm::default().filter(now()).unwrap().matches_all());
        let line = form.on(Command::new(&[])).line();
        assert_eq!(line, "redstart --tenant ''");
    }

    #[test]
    fn a_field_that_breaks_a_rule_is_named() {
        for (form, word) in [
            (
                FilterForm {
                    reason: "tired".into(),
                    ..FilterForm::default()
                },
                "reason",
            ),
            (
                FilterForm {
                    error_pattern: "(".into(),
                    ..FilterForm::default()
                },
                "expression",
            ),
            (
                FilterForm {
                    since: "soon".into(),
                    ..FilterForm::default()
                },
                "time",
            ),
            (
                FilterForm {
                    since: "-2h".into(),
                    ..FilterForm::default()
                },
                "time",
            ),
            (
                FilterForm {
                    min_attempts: "x".into(),
                    ..FilterForm::default()
                },
                "attempts",
            ),
            (
                FilterForm {
                    since: "1h".into(),
                    until: "2h".into(),
                    ..FilterForm::default()
                },
                "later",
            ),
        ] {
            let told = form.filter(now()).unwrap_err();
            assert!(told.contains(word), "{told}");
        }
    }
}
