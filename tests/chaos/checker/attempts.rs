//! Checks that a handler began every attempt that counts.
//!
//! An entry is one stay of a message in a stream: a publish makes the first, and each failed attempt
//! makes another. Two attempts at an entry may count without a handler, and only under a fault:
//!
//! - Unmarked: the first hand-out of an entry counts when its process dies, begun or not. In an owned group a
//!   failed message keeps its entry, so this happens at its first attempt only.
//! - Cut short: later attempts are marked as begun just before the handler is called, and the process
//!   died in between, or lost its lease before it had the reply. In an owned group this happens once for each
//!   fault: each one gives the partition to another process, which marks the attempt again.

use super::messages::{Call, Story};
use super::{Faults, Promise, Verdict};
use crate::history::End;

pub(super) fn check(
    topic: &str,
    (name, is_owned, since): (&str, bool, u64),
    story: &Story<'_>,
    faults: &Faults<'_>,
    verdict: &mut Verdict,
) {
    // A redriven message begins at attempt 1 again, at a moment that the history does not tell.
    let redriven = story.redrives.iter().min().copied().unwrap_or(u64::MAX);
    let calls = story.calls.iter().filter(|call| call.at < redriven);
    let calls: Vec<&Call<'_>> = calls.collect();
    let letter = story
        .letters
        .iter()
        .find(|(_, letter)| letter.redriven == 0);
    // How many attempts counted at which moment.
    let counted = calls.iter().map(|call| (call.attempt - 1, call.at));
    let counted = counted.chain(letter.map(|(at, letter)| (letter.attempts, *at)));
    let most = counted.clone().map(|(count, _)| count).max().unwrap_or(0);

    let (mut entry_since, mut is_first, mut cuts) = (since, true, 0);
    for number in 1..=most {
        let mut of_number = calls.iter().filter(|call| call.attempt == number);
        if let Some(last) = of_number.next_back() {
            let failed = matches!(last.ended, Some((_, End::Fail)));
            is_first = failed && !is_owned;
            if failed || is_owned {
                (entry_since, cuts) = (last.at, 0);
            }
            continue;
        }
        let seen_at = counted.clone().filter(|(count, _)| *count >= number);
        let seen_at = seen_at.map(|(_, at)| at).min().unwrap_or(u64::MAX);
        let struck = faults.count(topic, entry_since, seen_at);
        let excused = if is_owned { struck } else { struck.min(1) };
        if struck > 0 && is_first {
            verdict.counts.unmarked += 1;
        } else if cuts < excused {
            verdict.counts.cut_short += 1;
            cuts += 1;
        } else {
            let what = format!("{name}: attempt {number} counts, and no handler began it");
            verdict.breaks(Promise::Begun, what);
        }
        is_first = false;
    }
    // Only a handler that returns can exhaust or reject a message.
    if let Some((_, letter)) = letter
        && letter.reason != "crashed"
        && !calls.iter().any(|call| call.attempt == letter.attempts)
    {
        let what = format!("{name} is {} without a last attempt", letter.reason);
        verdict.breaks(Promise::Begun, what);
    }
}
