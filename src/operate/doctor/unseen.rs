//! What the doctor could not look at: primaries of a cluster that do not answer, and topics whose checks
//! failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{BoxFuture, Error, ErrorKind, Timestamp, Topic, TopicSettings, describe};
use crate::operate::dead_letters::counted;
use crate::operate::doctor::finding::{Finding, Severity};
use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use crate::store::{
    InspectAnswer, InspectOp, LaterAnswer, LaterOp, LaterPage, LogAnswer, LogOp, OwnedProgress,
    OwnersAnswer, OwnersOp, Partition, Partitioned, ScheduleAnswer, ScheduleOp, ScheduledPage,
    ServerInfo, Store, TopicStatus, TopicsAnswer, TopicsOp,
};

/// How many of many names a finding lists.
const NAMED: usize = 10;
/// How many partitions may be asked how many there are, if the first is out of reach.
const ASKED: u16 = 16;
/// After how many topics whose primaries do not answer the doctor looks at no others: each takes seconds.
const MOST_SILENT: usize = 3;

/// The checks of a server, and those of topics and groups.
pub(super) const OF_SERVERS: &str =
    "version, eviction, persistence, memory, clock, scripts, cluster, notices, native commands";
pub(super) const OF_TOPICS: &str = "backlog, ids, trimming, unread, groups, retries, deliveries, partitions, schedules, \
                         owners, keys";

/// Primaries that do not answer, and their partitions that the checks asked for.
///
/// To the checks of topics these partitions are empty, so they judge the others. These checks do not ask such
/// a primary: it would take seconds each time.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    silent: Vec<ServerInfo>,
    /// How many primaries there are, silent or not.
    primaries: usize,
    hidden: Mutex<BTreeMap<String, BTreeSet<Partition>>>,
}

impl Unseen {
    pub(super) fn of(servers: &[ServerInfo]) -> Arc<Self> {
        let silent = servers.iter().filter(|one| one.failure.is_some());
        Arc::new(Self {
            silent: silent.cloned().collect(),
            primaries: servers.len(),
            hidden: Mutex::default(),
        })
    }

    pub(super) fn primaries(&self) -> usize {
        self.primaries
    }

    /// Whether all primaries answer.
    pub(super) fn is_empty(&self) -> bool {
        self.silent.is_empty()
    }

    /// The store without the partitions of the silent primaries.
    pub(super) fn around(self: &Arc<Self>, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        if self.is_empty() {
            return Arc::clone(store);
        }
        let decorator: Arc<dyn Decorator> = Arc::clone(self) as _;
        // Calls for a whole topic come to the decorator as one for each partition.
        let single = store.single().unwrap_or_else(|| Arc::clone(store));
        let without = Decorated::new(decorator, single);
        Arc::new(Partitioned::new(Arc::new(without)))
    }

    /// Whether a partition is hidden.
    pub(super) fn hides(&self, at: &Partition) -> bool {
        self.hidden().values().any(|all| all.contains(at))
    }

    /// Whether a partition of a topic is hidden.
    pub(super) fn hides_some_of(&self, topic: &Topic) -> bool {
        let hidden = self.hidden();
        hidden.values().flatten().any(|at| at.topic() == topic)
    }

