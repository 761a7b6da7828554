//! Looking for what may go wrong before it does.
//!
//! Facts are asked for here; what they mean is decided in pure functions: `server` for the
//! server, `layout` for the namespace, `groups` for topics and their groups.

mod groups;
mod layout;
mod server;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::domain::{Error, Timestamp, Topic, describe};
use crate::store::{GroupAt, Partition, Store};

use groups::{GroupFacts, TopicFacts};

/// For how long no consumer must have been heard of for a group to count as stuck, by default.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Could not be found out, for want of a permission.
    Unknown,
    /// Messages are safe now; it may cost some later.
    Warning,
    /// Messages are lost, or work stands still, or either is about to happen.
    Problem,
}

impl Severity {
    /// The level in one word.
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

/// What one look has found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `server`, `version`, `eviction`, `persistence`, `memory`, `clock`,
    /// `scripts`, `layout`, `backlog`, `groups`, `retries`.
    pub check: &'static str,
    /// What was found.
    pub what: String,
    /// Why it matters; empty where nothing is wrong.
    pub why: String,
    /// What to do about it; empty where nothing is.
    pub advice: String,
}

impl Finding {
    fn new(level: Severity, check: &'static str, what: impl Into<String>) -> Self {
        Self {
            severity: level,
            check,
            what: what.into(),
            why: String::new(),
            advice: String::new(),
        }
    }

    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Ok, check, what)
    }

    fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// All that was found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DoctorReport {
    /// The worst level of all findings.
    pub severity: Severity,
    /// One or more for each check.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    fn of(findings: Vec<Finding>) -> Self {
        let level = findings.iter().map(|finding| finding.severity).max();
        Self {
            severity: level.unwrap_or(Severity::Ok),
            findings,
        }
    }
}

/// Looks at the server, the namespace's layout, topics and groups. Changes nothing, except that
/// the server has all scripts loaded afterwards.
///
/// # Example
///
/// ```
/// use redstart::{Container, doctor::Severity, memory::MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), redstart::Error> {
/// let doctor = Container::builder().with_memory(MemoryStore::new()).doctor()?;
/// let report = doctor.run().await;
/// for finding in &report.findings {
///     println!("{:?} {}: {}", finding.severity, finding.check, finding.what);
/// }
/// assert!(report.severity < Severity::Problem);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Doctor {
    store: Arc<dyn Store>,
    stuck_after: Duration,
}

impl Doctor {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            stuck_after: STUCK_AFTER,
        }
    }

    /// Sets for how long no consumer must have been heard of before a group for which messages
    /// wait counts as stuck; by default 5 minutes.
    pub fn with_stuck_after(mut self, quiet: Duration) -> Self {
        self.stuck_after = quiet;
        self
    }

    /// Looks at everything. What cannot be looked at is a finding, too.
    pub async fn run(&self) -> DoctorReport {
        let mut findings = Vec::new();
        match self.store.inspect().servers().await {
            Ok(servers) if !servers.is_empty() => {
                findings.extend(servers.iter().flat_map(server::judge));
            }
            Ok(_) => {
                let what = format!("{}: in this process, gone with it", self.store.name());
                findings.push(Finding::ok("server", what));
            }
            Err(error) => {
                let finding = failed("server", &error)
                    .because("without it nothing is published and nothing delivered")
                    .advise("check that it runs, its address, and the permissions of this user");
                return DoctorReport::of(vec![finding]);
            }
        }
        match self.store.inspect().migrations().await {
            // Without migrations, the store has no layout that could be wrong.
            Ok(all) if all.is_empty() => {}
            Ok(all) => findings.push(layout::judge(&all)),
            Err(error) => findings.push(failed("layout", &error)),
        }
        match self.topics().await {
            Ok(topics) => findings.extend(groups::judge(&topics, self.stuck_after)),
            Err(error) => findings.push(failed("groups", &error)),
        }
        DoctorReport::of(findings)
    }

    async fn topics(&self) -> Result<Vec<TopicFacts>, Error> {
        let mut all = Vec::new();
        for topic in self.store.topics().list().await? {
            all.extend(self.topic(&topic).await?);
        }
        Ok(all)
    }

    async fn topic(&self, topic: &Topic) -> Result<Option<TopicFacts>, Error> {
        let Some(status) = self.store.inspect().status(&Partition::of(topic)).await? else {
            return Ok(None);
        };
        let oldest = self
            .store
            .log()
            .browse(&Partition::of(topic), None, 1)
            .await?;
        let oldest = oldest.first().and_then(|(id, _)| id.time());
        let mut groups = Vec::new();
        for group in &status.groups {
            let consumers = self
                .store
                .inspect()
                .consumers(&GroupAt::of(topic, &group.group))
                .await?;
            let page = self
                .store
                .schedule()
                .list(&GroupAt::of(topic, &group.group), None, 1)
                .await?;
            let since = |time: Timestamp| {
                let millis = page.now.as_millis().saturating_sub(time.as_millis());
                Duration::from_millis(u64::try_from(millis).unwrap_or(0))
            };
            groups.push(GroupFacts {
                quiet: consumers.iter().map(|one| one.idle_for).min(),
                oldest: oldest.map(since),
                overdue: page.entries.first().map(|first| since(first.due)),
            });
        }
        Ok(Some(TopicFacts { status, groups }))
    }
}

fn failed(check: &'static str, error: &Error) -> Finding {
    Finding::new(Severity::Problem, check, describe(error))
}

/// A duration in its largest unit, and no finer.
fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_is_as_bad_as_its_worst_finding() {
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
    fn durations_are_told_in_their_largest_unit() {
        let told = [0, 119, 120, 7_199, 7_200, 172_800].map(|s| roughly(Duration::from_secs(s)));
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
