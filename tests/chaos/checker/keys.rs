//! Checks owned groups: the messages of a key are handled one after the other, in the order of their entries.
//!
//! A partition has one owner at a time, and each owner has a greater token than the one before. Where a fault
//! takes a partition from its owner, the next one begins the unsettled messages beside handlers that still
//! run. No fault excuses what one process does. The order needs no excuse: a later message begins only when the
//! store knows that the earlier ones have ended, whichever process owns the partition. So an owner goes back
//! only if a failover has lost what a server had acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::{Call, Story, entry_id};
use super::{Faults, Promise, Rules, Verdict};

/// The deliveries of each message to each group, by topic, group and number.
pub(super) type Stories<'a> = BTreeMap<(&'a str, &'a str, u64), Story<'a>>;

/// One call of a handler with a message of a key.
struct Turn<'a> {
    n: u64,
    call: &'a Call<'a>,
    id: (u64, u64),
    /// The message was a dead letter, and comes behind those that waited.
    is_redriven: bool,
}

pub(super) fn check(
    stories: &Stories<'_>,
    owned: &BTreeSet<(&str, &str)>,
    rules: &Rules,
    faults: &Faults<'_>,
    verdict: &mut Verdict,
) {
    let mut keys: BTreeMap<_, Vec<Turn<'_>>> = BTreeMap::new();
    let mut owners = BTreeSet::new();
    for ((topic, group, n), story) in stories {
        if !owned.contains(&(*topic, *group)) {
            continue;
        }
        let name = format!("{topic}/{group} {n}");
        counts(topic, &name, story, faults, verdict);
        for call in &story.calls {
            let (partition, id) = entry_id(call.entry);
            owners.insert((topic, group, partition, call.token));
            if let Some(key) = (rules.key)(*n) {
                let place = (*topic, *group, partition, key);
                keys.entry(place).or_default().push(Turn {
                    n: *n,
                    call,
                    id,
                    is_redriven: story.redrives.iter().any(|at| *at <= call.at),
                });
            }
        }
    }
    verdict.counts.owners = owners.len() as u64;
    for ((topic, group, partition, key), mut turns) in keys {
        verdict.counts.turns += turns.len() as u64;
        turns.sort_by_key(|turn| turn.call.at);
        let name = format!("{topic}/{group}, partition {partition}, {key}");
        one_at_a_time(topic, &name, &turns, faults, verdict);
        in_order(topic, &name, &turns, faults, verdict);
    }
}

/// An attempt that is under way counts when another process begins the next one.
fn counts(topic: &str, name: &str, story: &Story<'_>, faults: &Faults<'_>, verdict: &mut Verdict) {
    for (place, pair) in story.calls.windows(2).enumerate() {
        let [first, second] = pair else { continue };
        // A process that lost the message and gets it back knows that its own attempt has not crashed.
        let is_back = |one: &Call<'_>| one.consumer == second.consumer;
        if story.calls[..=place].iter().any(is_back) {
            continue;
        }
        let counts = second.attempt > first.attempt || second.token <= first.token;
        let between = first.at..=second.at;
        let redriven = story.redrives.iter().any(|at| between.contains(at));
        // A shutdown ends the handlers that do not return, and their attempts count nothing.
        let was_shut_down = first.ended.is_none() && faults.gave_back(topic, first.at, second.at);
        let excused = redriven || was_shut_down || faults.took_back(first.at, second.at);
        if first.is_open_at(second.at) && !counts && !excused {
            let what = format!(
                "{name}: attempt {} was under way, and came again as attempt {}",
                first.attempt, second.attempt
            );
            verdict.breaks(Promise::Attempts, what);
        }
    }
}

fn one_at_a_time(
    topic: &str,
    name: &str,
    turns: &[Turn<'_>],
    faults: &Faults<'_>,
    verdict: &mut Verdict,
) {
    let mut open: Vec<&Turn<'_>> = Vec::new();
    for turn in turns {
        let (call, at) = (turn.call, turn.call.at);
        open.retain(|one| one.call.is_open_at(at));
        let beside = open.iter().find(|one| {
            let since = one.call.at;
            // After a shutdown another owner begins when the handlers have returned or been ended.
            let lost = faults.keep_from_giving_back(topic, since, at)
                || faults.took_back(since, at)
                || one.call.ended.is_none() && faults.between(topic, since, at);
            one.call.consumer == call.consumer || !lost
        });
        if let Some(beside) = beside {
            let what = format!(
                "{name}: {} began under {:?} while {} ran under {:?}",
                turn.n, call.token, beside.n, beside.call.token
            );
            verdict.breaks(Promise::OneOfAKey, what);
        }
        open.push(turn);
    }
}

fn in_order(
    topic: &str,
    name: &str,
    turns: &[Turn<'_>],
    faults: &Faults<'_>,
    verdict: &mut Verdict,
) {
    // The last message that has begun, as far as nobody has taken anything back.
    let mut last: Option<&Turn<'_>> = None;
    for turn in turns.iter().filter(|turn| !turn.is_redriven) {
        let Some(before) = last.replace(turn) else {
            continue;
        };
        let (since, at) = (before.call.at, turn.call.at);
        if turn.call.token < before.call.token {
            // It stood still just before the handler, for longer than its lease.
            last = Some(before);
            if !faults.between(topic, since, at) {
                let (late, owner) = (turn.call.token, before.call.token);
                let what = format!("{name}: {} began under {late:?} after {owner:?}", turn.n);
                verdict.breaks(Promise::OneOfAKey, what);
            }
        } else if turn.id < before.id && !faults.took_back(since, at) {
            let what = format!("{name}: {} began after {}", turn.n, before.n);
            verdict.breaks(Promise::KeyOrder, what);
        }
    }
}
