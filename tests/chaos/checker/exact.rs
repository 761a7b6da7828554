//! Checks the pipeline: what its stages have counted and passed on.

use std::collections::BTreeMap;

use super::{Promise, Rules, Verdict};
use crate::history::{Event, Line};

/// How many messages a list has, and the first one.
fn such_as(numbers: &[u64]) -> String {
    let first = numbers.first().copied().unwrap_or_default();
    format!("{} messages, such as {first}", numbers.len())
}

/// Each stage counts each message once and passes it on once. A message that entered before a fault that
/// loses data by definition may be missing. After such a fault, too, no stage passes a message on twice,
/// and its counters agree with the messages that it has passed on.
pub(super) fn check(history: &[Line], rules: &Rules, forgotten_at: u64, verdict: &mut Verdict) {
    let mut entered = BTreeMap::new();
    let mut stages = 0;
    for line in history {
        if let Event::Entered { n } = &line.event {
            entered.insert(*n, line.at);
        }
    }
    verdict.counts.entered = entered.len() as u64;
    for line in history {
        let Event::Stage {
            stage,
            count,
            sum,
            shared,
            passed,
        } = &line.event
        else {
            continue;
        };
        stages += 1;
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        for n in passed {
            *times.entry(*n).or_default() += 1;
        }
        let twice: Vec<u64> = times
            .iter()
            .filter(|one| *one.1 > 1)
            .map(|one| *one.0)
            .collect();
        let unknown = times.keys().filter(|n| !entered.contains_key(n));
        let unknown: Vec<u64> = unknown.copied().collect();
        let missing = entered.iter().filter(|(n, _)| !times.contains_key(n));
        let (missing, forgotten): (Vec<_>, Vec<_>) =
            missing.partition(|(_, at)| **at > forgotten_at);
        let missing: Vec<u64> = missing.into_iter().map(|(n, _)| *n).collect();
        verdict.counts.passed += passed.len() as u64;
        verdict.counts.passed_twice += twice.len() as u64;
        verdict.counts.forgotten += forgotten.len() as u64;
        for (what, numbers) in [
            ("were passed on more than once", &twice),
            ("were passed on and never entered", &unknown),
            ("were not passed on", &missing),
        ] {
            if !numbers.is_empty() {
                let what = format!("{stage}: {} {what}", such_as(numbers));
                verdict.breaks(Promise::Exact, what);
            }
        }
        let of_shared = passed.iter().filter(|n| (rules.is_shared)(**n)).count() as u64;
        for (what, counted, expected) in [
            ("count", *count, passed.len() as u64),
            ("sum", *sum, passed.iter().sum()),
            ("shared value", *shared, of_shared),
        ] {
            if counted != expected {
                let what = format!("{stage}: its {what} is {counted}, and {expected} by messages");
                verdict.breaks(Promise::Exact, what);
            }
        }
    }
    if !entered.is_empty() && stages != rules.stages {
        let what = format!("{stages} stages were examined, not {}", rules.stages);
        verdict.breaks(Promise::Exact, what);
    }
}