    fn hidden(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeSet<Partition>>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The silent primary that holds a partition.
    async fn silent(&self, at: &Partition, store: &dyn Store) -> Result<Option<String>, Error> {
        let server = store.inspect().server_of(at).await?;
        let is_silent = |server: &String| {
            let mut silent = self.silent.iter();
            silent.any(|one| one.address.as_ref() == Some(server))
        };
        Ok(server.filter(is_silent))
    }

    /// The settings of a topic, which each of its partitions knows; `None` where none of the first ones
    /// can say.
    async fn settings(
        &self,
        topic: &Topic,
        store: &dyn Store,
    ) -> Result<Option<TopicSettings>, Error> {
        for number in 0..ASKED {
            let at = Partition::numbered(topic, number);
            if self.silent(&at, store).await?.is_none()
                && let Some(status) = store.inspect().status(&at).await?
            {
                return Ok(Some(status.settings));
            }
        }
        Ok(None)
    }

    /// The findings on the silent primaries and their partitions. `are_all` tells whether the doctor looked at
    /// all topics of the namespace.
    pub(super) fn judge(&self, are_all: bool, topics: &[&TopicStatus]) -> Vec<Finding> {
        let silent = self.silent.iter();
        let of_one = |one: &ServerInfo| {
            let address = one.address.as_deref().unwrap_or_default();
            let failure = one.failure.as_deref().unwrap_or_default();
            let hidden = self.hidden().get(address).cloned().unwrap_or_default();
            let held = match (are_all, hidden.is_empty()) {
                (false, true) => ". Which topics it holds is unknown".to_owned(),
                (false, false) => {
                    format!(" and holds {}, and may hold others", named(&hidden, topics))
                }
                (true, true) => " and holds no topic of the namespace".to_owned(),
                (true, false) => format!(" and holds {}", named(&hidden, topics)),
            };
            let what = format!(
                "{address} does not answer: {failure}. It serves {}{held}",
                slots(&one.slots)
            );
            let why = "until it is back or a replica takes over, messages with keys there are neither \
                       published nor delivered";
            let down = Finding::new(Severity::Problem, "server", what).because(why);
            let down = down.advise(
                "check that the server runs, its address, and why no replica takes over; then run the \
                 doctor again",
            );
            let unknown = |check, what: String| {
                let finding = Finding::new(Severity::Unknown, check, what);
                finding.because(format!("{address} does not answer"))
            };
            let own = unknown("server", format!("{address}: not checked: {OF_SERVERS}"));
            let of_topics = (!hidden.is_empty()).then(|| {
                let what = format!("{}: not checked: {OF_TOPICS}", named(&hidden, topics));
                unknown("groups", what)
            });
            [Some(down), Some(own), of_topics]
        };
        silent.flat_map(of_one).flatten().collect()
    }
}

impl Decorator for Unseen {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let store = next.store;
            let at = match op {
                Op::Topics(TopicsOp::Partitions { topic }) => Partition::numbered(topic, 0),
                Op::Inspect(InspectOp::Status { at } | InspectOp::Progress { at })
                | Op::Log(LogOp::Browse { at, .. })
                | Op::Later(LaterOp::List { at, .. }) => at.clone(),
                Op::Inspect(InspectOp::Consumers { at })
                | Op::Schedule(ScheduleOp::List { at, .. })
                | Op::Owners(OwnersOp::Roster { at } | OwnersOp::Progress { at, .. }) => {
                    at.partition.clone()
                }
                _ => return next.run(op).await,
            };
            let Some(server) = self.silent(&at, store).await? else {
                return next.run(op).await;
            };
            self.hidden().entry(server).or_default().insert(at.clone());
            // Pages of other partitions know the time.
            let now = Timestamp::from_millis(0).unwrap_or_else(|_| store.now());
            Ok(match op {
                Op::Topics(TopicsOp::Partitions { topic }) => {
                    let settings = self.settings(topic, store).await?;
                    let count = settings.map(|settings| settings.partitions());
                    Answer::Topics(TopicsAnswer::Partitions(count))
                }
                Op::Inspect(InspectOp::Status { .. }) => {
                    let settings = self.settings(at.topic(), store).await?;
                    let empty = settings.map(|one| TopicStatus::new(at.topic().clone(), one));
                    Answer::Inspect(InspectAnswer::Status(empty))
                }
                Op::Inspect(InspectOp::Progress { .. }) => {
                    Answer::Inspect(InspectAnswer::Progress(None))
                }
                Op::Inspect(_) => Answer::Inspect(InspectAnswer::Consumers(Vec::new())),
                Op::Log(_) => Answer::Log(LogAnswer::Browse(Vec::new())),
                Op::Later(_) => {
                    let entries = Vec::new();
                    Answer::Later(LaterAnswer::List(LaterPage { now, entries }))
                }
                Op::Schedule(_) => {
                    let entries = Vec::new();
                    Answer::Schedule(ScheduleAnswer::List(ScheduledPage { now, entries }))
                }
                Op::Owners(OwnersOp::Progress { .. }) => {
                    let progress = OwnedProgress {
                        now,
                        taken: None,
                        cursors: Default::default(),
                        kept: Vec::new(),
                    };
                    Answer::Owners(OwnersAnswer::Progress(progress))
                }
                _ => {
                    let rule =
                        "the primary of partition 0, which knows the members, does not answer";
                    let error = Error::new(ErrorKind::NotFound, op.name(), rule);
                    return Err(error.on(at.to_string()));
                }
            })
        })
    }
}

/// Whether a server that does not answer can be the cause.
pub(super) fn is_silence(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::OutcomeUnknown
    )
}

/// Slots in words.
fn slots(ranges: &[(u16, u16)]) -> String {
    let count = ranges
        .iter()
        .map(|(first, last)| u64::from(last - first) + 1);
    let listed = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    let count = counted(count.sum(), "slot", "slots");
    format!("{count} ({})", some(listed.collect()))
}

