//! The history of handlers of an owned group, and what must hold in it.
//!
//! Each handler writes its beginning and its end into one list on a server, under the fence of its
//! delivery. The list is therefore in the order of the events. The history must show, for each key, that
//! one message was under way at a time, that the messages ended in the order in which they were published,
//! that nothing is missing, and that an attempt whose process died has counted. A message begins again after
//! its end only where the process of that end died or stood still before the store had the end, and never
//! after the group had drained.
//!
//! A failover can lose the newest steps. The next owner then goes back: it begins with a message that has
//! ended already, and continues in the order from there, under a greater token.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) const KEYS: u32 = 60;

/// The beginning or the end of an attempt at a message.
#[derive(Clone, Copy, Debug)]
struct Event {
    n: u32,
    process: u32,
    token: u64,
}

/// What the history says of one key.
#[derive(Debug, Default)]
struct OfKey {
    /// The message under way.
    open: Option<Event>,
    /// The message that ended last.
    last: Option<Event>,
    /// Where each message ended.
    ended: BTreeMap<u32, usize>,
    /// Where each token wrote first.
    since: BTreeMap<u64, usize>,
}

/// What has happened to processes and servers so far.
#[derive(Debug, Default)]
struct Troubled {
    died: BTreeSet<u32>,
    stood_still: BTreeSet<u32>,
    /// Where the last failover ended.
    failed_over: usize,
    /// Where the group had drained: the store then knew every end.
    drained: usize,
}

/// Everything that is wrong with a history. The group may never have got the messages in `unsure`.
pub(crate) fn check(history: &[String], messages: u32, unsure: &BTreeSet<u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut troubled = Troubled::default();
    let mut keys: BTreeMap<u32, OfKey> = BTreeMap::new();
    let mut begun: BTreeMap<(u32, u32), Event> = BTreeMap::new();
    let mut of_late: BTreeSet<u32> = BTreeSet::new();
    let mut last: BTreeMap<u32, &String> = BTreeMap::new();
    for (at, event) in history.iter().enumerate() {
        let words: Vec<&str> = event.split(' ').collect();
        let (what, n, attempt, process, token) = match words[..] {
            [
                what @ ("begin" | "end" | "fail"),
                n,
                attempt,
                process,
                token,
            ] => (what, n, attempt, process, token),
            ["kill", process] => {
                troubled.died.insert(process.parse().unwrap());
                continue;
            }
            ["stop", process] => {
                troubled.stood_still.insert(process.parse().unwrap());
                continue;
            }
            ["fails-over"] => {
                troubled.failed_over = usize::MAX;
                continue;
            }
            ["failed-over"] => {
                troubled.failed_over = at;
                continue;
            }
            ["drained"] => {
                troubled.drained = at;
                continue;
            }
            _ => {
                assert_eq!(words[0], "stale", "{event}");
                continue;
            }
        };
        let [n, attempt, process] = [n, attempt, process].map(|word| word.parse::<u32>().unwrap());
        let token = token.parse().unwrap();
        if last.insert(n % KEYS, event) == Some(event) {
            continue;
        }
        let this = Event { n, process, token };
        let key = keys.entry(n % KEYS).or_default();
        key.since.entry(token).or_insert(at);
        // The store may have forgotten what it knew of this owner.
        let is_forgotten = |one: &Event| {
            token > one.token && key.since.get(&one.token) < Some(&troubled.failed_over)
        };
        let is_troubled = |one: &Event| {
            troubled.died.contains(&one.process) || troubled.stood_still.contains(&one.process)
        };
        match what {
            "begin" => {
                if let Some(other) = key.open.filter(|one| !is_forgotten(one)) {
                    if !is_troubled(&other) {
                        wrong.push(format!("{event}: {other:?} is under way"));
                    } else if other.n != n {
                        wrong.push(format!("{event}: {other:?} comes first"));
                    }
                }
                // An earlier one would end out of order.
                if let Some(last) = key.last.filter(|last| last.n == n)
                    && !is_forgotten(&last)
                    && (!is_troubled(&last) || key.ended[&n] < troubled.drained)
                {
                    wrong.push(format!("{event}: {last:?} has ended"));
                }
                if troubled.stood_still.contains(&process) {
                    of_late.insert(n);
                }
                let before = begun.insert((n, attempt), this);
                // A process that was late and gets the message back has not crashed.
                let is_other = |before: &Event| {
                    before.process != process && !of_late.contains(&n) && !is_forgotten(before)
                };
                if let Some(before) = before.filter(is_other) {
                    wrong.push(format!("{event}: {before:?} began the same attempt"));
                }
                key.open = Some(this);
            }
            what => {
                let open = key.open.take();
                if open.is_none_or(|open| (open.n, open.token) != (n, token)) {
                    wrong.push(format!("{event}: {open:?} is under way"));
                }
                if what == "fail" {
                    continue;
                }
                let first = key.last.map_or(n % KEYS, |last| last.n + KEYS);
                let mut skipped = (first..n).step_by(KEYS as usize);
                if let Some(skipped) = skipped.find(|one| !unsure.contains(one)) {
                    wrong.push(format!("{event}: {skipped} comes first"));
                }
                let later = key.last.filter(|last| n < last.n);
                if let Some(last) = later
                    && (!is_forgotten(&last) || !key.ended.contains_key(&n))
                {
                    wrong.push(format!("{event}: {last:?} has ended"));
                }
                key.ended.insert(n, at);
                key.last = Some(this);
            }
        }
    }
    for n in (0..messages).filter(|n| !unsure.contains(n)) {
        let ended = keys.get(&(n % KEYS)).map(|key| &key.ended);
        if !ended.is_some_and(|ended| ended.contains_key(&n)) {
            wrong.push(format!("{n} is missing"));
        }
    }
    wrong
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let all_of = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let wrong = |all: &[&str], messages| check(&all_of(all), messages, &BTreeSet::new());
    let first = ["begin 0 1 1 5", "end 0 1 1 5"];
    assert_eq!(wrong(&first, 1), [""; 0]);
    assert_eq!(wrong(&first, 2).len(), 1, "1 is missing");
    assert_eq!(check(&all_of(&first), 2, &[1].into()), [""; 0]);
    let beside = ["begin 0 1 1 5", "begin 60 1 2 6", "end 60 1 2 6"];
    // It comes first, and it is missing.
    assert_eq!(wrong(&beside, 1).len(), 3);
    let late = [
        "begin 60 1 1 5",
        "end 60 1 1 5",
        "begin 0 1 1 5",
        "end 0 1 1 5",
    ];
    assert_eq!(wrong(&late, 1).len(), 2, "one after, one before the other");
    let again = ["begin 0 1 1 5", "kill 1", "begin 0 1 2 6", "end 0 1 2 6"];
    assert_eq!(wrong(&again, 1).len(), 1, "the attempt counts");
    let counted = [
        "begin 0 1 1 5",
        "stop 1",
        "begin 0 2 2 6",
        "stale end 0 1 1 5",
        "end 0 2 2 6",
    ];
    assert_eq!(wrong(&counted, 1), [""; 0]);
    let early = ["begin 0 1 1 5", "begin 0 2 2 6", "end 0 2 2 6", "kill 1"];
    assert_eq!(
        wrong(&early, 1).len(),
        1,
        "it was under way before the kill"
    );
    assert_eq!(wrong(&["end 0 1 1 5"], 1).len(), 1, "it was not under way");
}

