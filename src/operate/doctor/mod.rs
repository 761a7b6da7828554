//! The doctor: finds problems of the server, the namespace and its groups before they cost
//! messages.
//!
//! The doctor collects facts here. Pure functions turn them into findings: `server` for the server,
//! `layout` for the namespace, `groups` for topics and their groups.

mod finding;
mod groups;
mod layout;
mod server;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Error, Timestamp, Topic, describe};
use crate::store::{GroupAt, Partition, Store};

pub use finding::{DoctorReport, Finding, Severity};
use groups::{GroupFacts, TopicFacts};

/// How long a group with waiting messages may have no active consumer before it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// Checks the server, the namespace's layout, topics and groups. Changes nothing, except that it
/// loads all scripts into the server.
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

    /// Sets how long a group with waiting messages may have no active consumer before the doctor
    /// calls it stuck. Default: 5 minutes.
    pub fn with_stuck_after(mut self, duration: Duration) -> Self {
        self.stuck_after = duration;
        self
    }

    /// Runs all checks. A check that fails is itself a finding.
    pub async fn run(&self) -> DoctorReport {
        let mut findings = Vec::new();
        match self.store.inspect().servers().await {
            Ok(servers) if !servers.is_empty() => {
                findings.extend(servers.iter().flat_map(server::judge));
            }
            Ok(_) => {
                let what = format!("{}: in this process, lost with it", self.store.name());
                findings.push(Finding::ok("server", what));
            }
            Err(error) => {
                let finding = failed("server", &error)
                    .because("without the server Redstart neither publishes nor delivers")
                    .advise(
                        "check that the server runs, its address, and the permissions of this user",
                    );
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
                idle_for: consumers.iter().map(|one| one.idle_for).min(),
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
