//! The doctor: finds problems of the server, the namespace and its groups before they cost
//! messages.
//!
//! The doctor collects facts here. Pure functions turn them into findings: `server`, `writes` and `version` for the
//! server, `layout` for the namespace, `groups`, `schedules`, `partitions`, `progress` and `owned` for topics and
//! their groups, and `unseen` for what it could not look at.

mod finding;
mod groups;
mod layout;
mod native;
mod owned;
mod partitions;
mod progress;
mod schedules;
mod server;
mod settled;
mod unseen;
mod version;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Error, ErrorKind, Timestamp, Topic, describe};
use crate::store::{
    GroupAt, GroupProgress, GroupStatus, LogProgress, Partition, ServerInfo, Store, TopicStatus,
};

pub use finding::{DoctorReport, Finding, Severity};
use groups::TopicFacts;
pub(in crate::operate) use progress::pending_for;
use progress::{Circumstances, GroupFacts, Still};
use unseen::{Failed, OF_TOPICS, Unseen};

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
    longest_pending: Option<Duration>,
}

impl Doctor {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            stuck_after: STUCK_AFTER,
            longest_pending: None,
        }
    }

    /// Sets how long a group with waiting messages may have no active consumer before the doctor
    /// calls it stuck. Default: 5 minutes.
    pub fn with_stuck_after(mut self, duration: Duration) -> Self {
        self.stuck_after = duration;
        self
    }

    /// Sets how long a consumer may hold a delivery before the doctor names it. Default: 15 minutes,
    /// or ten times the group's lease if that is longer.
    pub fn with_longest_pending(mut self, duration: Duration) -> Self {
        self.longest_pending = Some(duration);
        self
    }

    /// Runs all checks. A check that fails is itself a finding. Where some primaries of a cluster do not
    /// answer, the report names them and what could not be looked at, and has the findings on the others.
    pub async fn run(&self) -> DoctorReport {
        let mut at = Circumstances {
            now: self.store.now(),
            longest_pending: self.longest_pending,
            forgets_reads: false,
        };
        let servers = match self.store.inspect().servers().await {
            Ok(servers) => servers,
            Err(error) => {
                let finding = failed("server", &error)
                    .because("without the server Redstart neither publishes nor delivers")
                    .advise(
                        "check that the server runs, its address, and the permissions of this user",
                    );
                return DoctorReport::of(vec![finding]);
            }
        };
        let mut findings = Vec::new();
        let unseen = Unseen::of(&servers);
        let answering = servers.into_iter().filter(|one| one.failure.is_none());
        let answering: Vec<ServerInfo> = answering.collect();
        let told = || answering.iter().filter(|one| one.refusal.is_none());
        match told().next() {
            Some(first) => {
                findings.extend(server::judge_all(&answering));
                let written = self.store.inspect().try_write().await;
                findings.extend(writes::judge(&answering, written, !unseen.is_empty()));
                at.now = clock_of(first, at.now);
                at.forgets_reads = told().any(|one| one.append_only != Some(false));
            }
            None => {
                let what = format!("{}: in this process, lost with it", self.store.name());
                findings.push(Finding::ok("server", what));
            }
        }
        match self.store.inspect().migrations().await {
            // Without migrations, the store has no layout that could be wrong.
            Ok(all) if all.is_empty() => {}
            Ok(all) => findings.push(match self.store.inspect().placement().await {
                Ok(placement) => layout::judge(&all, placement),
                Err(error) => failed("layout", &error),
            }),
            Err(error) => findings.push(failed("layout", &error)),
        }
        let looking = Self {
            store: unseen.around(&self.store),
            ..self.clone()
        };
        let topics = looking.topics(&unseen, &at).await;
        let (are_all, topics) = match topics {
            Ok((topics, found, are_all)) => {
                findings.extend(found);
                (are_all, topics)
            }
            Err(error) => {
                let what = format!(
                    "the list of topics: {}; not checked: {OF_TOPICS}",
                    describe(&error)
                );
                findings.push(helped(Finding::new(Severity::Problem, "groups", what)));
                (false, Vec::new())
            }
        };
        let topics: Vec<&TopicStatus> = topics.iter().map(|topic| &topic.status).collect();
        findings.splice(0..0, unseen.judge(are_all, &topics));
        DoctorReport::of(findings)
    }

    /// The facts of all topics, the findings on them, and whether the doctor could look at all of them.
    async fn topics(
        &self,
        unseen: &Unseen,
        at: &Circumstances,
    ) -> Result<(Vec<TopicFacts>, Vec<Finding>, bool), Error> {
        let (mut topics, mut failures, mut denied) = (Vec::new(), Failed::default(), None);
        for topic in self.store.topics().list().await? {
            if failures.gives_up(&topic) {
                continue;
            }
            match self.topic(&topic, unseen, &mut denied).await {
                Ok(facts) => topics.extend(facts),
                Err(error) => failures.note(&topic, &error),
            }
        }
        let mut findings = groups::judge(&topics, self.stuck_after, at);
        let whole = topics
            .iter()
            .filter(|topic| !unseen.hides_some_of(&topic.status.topic));
        findings.extend(whole.filter_map(|topic| partitions::skew(&topic.parts)));
        match self.uneven(&topics, unseen.primaries()).await {
            Ok(uneven) => findings.extend(uneven),
            Err(error) => findings.push(failed("partitions", &error)),
        }
        let (owned, not_owned) = self.owned_groups(&topics).await;
        findings.extend(owned::judge(&owned, at));
        findings.extend(topics.iter().filter_map(schedules::judge));
        let still = topics.iter().flat_map(|topic| &topic.still);
        findings.extend(still.map(partitions::still));
        let are_all = failures.is_empty();
        findings.extend(failures.findings("groups"));
        findings.extend(not_owned.findings("owners"));
        findings.extend(denied);
        Ok((topics, findings, are_all))
    }

    async fn topic(
        &self,
        topic: &Topic,
        unseen: &Unseen,
        denied: &mut Option<Finding>,
    ) -> Result<Option<TopicFacts>, Error> {
        let at = Partition::of(topic);
        let Some(mut status) = self.store.inspect().status(&at).await? else {
            return Ok(None);
        };
        if unseen.hides(&at) {
            // Partition 0 knows their members and owners.
            status.groups.retain(|group| !group.owned);
        }
        let progress = match self.store.inspect().progress(&at).await {
            Err(error) if error.kind() == ErrorKind::Refused => {
                denied.get_or_insert_with(|| not_shown(&error));
                None
            }
            progress => progress?,
        };
        let mut parts = Vec::new();
        if status.settings.partitions() > 1 {
            for at in status.partitions() {
                parts.extend(self.store.inspect().status(&at).await?);
            }
        }
        let each = match status.settings.partitions() {
            1 => vec![(at.clone(), progress.clone())],
            _ if progress.is_none() => Vec::new(),
            _ => {
                let mut each = Vec::new();
                for at in status.partitions() {
                    let progress = self.store.inspect().progress(&at).await?;
                    each.push((at, progress));
                }
                each
            }
        };
        let oldest = self.first_after(&at, None).await?;
        let (mut groups, mut still) = (Vec::new(), Vec::new());
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
            let idle_for = consumers.iter().map(|one| one.idle_for).min();
            let mut behind: Option<Timestamp> = None;
            for (at, progress) in &each {
                if let Some(progress) = progress_of(progress.as_ref(), group) {
                    let first = self.first_unsettled(at, progress, group.lag).await?;
                    behind = behind.into_iter().chain(first).min();
                    let waits = first.map(since).filter(|age| *age >= self.stuck_after);
                    // `owned` looks at the partitions of an owned group.
                    if let (false, Some(waits)) = (at.is_whole() || group.owned, waits) {
                        still.extend(self.stands_still(at, group, waits, idle_for).await?);
                    }
                }
            }
            groups.push(GroupFacts {
                idle_for,
                oldest: oldest.map(since),
                overdue: page.entries.first().map(|first| since(first.due)),
                overdue_in: page
                    .entries
                    .first()
                    .map(|first| first.receipt.id.partition()),
                behind: behind.map(since),
            });
        }
        let settled = match &progress {
            Some(progress) => self.settled(&at, &status, progress).await?,
            None => None,
        };
        let mut many_settled = Vec::new();
        for (at, progress) in &each {
            let Some(progress) = progress else { continue };
            let part = parts.get(usize::from(at.number())).unwrap_or(&status);
            let many = self.many_settled(at, part.entries, progress);
            many_settled.extend(many.await?.map(|many| (at.clone(), many)));
        }
        Ok(Some(TopicFacts {
            later_overdue: self.later_overdue(&at, &status).await?,
            still,
            each: each
                .into_iter()
                .filter_map(|(at, log)| Some((at, log?)))
                .collect(),
            parts,
            status,
            groups,
            progress,
            settled,
            many_settled,
        }))
    }

    /// Whether nobody reads a partition on which a group has waited for long, while its other partitions
    /// are read.
    async fn stands_still(
        &self,
        at: &Partition,
        group: &GroupStatus,
        waits: Duration,
        elsewhere: Option<Duration>,
    ) -> Result<Option<Still>, Error> {
        let of = GroupAt {
            partition: at.clone(),
            group: group.group.clone(),
        };
        let consumers = self.store.inspect().consumers(&of).await?;
        let idle_for = consumers.iter().map(|one| one.idle_for).min();
        let is_read = |idle: Option<Duration>| idle.is_some_and(|idle| idle < self.stuck_after);
        if is_read(idle_for) || !is_read(elsewhere) {
            return Ok(None);
        }
        let Some(status) = self.store.inspect().status(at).await? else {
            return Ok(None);
        };
        let mut groups = status.groups.into_iter();
        let status = groups.find(|one| one.group == group.group);
        Ok(status.map(|status| Still {
            at: at.clone(),
            status,
            waits,
            idle_for,
        }))
    }

    /// How long the first message for later has been due, zero before, and its partition; `None` without
    /// one.
    async fn later_overdue(
        &self,
        at: &Partition,
        status: &TopicStatus,
    ) -> Result<Option<(Duration, u16)>, Error> {
        if status.later == 0 {
            return Ok(None);
        }
        let page = self.store.later().list(at, None, 1).await?;
        Ok(page.entries.first().map(|first| {
            let millis = page.now.as_millis().saturating_sub(first.due.as_millis());
            let overdue = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            (overdue, first.partition)
        }))
    }
}

fn progress_of<'a>(
    progress: Option<&'a LogProgress>,
    group: &GroupStatus,
) -> Option<&'a GroupProgress> {
    let mut groups = progress?.groups.iter();
    groups.find(|one| one.group == group.group)
}

/// The server's clock.
fn clock_of(server: &ServerInfo, here: Timestamp) -> Timestamp {
    let there = here.as_millis().saturating_add(server.clock_offset);
    Timestamp::from_millis(there).unwrap_or(here)
}

fn not_shown(error: &Error) -> Finding {
    Finding::new(Severity::Unknown, "deliveries", describe(error))
        .because("ids ahead of the clock, entries removed before delivery and deliveries held for long stay unseen")
        .advise("give this user the viewer's rules of the page \"security\"")
}

fn failed(check: &'static str, error: &Error) -> Finding {
    helped(Finding::new(Severity::Problem, check, describe(error)))
}

/// A finding that says what the doctor could not check, with its remedy.
fn helped(finding: Finding) -> Finding {
    let finding = finding.because("the doctor could not check this");
    finding.advise("fix the error, then run the doctor again")
}
