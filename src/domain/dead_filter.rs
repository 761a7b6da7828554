//! A filter over the summaries of dead letters.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::dead_letter::{DeadLetterSummary, HeadView, Reason};
use super::entry_id::EntryId;
use super::error::Error;
use super::text::as_text;
use super::text_match::{Cause, Exact, Pattern, Words};
use super::timestamp::Timestamp;

/// Selects the dead letters of a group that meet every condition; without a condition, all.
///
/// A text may also be in the form that the command-line tool prints: an escape such as `\n` or
/// `\u{1b}` matches itself and the character that it stands for.
///
/// In JSON, and in the journal, it is an object of conditions.
///
/// # Example
///
/// ```
/// use redstart::dead_letters::{DeadLetterFilter, Reason};
///
/// # fn main() -> Result<(), redstart::Error> {
/// let filter = DeadLetterFilter::default()
///     .with_reason(Reason::Exhausted)
///     .with_error("connection refused")?
///     .with_tenant("acme");
/// assert_eq!(
///     filter.to_string(),
///     r#"reason exhausted, error contains "connection refused", tenant "acme""#
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeadLetterFilter {
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Words>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_pattern: Option<Pattern>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    message_type: Option<Exact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Exact>,
    #[serde(rename = "corrId", skip_serializing_if = "Option::is_none")]
    correlation: Option<Exact>,
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redriven: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redriven_by: Option<Uuid>,
}

impl DeadLetterFilter {
    /// Only dead letters with this reason.
    #[must_use]
    pub fn with_reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Only dead letters with exactly this fingerprint, or with that of an error which has this text.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.fingerprint = Some(Cause::new(fingerprint.into()));
        self
    }

    /// Only dead letters whose error contains this text, ignoring case. A `…` at the end of the text
    /// matches the rest of a longer error. A text that is the fingerprint of a cause selects the dead
    /// letters of that cause too, because summaries show it in the place of an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a text of more than about 10,000 characters.
    pub fn with_error(mut self, text: impl Into<String>) -> Result<Self, Error> {
        self.error = Some(Words::new(text.into())?);
        Ok(self)
    }

    /// Only dead letters whose error contains a match of this regular expression. It has the syntax
    /// of the `regex` crate and is case-sensitive; `.` also matches a line break.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a malformed expression, or one that takes more than 1 MiB compiled.
    pub fn with_error_pattern(mut self, pattern: impl Into<String>) -> Result<Self, Error> {
        self.error_pattern = Some(Pattern::new(pattern.into())?);
        Ok(self)
    }

    /// Only dead letters with this message type.
    #[must_use]
    pub fn with_message_type(mut self, message_type: impl Into<String>) -> Self {
        self.message_type = Some(Exact::new(message_type.into()));
        self
    }

    /// Only dead letters of this tenant. An empty text selects those without a tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(Exact::new(tenant.into()));
        self
    }

    /// Only dead letters with this correlation id.
    #[must_use]
    pub fn with_correlation(mut self, correlation: impl Into<String>) -> Self {
        self.correlation = Some(Exact::new(correlation.into()));
        self
    }

    /// Only messages that were dead-lettered at this time or later, by the store's clock.
    #[must_use]
    pub fn with_since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Only messages that were dead-lettered at this time or earlier, by the store's clock.
    #[must_use]
    pub fn with_until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }

    /// Only dead letters with at least this number of attempts.
    #[must_use]
    pub fn with_min_attempts(mut self, attempts: u32) -> Self {
        self.min_attempts = Some(attempts);
        self
    }

    /// Only dead letters with at most this number of attempts.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Only dead letters that were redriven before (`true`), or never (`false`).
    #[must_use]
    pub fn with_redriven(mut self, redriven: bool) -> Self {
        self.redriven = Some(redriven);
        self
    }

    /// Only dead letters that this operation brought back last: the messages that died again.
    #[must_use]
    pub fn with_redriven_by(mut self, operation: Uuid) -> Self {
        self.redriven_by = Some(operation);
        self
    }

    /// Whether the filter has no condition.
    #[must_use]
    pub fn matches_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the filter names this reason.
    pub(crate) fn names(&self, reason: Reason) -> bool {
        self.reason == Some(reason)
    }

    /// Whether a dead letter meets every condition.
    #[must_use]
    pub fn matches(&self, id: EntryId, head: &DeadLetterSummary) -> bool {
        self.matches_view(id, head.view())
    }

    pub(crate) fn matches_view(&self, id: EntryId, head: HeadView<'_>) -> bool {
        let is = |wanted: &Option<Exact>, found: &str| {
            let wanted = wanted.as_ref();
            wanted.is_none_or(|wanted| wanted.is(found))
        };
        let (after, until) = self.bounds();
        self.reason.is_none_or(|reason| reason == head.reason)
            && self
                .fingerprint
                .as_ref()
                .is_none_or(|cause| cause.is(head.fingerprint))
            && is(&self.message_type, head.message_type)
            && is(&self.tenant, head.tenant)
            && is(&self.correlation, head.correlation)
            && after.is_none_or(|after| id > after)
            && until.is_none_or(|until| id <= until)
            && self.min_attempts.is_none_or(|least| head.attempts >= least)
            && self.max_attempts.is_none_or(|most| head.attempts <= most)
            && self
                .redriven
                .is_none_or(|redriven| redriven == (head.redriven > 0))
            && self
                .redriven_by
                .is_none_or(|operation| head.redriven_by == Some(operation))
            && self
                .error
                .as_ref()
                .is_none_or(|words| words.are_in(head.error) || words.are_cause(head.fingerprint))
            && self
                .error_pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_in(head.error))
    }

    /// The id range of the time conditions: after the first, up to and including the second.
    pub(crate) fn bounds(&self) -> (Option<EntryId>, Option<EntryId>) {
        let last_of = |millis: u64| EntryId::new(millis, u64::MAX);
        let millis = |time: Timestamp| u64::try_from(time.as_millis()).unwrap_or(0);
        let after = self.since.map(millis).filter(|since| *since > 0);
        (
            after.map(|since| last_of(since - 1)),
            self.until.map(|until| last_of(millis(until))),
        )
    }
}