/// Partitions by topic, such as `orders (partitions 0, 3), payments`.
fn named(hidden: &BTreeSet<Partition>, topics: &[&TopicStatus]) -> String {
    let mut by_topic: BTreeMap<&Topic, Vec<String>> = BTreeMap::new();
    for at in hidden {
        let numbers = by_topic.entry(at.topic()).or_default();
        numbers.push(at.number().to_string());
    }
    let named = by_topic.into_iter().map(|(topic, numbers)| {
        let is_divided = |one: &&&TopicStatus| one.topic == *topic && one.settings.partitions() > 1;
        match (topics.iter().find(is_divided), &numbers[..]) {
            (None, _) => topic.to_string(),
            (Some(_), [one]) => format!("{topic} (partition {one})"),
            (Some(_), _) => format!("{topic} (partitions {})", numbers.join(", ")),
        }
    });
    some(named.collect())
}

/// The first of many, and how many others there are.
fn some(mut all: Vec<String>) -> String {
    let others = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    match others {
        0 => all.join(", "),
        others => format!("{} and {others} more", all.join(", ")),
    }
}

/// Topics or groups whose checks failed.
#[derive(Debug, Default)]
pub(super) struct Failed {
    /// The errors, each with the names of those that it stopped.
    by_error: BTreeMap<String, Vec<String>>,
    /// Those that the doctor did not look at.
    skipped: Vec<String>,
    silent: usize,
}

impl Failed {
    /// Notes the failure of a topic or a group.
    pub(super) fn note(&mut self, name: impl ToString, error: &Error) {
        self.silent += usize::from(is_silence(error));
        let mut told = describe(error);
        if let Some(subject) = error.subject() {
            // The names stand in front.
            told = told.replacen(&format!(" {subject:?}"), "", 1);
        }
        self.by_error
            .entry(told)
            .or_default()
            .push(name.to_string());
    }

    /// Whether to look at no others; notes the one that comes next if so.
    pub(super) fn gives_up(&mut self, next: impl ToString) -> bool {
        let gives_up = self.silent >= MOST_SILENT;
        if gives_up {
            self.skipped.push(next.to_string());
        }
        gives_up
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_error.is_empty()
    }

    /// A finding for each error, and one for those that the doctor did not look at.
    pub(super) fn findings(self, check: &'static str) -> Vec<Finding> {
        let finding = |names, why: &str| {
            let what = format!("{}: not checked: {why}", some(names));
            Finding::new(Severity::Problem, check, what)
                .because("the doctor could not check these")
                .advise("fix the error, then run the doctor again")
        };
        let by_error = self.by_error.into_iter();
        let mut all: Vec<Finding> = by_error.map(|(why, names)| finding(names, &why)).collect();
        if !self.skipped.is_empty() {
            let why = format!("{MOST_SILENT} others before did not answer");
            all.push(finding(self.skipped, &why));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_failed_stand_with_their_error_and_skipped_ones_apart() {
        let mut failed = Failed::default();
        let error = |kind, message: &str| Error::new(kind, "topic status", message);
        let cut = || error(ErrorKind::Unavailable, "no connection");
        failed.note("a", &cut().on("a"));
        failed.note("b", &error(ErrorKind::Refused, "lacks a right").on("b"));
        failed.note("c", &cut().on("c/1"));
        assert!(!failed.gives_up("d"));
        failed.note("d", &cut().on("d"));
        assert!(failed.gives_up("e") && failed.gives_up("f"));
        let findings = failed.findings("groups");
        findings.iter().for_each(Finding::assert_helpful);
        let what: Vec<&str> = findings.iter().map(|one| &*one.what).collect();
        assert_eq!(
            what,
            [
                "b: not checked: topic status: lacks a right",
                "a, c, d: not checked: topic status: no connection",
                "e, f: not checked: 3 others before did not answer",
            ]
        );
    }

    #[test]
    fn a_silent_primary_holds_none_of_the_topics_only_if_all_were_checked() {
        let silent = ServerInfo {
            address: Some("h:1".to_owned()),
            failure: Some("no connection".to_owned()),
            slots: vec![(0, 9), (12, 12)],
            ..ServerInfo::default()
        };
        let unseen = Unseen::of(&[silent]);
        let told = |are_all| unseen.judge(are_all, &[]).remove(0).what;
        let first = "h:1 does not answer: no connection. It serves 11 slots (0-9, 12)";
        let none = format!("{first} and holds no topic of the namespace");
        assert_eq!(told(true), none);
        assert_eq!(
            told(false),
            format!("{first}. Which topics it holds is unknown")
        );
        let at = Partition::of(&Topic::new("orders").unwrap());
        unseen
            .hidden()
            .entry("h:1".to_owned())
            .or_default()
            .insert(at);
        assert_eq!(told(true), format!("{first} and holds orders"));
        assert_eq!(
            told(false),
            format!("{first} and holds orders, and may hold others")
        );
    }
}
