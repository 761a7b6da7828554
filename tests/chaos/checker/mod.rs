//! Checks the history of a run against the promises of the bus.

mod messages;
mod records;
pub(crate) mod register;
mod stores;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::history::{Event, Line};

/// A promise that a history can break.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Promise {
    /// Every group handles a published message or has it as a dead letter.
    NothingLost,
    /// No group sees a message that was certainly not published.
    NothingInvented,
    /// A topic stores a message once, whatever the outcome of its publish.
    OneEntry,
    /// A message is redelivered only after a failure or a fault.
    NoNeedlessRepeat,
    /// At most one completion per key, and none under a superseded token.
    Once,
    /// No attempt beyond the last, and one dead letter per group and message.
    Attempts,
    /// Every dead letter stays, or is moved by one redrive.
    RedriveConserves,
    /// A consumer with one handler sees first deliveries in their order.
    Order,
    /// Retention removes no entry that a group has not settled.
    TrimsSettledOnly,
    /// The operations on each register are linearizable.
    Linearizable,
    /// Every message is settled within a stated time after publishing has ended.
    Drains,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingLost => "nothing lost",
            Self::NothingInvented => "nothing invented",
            Self::OneEntry => "one entry per message",
            Self::NoNeedlessRepeat => "no needless repeat",
            Self::Once => "once",
            Self::Attempts => "attempts",
            Self::RedriveConserves => "redrive conserves",
            Self::Order => "order",
            Self::TrimsSettledOnly => "trims settled only",
            Self::Linearizable => "linearizable",
            Self::Drains => "drains",
        })
    }
}

/// The limits that a history is checked against.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) max_attempts: u32,
    /// Topics whose consumers have one handler.
    pub(crate) ordered: Vec<String>,
    /// How long after its end a fault explains a redelivery: leases end, and dead connections are
    /// detected.
    pub(crate) aftermath: Duration,
    pub(crate) drains_within: Duration,
}

/// Counts of the events in a history.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) certainly_not: u64,
    pub(crate) unknown: u64,
    /// Of those unknown, seen by a group.
    pub(crate) unknown_seen: u64,
    pub(crate) delivered: u64,
    /// Messages that a group has handled, over all groups.
    pub(crate) acked: u64,
    /// Handled again, by the same group.
    pub(crate) duplicates: u64,
    pub(crate) dead: u64,
    pub(crate) redriven: u64,
    pub(crate) lost: u64,
    /// Published before a fault that loses data by definition.
    pub(crate) forgotten: u64,
    pub(crate) register_operations: u64,
    pub(crate) once_completed: u64,
    pub(crate) faults: u64,
    pub(crate) drained_in_ms: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Violation {
    pub(crate) promise: Promise,
    pub(crate) what: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Verdict {
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<Violation>,
}

impl Verdict {
    pub(crate) fn holds(&self) -> bool {
        self.violations.is_empty()
    }

    /// Which promises are broken, each once.
    pub(crate) fn broken(&self) -> Vec<Promise> {
        let mut broken: Vec<_> = self.violations.iter().map(|one| one.promise).collect();
        broken.sort();
        broken.dedup();
        broken
    }

    fn breaks(&mut self, promise: Promise, what: String) {
        self.violations.push(Violation { promise, what });
    }
}

/// The times of the faults, with their aftermath.
#[derive(Debug, Default)]
struct Faults(Vec<(u64, u64)>);

impl Faults {
    /// Whether a fault lay between two moments.
    fn between(&self, from: u64, to: u64) -> bool {
        self.0
            .iter()
            .any(|(begin, end)| *begin <= to && from <= *end)
    }
}

/// Checks a history, which is in the order of its time.
pub(crate) fn check(history: &[Line], rules: &Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let faults = faults(history, rules, &mut verdict.counts);
    // A message published before such a fault does not count as lost.
    let forgotten_at = history
        .iter()
        .filter_map(|line| match &line.event {
            Event::Fault {
                name,
                loses_data: true,
            } => Some((line.at, name)),
            _ => None,
        })
        .map(|(begun, name)| {
            let healed = history.iter().find(|line| {
                line.at >= begun && matches!(&line.event, Event::Healed { name: of } if of == name)
            });
            healed.map_or(u64::MAX, |healed| healed.at)
        })
        .max()
        .unwrap_or(0);
    messages::check(history, rules, &faults, forgotten_at, &mut verdict);
    records::check(history, forgotten_at, &mut verdict);
    stores::check(history, &mut verdict);
    drains(history, rules, &mut verdict);
    verdict
}

fn faults(history: &[Line], rules: &Rules, counts: &mut Counts) -> Faults {
    let aftermath = u64::try_from(rules.aftermath.as_micros()).unwrap_or(u64::MAX);
    let mut open: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut faults = Vec::new();
    for line in history {
        match &line.event {
            Event::Fault { name, .. } => {
                counts.faults += 1;
                open.entry(name).or_default().push(line.at);
            }
            Event::Healed { name } => {
                if let Some(begun) = open.get_mut(&**name).and_then(Vec::pop) {
                    faults.push((begun, line.at.saturating_add(aftermath)));
                }
            }
            _ => {}
        }
    }
    let never_healed = open.into_values().flatten();
    faults.extend(never_healed.map(|begun| (begun, u64::MAX)));
    Faults(faults)
}

fn drains(history: &[Line], rules: &Rules, verdict: &mut Verdict) {
    let mut groups = BTreeMap::new();
    for line in history {
        match &line.event {
            Event::Group { topic, group } => {
                groups.entry((topic, group)).or_insert(None);
            }
            Event::Drained {
                topic,
                group,
                millis,
            } => {
                groups.insert((topic, group), Some(*millis));
            }
            Event::Trimmed { topic, missing } if *missing > 0 => {
                let what = format!("{missing} unsettled entries are gone from {topic}");
                verdict.breaks(Promise::TrimsSettledOnly, what);
            }
            _ => {}
        }
    }
    for ((topic, group), millis) in groups {
        let within = rules.drains_within.as_millis();
        match millis {
            None => verdict.breaks(Promise::Drains, format!("{topic}/{group} never did")),
            Some(millis) if u128::from(millis) > within => {
                let what = format!("{topic}/{group} took {millis} ms, not {within}");
                verdict.breaks(Promise::Drains, what);
            }
            Some(millis) => {
                let slowest = &mut verdict.counts.drained_in_ms;
                *slowest = millis.max(*slowest);
            }
        }
    }
}