#[test]
fn the_checker_sees_a_message_that_begins_again_after_its_end() {
    let wrong = |between: &[&str]| {
        let all = ["begin 0 1 1 5", "end 0 1 1 5"].iter().chain(between);
        let all = all.chain(&["begin 0 2 2 6", "end 0 2 2 6"]);
        let all: Vec<String> = all.map(|one| (*one).to_owned()).collect();
        check(&all, 1, &BTreeSet::new()).len()
    };
    assert_eq!(wrong(&[]), 1, "nothing happened");
    assert_eq!(wrong(&["kill 1"]), 0);
    assert_eq!(wrong(&["stop 1"]), 0);
    assert_eq!(wrong(&["kill 3"]), 1, "another process died");
    assert_eq!(wrong(&["drained", "kill 1"]), 1, "the store knew the end");
    assert_eq!(wrong(&["kill 1", "drained"]), 1, "the store knew the end");
    assert_eq!(wrong(&["drained", "fails-over"]), 0);
}

#[test]
fn the_checker_lets_a_failover_go_back_and_nothing_else() {
    /// Messages of key 0 that begin and end: the number, the attempt and the token of each.
    fn check_all(all: &[(&str, u32, u64)]) -> usize {
        let mut history = Vec::new();
        for (n, attempt, token) in all {
            if n.parse::<u32>().is_err() {
                history.push((*n).to_owned());
                continue;
            }
            let rest = format!("{n} {attempt} 1 {token}");
            history.extend([format!("begin {rest}"), format!("end {rest}")]);
        }
        check(&history, 1, &BTreeSet::new()).len()
    }
    let (begins, ends) = (("fails-over", 0, 0), ("failed-over", 0, 0));
    let (zero, one, two) = (("0", 1, 5), ("60", 1, 5), ("120", 1, 5));
    let back = [("0", 1, 6), ("60", 1, 6), ("120", 1, 6)];
    let after = |all: &[(&str, u32, u64)]| check_all(&[&[zero, one][..], all].concat());
    assert_eq!(after(&[begins, back[0], back[1], back[2], ends]), 0);
    assert_eq!(after(&[begins, ends, back[1], back[2]]), 0);
    assert_eq!(after(&[two, begins, back[1], ends, back[2]]), 0);
    assert_eq!(after(&back), 1, "nothing failed");
    assert_eq!(after(&[begins, ends, two, back[2]]), 0);
    assert_eq!(after(&[begins, zero, ends]), 1, "the same owner");
    assert_eq!(after(&[begins, back[0], back[2], ends]), 1, "60 is skipped");
    assert_eq!(
        after(&[begins, ends, ("120", 1, 6), ("60", 1, 7)]),
        1,
        "the owner is of a later time"
    );
}
