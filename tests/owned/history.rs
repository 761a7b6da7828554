//! The history of handlers of an owned group, and what must hold in it.
//!
//! Each handler writes its beginning and its end into one list on a server, under the fence of its
//! delivery. The list is therefore in the order of the events. The history must show, for each key, that
//! one message was under way at a time, that the messages ended in the order in which they were published,
//! that nothing is missing, and that an attempt whose process died has counted.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) const KEYS: u32 = 60;

/// What the history says of one key.
#[derive(Debug, Default)]
struct OfKey {
    /// The message under way, and its process.
    open: Option<(u32, u32)>,
    ended: Vec<u32>,
}

/// Processes that have died or stood still so far.
#[derive(Debug, Default)]
struct Troubled {
    died: BTreeSet<u32>,
    stood_still: BTreeSet<u32>,
}

/// Everything that is wrong with a history.
pub(crate) fn check(history: &[String], messages: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut troubled = Troubled::default();
    let mut keys: BTreeMap<u32, OfKey> = BTreeMap::new();
    let mut begun: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let mut of_late: BTreeSet<u32> = BTreeSet::new();
    let mut last: BTreeMap<u32, &String> = BTreeMap::new();
    for event in history {
        let words: Vec<&str> = event.split(' ').collect();
        let (what, n, attempt, process) = match words[..] {
            [what @ ("begin" | "end" | "fail"), n, attempt, process] => (what, n, attempt, process),
            ["kill", process] => {
                troubled.died.insert(process.parse().unwrap());
                continue;
            }
            ["stop", process] => {
                troubled.stood_still.insert(process.parse().unwrap());
                continue;
            }
            _ => {
                assert_eq!(words[0], "stale", "{event}");
                continue;
            }
        };
        let [n, attempt, process] = [n, attempt, process].map(|word| word.parse::<u32>().unwrap());
        if last.insert(n % KEYS, event) == Some(event) {
            continue;
        }
        let key = keys.entry(n % KEYS).or_default();
        let is_troubled =
            |one: &u32| troubled.died.contains(one) || troubled.stood_still.contains(one);
        match what {
            "begin" => {
                if let Some((other, by)) = key.open {
                    if !is_troubled(&by) {
                        wrong.push(format!("{event}: {other} is under way in {by}"));
                    } else if other != n {
                        wrong.push(format!("{event}: {other} of {by} comes first"));
                    }
                }
                key.open = Some((n, process));
                if troubled.stood_still.contains(&process) {
                    of_late.insert(n);
                }
                let before = begun.insert((n, attempt), process);
                // A process that was late and gets the message back has not crashed.
                let is_other = |before: &u32| *before != process && !of_late.contains(&n);
                if let Some(before) = before.filter(is_other) {
                    wrong.push(format!("{event}: {before} began the same attempt"));
                }
            }
            what => {
                key.open = None;
                if what == "end" {
                    key.ended.push(n);
                }
            }
        }
    }
    for n in 0..messages {
        let ended = keys.get(&(n % KEYS)).map(|key| &key.ended);
        if !ended.is_some_and(|ended| ended.contains(&n)) {
            wrong.push(format!("{n} is missing"));
        }
    }
    for (key, of) in &keys {
        if !of.ended.is_sorted() {
            wrong.push(format!("key {key} ended out of order: {:?}", of.ended));
        }
    }
    wrong
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let events = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let wrong = |all: &[&str], messages| check(&events(all), messages);
    let first = ["begin 0 1 1", "end 0 1 1"];
    assert_eq!(wrong(&first, 1), [""; 0]);
    assert_eq!(wrong(&first, 2).len(), 1, "1 is missing");
    let beside = ["begin 0 1 1", "begin 60 1 2", "end 0 1 1", "end 60 1 2"];
    assert_eq!(wrong(&beside, 1).len(), 1);
    let late = ["begin 60 1 1", "end 60 1 1", "begin 0 1 1", "end 0 1 1"];
    assert_eq!(wrong(&late, 1).len(), 1);
    let again = ["begin 0 1 1", "kill 1", "begin 0 1 2", "end 0 1 2"];
    assert_eq!(wrong(&again, 1).len(), 1, "the attempt counts");
    let counted = [
        "begin 0 1 1",
        "stop 1",
        "begin 0 2 2",
        "stale end 0 1 1",
        "end 0 2 2",
    ];
    assert_eq!(wrong(&counted, 1), [""; 0]);
    let early = ["begin 0 1 1", "begin 0 2 2", "end 0 2 2", "kill 1"];
    assert_eq!(
        wrong(&early, 1).len(),
        1,
        "it was under way before the kill"
    );
}
