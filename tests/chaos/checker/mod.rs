//! Checks the history of a run against the promises of the bus.

mod attempts;
mod exact;
mod keys;
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
    /// No attempt beyond the last, and one dead letter per group and message. In an owned group an attempt
    /// that is under way counts when the next owner begins.
    Attempts,
    /// A handler began every attempt that counts; unmarked hand-outs apart.
    Begun,
    /// A message becomes a dead letter only by its own handler, not by its neighbours.
    NeighboursLive,
    /// Every dead letter stays, or is moved by one redrive.
    RedriveConserves,
    /// A consumer with one handler sees first deliveries in their order.
    Order,
    /// In an owned group, one message of a key is under way at a time.
    OneOfAKey,
    /// In an owned group, the messages of a key begin in their order, each when those before have ended.
    KeyOrder,
    /// Retention removes no entry that a group has not settled.
    TrimsSettledOnly,
    /// The operations on each register are linearizable.
    Linearizable,
    /// Every message is settled within a stated time after publishing has ended.
    Drains,
    /// With effects, each stage of a pipeline counts each message once and passes it on once.
    Exact,
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
            Self::Begun => "attempts are begun",
            Self::NeighboursLive => "neighbours live",
            Self::RedriveConserves => "redrive conserves",
            Self::Order => "order",
            Self::OneOfAKey => "one handler of a key",
            Self::KeyOrder => "order by key",
            Self::TrimsSettledOnly => "trims settled only",
            Self::Linearizable => "linearizable",
            Self::Drains => "drains",
            Self::Exact => "exact",
        })
    }
}

/// The limits that a history is checked against.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The most attempts at a message of a topic.
    pub(crate) max_attempts: fn(&str) -> u32,
    /// Whether a topic's message of a number may become a dead letter.
    pub(crate) may_die: fn(&str, u64) -> bool,
    /// Whether workers give back what they hold during a fault of a name, and nothing else fails.
    pub(crate) gives_back: fn(&str) -> bool,
    /// Whether a server may take back what it acknowledged shortly before and during a fault of a
    /// name: another one, which did not have it, takes over.
    pub(crate) takes_back: fn(&str) -> bool,
    /// Whether a message may be lost by such a fault: its publisher asked for no replica.
    pub(crate) may_be_lost: fn(u64) -> bool,
    /// Topics whose consumers have one handler.
    pub(crate) ordered: Vec<String>,
    /// The key of a message.
    pub(crate) key: fn(u64) -> Option<String>,
    /// How long after its end a fault explains a redelivery: leases end, and dead connections are
    /// detected.
    pub(crate) aftermath: Duration,
    pub(crate) drains_within: Duration,
    /// The stages of the pipeline, and whether a message replaces the value that they share.
    pub(crate) stages: usize,
    pub(crate) is_shared: fn(u64) -> bool,
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
    /// Handlers that were cancelled and gave their message back.
    pub(crate) given_back: u64,
    /// Processes that a message ended.
    pub(crate) aborted: u64,
    pub(crate) wrong_clocks: u64,
    pub(crate) claims_lost: u64,
    pub(crate) full_at_retry: u64,
    /// Attempts that count although no handler began them: hand-outs that were not marked, and
    /// attempts whose process died between their mark and their handler.
    pub(crate) unmarked: u64,
    pub(crate) cut_short: u64,
    pub(crate) redriven: u64,
    /// Calls with a message of a key in owned groups, and the owners that all partitions there had.
    pub(crate) turns: u64,
    pub(crate) owners: u64,
    pub(crate) lost: u64,
    /// Lost as they may be, of those published at level accepted.
    pub(crate) lost_accepted: u64,
    pub(crate) published_accepted: u64,
    /// Published before a fault that loses data by definition.
    pub(crate) forgotten: u64,
    pub(crate) register_operations: u64,
    pub(crate) once_completed: u64,
    /// Messages that entered the pipeline, that its stages have passed on, and those passed on twice.
    pub(crate) entered: u64,
    pub(crate) passed: u64,
    pub(crate) passed_twice: u64,
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

