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
const OF_SERVERS: &str =
    "version, eviction, persistence, memory, clock, scripts, cluster, native commands";
pub(super) const OF_TOPICS: &str = "backlog, ids, trimming, unread, groups, retries, deliveries, partitions, schedules, \
                         owners, keys";

/// Primaries that do not answer, and their partitions that the checks asked for.
///
/// To the checks these partitions are empty, so they judge the others. Nobody asks such a primary again:
/// it would take seconds each time.
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

    /// The findings on the silent primaries and their partitions. `are_known` tells whether the topics of
    /// the namespace are.
    pub(super) fn judge(&self, are_known: bool, topics: &[&TopicStatus]) -> Vec<Finding> {
        let silent = self.silent.iter();
        let of_one = |one: &ServerInfo| {
            let address = one.address.as_deref().unwrap_or_default();
            let failure = one.failure.as_deref().unwrap_or_default();
            let hidden = self.hidden().get(address).cloned().unwrap_or_default();
            let held = match (are_known, hidden.is_empty()) {
                (false, _) => "which topics it holds is unknown".to_owned(),
                (true, true) => "it holds no topic of the namespace".to_owned(),
                (true, false) => format!("it holds {}", named(&hidden, topics)),
            };
            let what = format!(
                "{address} does not answer, which has {}; {held}: {failure}",
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
    first: Option<Error>,
    names: Vec<String>,
    silent: usize,
}

impl Failed {
    /// Notes the failure of a topic or a group.
    pub(super) fn note(&mut self, name: impl ToString, error: Error) {
        self.silent += usize::from(is_silence(&error));
        self.first.get_or_insert(error);
        self.names.push(name.to_string());
    }

    /// Whether to look at no others; notes the one that comes next if so.
    pub(super) fn gives_up(&mut self, next: impl ToString) -> bool {
        let gives_up = self.silent >= MOST_SILENT;
        if gives_up {
            self.names.push(next.to_string());
        }
        gives_up
    }

    pub(super) fn finding(self, check: &'static str) -> Option<Finding> {
        let error = describe(&self.first?);
        let what = format!("{}: not checked: {error}", some(self.names));
        let finding = Finding::new(Severity::Problem, check, what);
        let finding = finding.because("the doctor knows nothing of these");
        Some(finding.advise("mend what the error names; then run the doctor again"))
    }
}
