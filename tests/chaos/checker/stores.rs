//! Registers and claims of the key-value store.

use std::collections::{BTreeMap, BTreeSet};

use super::register::{Operation, linearizable};
use super::{Faults, Promise, Verdict};
use crate::history::{Claimed, Event, Line, Told};

/// The claims and completions of one key, which must be completed once.
#[derive(Default)]
struct Key {
    /// When each token got the claim, in order.
    claims: Vec<(u64, u64)>,
    /// When the completion under a token was sent.
    sent: BTreeMap<u64, u64>,
    completed: Vec<u64>,
    /// Tokens of completions that other clients saw.
    told: BTreeSet<u64>,
    /// The time of the first event and of the last one.
    life: Option<(u64, u64)>,
}

pub(super) fn check(history: &[Line], faults: &Faults<'_>, verdict: &mut Verdict) {
    let mut registers: BTreeMap<&str, BTreeMap<u64, Operation>> = BTreeMap::new();
    let mut keys: BTreeMap<&str, Key> = BTreeMap::new();
    for line in history {
        if let Event::Claim { key, .. }
        | Event::Complete { key, .. }
        | Event::Completed { key, .. } = &line.event
        {
            let life = &mut keys.entry(key).or_default().life;
            *life = Some((life.map_or(line.at, |(first, _)| first), line.at));
        }
        match &line.event {
            Event::Asked { key, call, op } => {
                let operation = Operation {
                    asked: line.at,
                    told_at: u64::MAX,
                    op: *op,
                    told: Told::Unknown,
                };
                registers.entry(key).or_default().insert(*call, operation);
            }
            Event::Told { key, call, told } => {
                let register = registers.entry(key).or_default();
                if let Some(operation) = register.get_mut(call)
                    && *told != Told::Unknown
                {
                    operation.told_at = line.at;
                    operation.told = *told;
                }
            }
            Event::Claim {
                key,
                token,
                claimed,
            } => {
                let key = keys.entry(key).or_default();
                match claimed {
                    Claimed::Mine => key.claims.push((line.at, *token)),
                    Claimed::Done(by) => {
                        key.told.insert(*by);
                    }
                    _ => {}
                }
            }
            Event::Complete { key, token } => {
                let key = keys.entry(key).or_default();
                key.sent.insert(*token, line.at);
            }
            Event::Completed {
                key,
                token,
                claimed: Claimed::Mine,
            } => keys.entry(key).or_default().completed.push(*token),
            _ => {}
        }
    }
    for (name, register) in registers {
        let operations: Vec<Operation> = register.into_values().collect();
        verdict.counts.register_operations += operations.len() as u64;
        let asked = operations.iter().map(|operation| operation.asked);
        let told = operations.iter().map(|operation| operation.told_at);
        let ends = told.filter(|at| *at != u64::MAX);
        let last = ends.chain(asked.clone()).max().unwrap_or(0);
        if faults.took_back(asked.min().unwrap_or(0), last) {
            continue;
        }
        match linearizable(&operations) {
            Ok(true) => {}
            Ok(false) => {
                let what = format!("{name}, of {} operations", operations.len());
                verdict.breaks(Promise::Linearizable, what);
            }
            Err(length) => {
                let what = format!("{name}: {length} operations are too many to check");
                verdict.breaks(Promise::Linearizable, what);
            }
        }
    }
    for (name, key) in keys {
        let (first, last) = key.life.unwrap_or_default();
        if faults.took_back(first, last) {
            continue;
        }
        key.check(name, verdict);
    }
}

impl Key {
    fn check(&self, name: &str, verdict: &mut Verdict) {
        verdict.counts.once_completed += self.completed.len() as u64;
        let all: BTreeSet<u64> = self.completed.iter().chain(&self.told).copied().collect();
        if all.len() > 1 || self.completed.len() > 1 {
            let what = format!("{name} was completed under {all:?}");
            verdict.breaks(Promise::Once, what);
        }
        for token in &self.completed {
            let Some(sent) = self.sent.get(token) else {
                continue;
            };
            let after = self.claims.iter().skip_while(|(_, owner)| owner != token);
            if let Some((_, other)) = after.skip(1).find(|(at, _)| at < sent) {
                let what = format!("{name}: {token} completed after {other} had claimed");
                verdict.breaks(Promise::Once, what);
            }
        }
    }
}
