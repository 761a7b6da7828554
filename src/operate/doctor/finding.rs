//! Findings of the doctor, and its report.

use std::time::Duration;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Severity {
    /// Works as it should.
    Ok,
    /// Could not be checked: a permission is missing or a server does not answer.
    Unknown,
    /// Messages are safe now, and could be lost later.
    Warning,
    /// Messages are lost or work stands still, or soon will.
    Problem,
}

impl Severity {
    /// The severity in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The check: `server`, `version`, `eviction`, `persistence`, `memory`, `clock`,
    /// `scripts`, `cluster`, `sentinels`, `writes`, `layout`, `backlog`, `ids`, `trimming`, `unread`, `groups`,
    /// `retries`, `deliveries`, `partitions`, `owners`, `keys`.
    pub check: &'static str,
    /// The fact.
    pub what: String,
    /// Why it matters; empty when all is well.
    pub why: String,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
}

impl Finding {
    pub(super) fn new(severity: Severity, check: &'static str, what: impl Into<String>) -> Self {
        Self {
            severity,
            check,
            what: what.into(),
            why: String::new(),
            advice: String::new(),
        }
    }

    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Ok, check, what)
    }

    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// A warning and a problem say why it matters and what to do.
    #[cfg(test)]
    pub(super) fn assert_helpful(&self) {
        let is_helpful = !self.advice.is_empty() && !self.why.is_empty();
        assert!(is_helpful || self.severity < Severity::Warning, "{self:?}");
    }
}

/// The findings of one run.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DoctorReport {
    /// The worst severity of all findings.
    pub severity: Severity,
    /// One or more for each check.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|finding| finding.severity).max();
        Self {
            severity: worst.unwrap_or(Severity::Ok),
            findings,
        }
    }
}

/// A duration in whole units of its largest one.
pub(super) fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        172_800..63_113_904 => format!("{} days", seconds / 86_400),
        _ => format!("{} years", seconds / 31_556_952),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_bad_as_its_worst_finding() {
        assert_eq!(DoctorReport::of(Vec::new()).severity, Severity::Ok);
        let findings = [Severity::Ok, Severity::Warning, Severity::Unknown]
            .map(|level| Finding::new(level, "server", ""));
        assert_eq!(
            DoctorReport::of(findings.to_vec()).severity,
            Severity::Warning
        );
        assert!(Severity::Problem > Severity::Warning);
    }

    #[test]
    fn durations_are_written_in_their_largest_unit() {
        let written = [0, 119, 120, 7_199, 7_200, 172_800, 63_113_904, 315_569_520]
            .map(|s| roughly(Duration::from_secs(s)));
        assert_eq!(
            written,
            [
                "0 s", "119 s", "2 min", "119 min", "2 h", "2 days", "2 years", "10 years"
            ]
        );
    }
}
