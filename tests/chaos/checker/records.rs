//! Checks dead letters from their creation to their redrive, and undecodable entries.

use std::collections::{BTreeMap, BTreeSet};

use super::{Faults, Promise, Verdict};
use crate::history::{Event, Line};

type Record<'a> = (&'a str, &'a str, &'a str);

/// A redrive that was sent.
struct Redrive<'a> {
    topic: &'a str,
    group: &'a str,
    records: Vec<&'a str>,
    /// The records that it moved, as far as known.
    done: Option<&'a [String]>,
}

pub(super) fn check(
    history: &[Line],
    faults: &Faults<'_>,
    forgotten_at: u64,
    verdict: &mut Verdict,
) {
    // With the time of the first look.
    let mut seen: BTreeMap<Record<'_>, u64> = BTreeMap::new();
    let mut left: BTreeSet<Record<'_>> = BTreeSet::new();
    let mut calls: BTreeMap<u64, Redrive<'_>> = BTreeMap::new();
    let mut malformed: BTreeMap<(&str, &str), BTreeMap<&str, u64>> = BTreeMap::new();
    let mut groups = Vec::new();
    for line in history {
        match &line.event {
            Event::Group { topic, group, .. } => groups.push((topic, group)),
            Event::Malformed { topic, entry } if line.at > forgotten_at => {
                malformed.entry((topic, entry)).or_default();
            }
            Event::Listed {
                topic,
                group,
                since,
                letters,
            } if *since > forgotten_at => {
                for letter in letters {
                    let record = (&**topic, &**group, &*letter.record);
                    seen.entry(record).or_insert(*since);
                }
            }
            Event::Redrive {
                topic,
                group,
                call,
                records,
            } if line.at > forgotten_at => {
                let redrive = Redrive {
                    topic,
                    group,
                    records: records.iter().map(|(id, _)| &**id).collect(),
                    done: None,
                };
                calls.insert(*call, redrive);
            }
            Event::Moved { call, done } => {
                if let Some(redrive) = calls.get_mut(call) {
                    redrive.done = done.as_deref();
                }
            }
            Event::DeadLettered {
                topic,
                group,
                letter,
            } => {
                left.insert((topic, group, &letter.record));
                if letter.n.is_none()
                    && let Some(dead_letters) = malformed.get_mut(&(&**topic, &*letter.entry))
                {
                    *dead_letters.entry(group).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    let mut moved: BTreeMap<Record<'_>, u64> = BTreeMap::new();
    let mut perhaps: BTreeSet<Record<'_>> = BTreeSet::new();
    for redrive in calls.values() {
        let record = |id| (redrive.topic, redrive.group, id);
        match redrive.done {
            Some(done) => {
                for id in done {
                    *moved.entry(record(&**id)).or_default() += 1;
                    verdict.counts.redriven += 1;
                }
            }
            None => perhaps.extend(redrive.records.iter().map(|id| record(id))),
        }
    }
    // What a server took back is there again, or gone as if it had never been.
    let was_taken_back = |record: &Record<'_>| {
        let since = seen.get(record).copied().unwrap_or(0);
        faults.took_back(since, u64::MAX)
    };
    for (record, times) in &moved {
        if (*times > 1 || left.contains(record)) && !was_taken_back(record) {
            let stays = if left.contains(record) {
                " and stayed"
            } else {
                ""
            };
            let what = format!("{record:?} was redriven {times} times{stays}");
            verdict.breaks(Promise::RedriveConserves, what);
        }
    }
    for record in seen.keys() {
        let known = moved.contains_key(record) || perhaps.contains(record);
        if !known && !left.contains(record) && !was_taken_back(record) {
            let what = format!("{record:?} vanished");
            verdict.breaks(Promise::RedriveConserves, what);
        }
    }
    for ((topic, entry), dead_letters) in malformed {
        for (_, group) in groups.iter().filter(|(of, _)| *of == topic) {
            let times = dead_letters.get(&***group).copied().unwrap_or(0);
            if times == 0 {
                verdict.counts.lost += 1;
                let what = format!("malformed {topic} {entry} by {group}");
                verdict.breaks(Promise::NothingLost, what);
            } else if times > 1 {
                let what = format!("malformed {topic}/{group} {entry} has {times} dead letters");
                verdict.breaks(Promise::Attempts, what);
            }
        }
    }
}