/// A fault with its aftermath.
#[derive(Debug)]
struct Spell<'a> {
    begin: u64,
    end: u64,
    /// The one topic that it can affect; `None` for all of them.
    topic: Option<&'a str>,
    gives_back: bool,
    /// Between these moments a server may acknowledge what it then takes back.
    takes_back: Option<(u64, u64)>,
}

/// How far replication may be behind, in microseconds.
const BEHIND: u64 = 3_000_000;

#[derive(Debug, Default)]
struct Faults<'a>(Vec<Spell<'a>>);

impl Faults<'_> {
    /// Whether a fault that can affect a topic lay between two moments.
    fn between(&self, topic: &str, from: u64, to: u64) -> bool {
        self.of(topic, from, to).next().is_some()
    }

    /// How many such faults there were.
    fn count(&self, topic: &str, from: u64, to: u64) -> usize {
        self.of(topic, from, to).count()
    }

    /// Whether such a fault can have kept a worker from giving back what it held.
    fn keep_from_giving_back(&self, topic: &str, from: u64, to: u64) -> bool {
        self.of(topic, from, to).any(|spell| !spell.gives_back)
    }

    /// Whether workers gave back what they held in a fault between two moments.
    fn gave_back(&self, topic: &str, from: u64, to: u64) -> bool {
        self.of(topic, from, to).any(|spell| spell.gives_back)
    }

    /// Whether a server may have taken something back that it acknowledged between two moments.
    fn took_back(&self, from: u64, to: u64) -> bool {
        let mut spells = self.0.iter().filter_map(|spell| spell.takes_back);
        spells.any(|(begin, end)| begin <= to && from <= end)
    }

    fn of(&self, topic: &str, from: u64, to: u64) -> impl Iterator<Item = &Spell<'_>> {
        self.0.iter().filter(move |spell| {
            spell.begin <= to && from <= spell.end && spell.topic.is_none_or(|of| of == topic)
        })
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
                ..
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
    records::check(history, &faults, forgotten_at, &mut verdict);
    stores::check(history, &faults, &mut verdict);
    exact::check(history, rules, forgotten_at, &mut verdict);
    drains(history, rules, &mut verdict);
    verdict
}

fn faults<'a>(history: &'a [Line], rules: &Rules, counts: &mut Counts) -> Faults<'a> {
    let aftermath = u64::try_from(rules.aftermath.as_micros()).unwrap_or(u64::MAX);
    let mut open: BTreeMap<&str, Vec<Spell<'a>>> = BTreeMap::new();
    let mut faults = Vec::new();
    for line in history {
        match &line.event {
            Event::Fault { name, topic, .. } => {
                // The end of a process that a message ends is no fault of the plan.
                counts.faults += u64::from(topic.is_none());
                open.entry(name).or_default().push(Spell {
                    begin: line.at,
                    end: u64::MAX,
                    topic: topic.as_deref(),
                    gives_back: (rules.gives_back)(name),
                    takes_back: (rules.takes_back)(name)
                        .then_some((line.at.saturating_sub(BEHIND), u64::MAX)),
                });
            }
            Event::Healed { name } => {
                if let Some(spell) = open.get_mut(&**name).and_then(Vec::pop) {
                    let end = line.at.saturating_add(aftermath);
                    let takes_back = spell.takes_back.map(|(begin, _)| (begin, line.at));
                    let spell = Spell {
                        end,
                        takes_back,
                        ..spell
                    };
                    faults.push(spell);
                }
            }
            Event::WrongClock => counts.wrong_clocks += 1,
            Event::ClaimLost => counts.claims_lost += 1,
            Event::FullAtRetry => counts.full_at_retry += 1,
            _ => {}
        }
    }
    faults.extend(open.into_values().flatten());
    Faults(faults)
}

fn drains(history: &[Line], rules: &Rules, verdict: &mut Verdict) {
    let mut groups = BTreeMap::new();
    for line in history {
        match &line.event {
            Event::Group { topic, group, .. } => {
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