/// The conditions in words.
impl fmt::Display for DeadLetterFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = [
            self.reason.map(|reason| format!("reason {reason}")),
            self.fingerprint
                .as_ref()
                .map(|one| format!("fingerprint {:?}", one.text())),
            self.error
                .as_ref()
                .map(|words| format!("error contains {:?}", words.text())),
            self.error_pattern
                .as_ref()
                .map(|pattern| format!("error matches /{}/", pattern.text())),
            self.message_type
                .as_ref()
                .map(|one| format!("type {:?}", one.text())),
            self.tenant
                .as_ref()
                .map(|one| format!("tenant {:?}", one.text())),
            self.correlation
                .as_ref()
                .map(|one| format!("correlation id {:?}", one.text())),
            self.since.map(|time| format!("since {time}")),
            self.until.map(|time| format!("until {time}")),
            self.min_attempts.map(|n| format!("at least {n} attempts")),
            self.max_attempts.map(|n| format!("at most {n} attempts")),
            self.redriven.map(|redriven| {
                let text = if redriven {
                    "redriven before"
                } else {
                    "never redriven"
                };
                text.to_owned()
            }),
            self.redriven_by
                .map(|operation| format!("redriven by operation {operation}")),
        ];
        let set: Vec<String> = conditions.into_iter().flatten().collect();
        if set.is_empty() {
            return f.write_str("everything");
        }
        f.write_str(&set.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;
    use proptest::prelude::*;

    fn heads() -> impl Strategy<Value = (EntryId, DeadLetterSummary)> {
        let reasons = prop_oneof![Just(Reason::Exhausted), Just(Reason::Rejected)];
        let word = || prop_oneof![Just("one"), Just("two"), Just("")];
        let optional = || prop_oneof![Just(None), Just(Some("t".to_owned()))];
        (
            (0..4_u64, 0..3_u64),
            reasons,
            (word(), word(), word()),
            (optional(), optional()),
            (1..5_u32, 0..3_u32),
        )
            .prop_map(
                |((millis, sequence), reason, words, optional, (attempts, redriven))| {
                    let head = DeadLetterSummary {
                        reason,
                        fingerprint: words.0.to_owned(),
                        message_type: words.1.to_owned(),
                        tenant: optional.0,
                        correlation: optional.1,
                        message_id: None,
                        error: format!("the {} error", words.2),
                        attempts,
                        redriven,
                        redriven_by: (redriven > 0).then(|| Uuid::from_u128(redriven.into())),
                        imported_from: None,
                    };
                    (EntryId::new(millis, sequence), head)
                },
            )
    }

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    /// A filter and a second implementation of its conditions, one function for each.
    type Naive = (
        DeadLetterFilter,
        Vec<fn(EntryId, &DeadLetterSummary) -> bool>,
    );

    fn filters() -> impl Strategy<Value = Naive> {
        type Condition = (
            fn(DeadLetterFilter) -> DeadLetterFilter,
            fn(EntryId, &DeadLetterSummary) -> bool,
        );
        let all: Vec<Condition> = vec![
            (
                |f| f.with_reason(Reason::Rejected),
                |_, h| h.reason == Reason::Rejected,
            ),
            (|f| f.with_fingerprint("one"), |_, h| h.fingerprint == "one"),
            (
                |f| f.with_error("E ERR").unwrap(),
                |_, h| h.error.contains("e err"),
            ),
            (
                |f| f.with_error_pattern("the (one|two)").unwrap(),
                |_, h| h.error.contains("the one") || h.error.contains("the two"),
            ),
            (
                |f| f.with_message_type("two"),
                |_, h| h.message_type == "two",
            ),
            (
                |f| f.with_tenant("t"),
                |_, h| h.tenant.as_deref() == Some("t"),
            ),
            (|f| f.with_tenant(""), |_, h| h.tenant.is_none()),
            (|f| f.with_correlation("t"), |_, h| h.correlation.is_some()),
            (|f| f.with_since(time(2)), |id, _| id.millis >= 2),
            (|f| f.with_since(time(0)), |_, _| true),
            (|f| f.with_until(time(2)), |id, _| id.millis <= 2),
            (|f| f.with_min_attempts(3), |_, h| h.attempts >= 3),
            (|f| f.with_max_attempts(3), |_, h| h.attempts <= 3),
            (|f| f.with_redriven(true), |_, h| h.redriven > 0),
            (|f| f.with_redriven(false), |_, h| h.redriven == 0),
            (
                |f| f.with_redriven_by(Uuid::from_u128(2)),
                |_, h| h.redriven == 2,
            ),
        ];
        // A later condition of the same name replaces the earlier one, so at most one of each.
        let names = [0, 1, 2, 3, 4, 5, 5, 6, 7, 7, 8, 9, 10, 11, 11, 12];
        prop::sample::subsequence((0..all.len()).collect::<Vec<_>>(), 0..4).prop_map(
            move |picked| {
                let mut seen = std::collections::HashSet::new();
                let mut naive: Naive = Default::default();
                for at in picked.into_iter().filter(|at| seen.insert(names[*at])) {
                    naive.0 = (all[at].0)(naive.0);
                    naive.1.push(all[at].1);
                }
                naive
            },
        )
    }

    proptest! {
        #[test]
        fn a_filter_is_all_of_its_conditions((filter, conditions) in filters(), (id, head) in heads()) {
            let expected = conditions.iter().all(|condition| condition(id, &head));
            prop_assert_eq!(filter.matches(id, &head), expected, "{}", filter);
            let (after, until) = filter.bounds();
            if expected {
                prop_assert!(after.is_none_or(|after| id > after) && until.is_none_or(|until| id <= until));
            }
        }

        #[test]
        fn a_filter_survives_the_journal((filter, _) in filters()) {
            let text = serde_json::to_string(&filter).unwrap();
            let again: DeadLetterFilter = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(again, filter);
        }

        #[test]
        fn no_text_makes_a_filter_panic(text in ".{0,40}") {
            let _ = DeadLetterFilter::default().with_error(text.clone()).map(|f| f.to_string());
            let _ = DeadLetterFilter::default().with_error_pattern(text.clone());
            let _ = serde_json::from_str::<DeadLetterFilter>(&text);
        }
    }

    #[test]
    fn patterns_from_outside_are_bounded_and_named() {
        for bad in ["(", "(?:a{1000}){1000}"] {
            let error = DeadLetterFilter::default()
                .with_error_pattern(bad)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("error pattern"), "{error}");
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(!cause.contains('\n') && !cause.is_empty(), "{cause:?}");
        }
        let unknown = serde_json::from_str::<DeadLetterFilter>(r#"{"reasn":"exhausted"}"#);
        assert!(unknown.unwrap_err().to_string().contains("reasn"));
    }

    #[test]
    fn everything_says_so() {
        assert_eq!(DeadLetterFilter::default().to_string(), "everything");
        assert!(DeadLetterFilter::default().matches_all());
        assert!(
            !DeadLetterFilter::default()
                .with_redriven(false)
                .matches_all()
        );
    }
}
