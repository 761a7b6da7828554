//! What dead letters are counted by, added up.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::domain::{EntryId, HeadView};

const HOUR: u64 = 3_600_000;

/// How many dead letters there are of each count and each cause, by the names that they have in
/// the hashes, see lua/lib/dead_counts.lua.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) counts: BTreeMap<String, i64>,
    pub(super) causes: BTreeMap<String, i64>,
}

impl Sums {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Text and integers written to memory: no path of the serializer fails on them.
        rmp_serde::to_vec(self).unwrap_or_default()
    }

    /// What cannot be read counts nothing.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        rmp_serde::from_slice(bytes).unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        add(&mut self.counts, &other.counts, 1);
        add(&mut self.causes, &other.causes, 1);
    }

    /// Takes back what was added.
    pub(super) fn subtract(&mut self, other: &Self) {
        add(&mut self.counts, &other.counts, -1);
        add(&mut self.causes, &other.causes, -1);
    }

    /// How many names it has.
    pub(super) fn len(&self) -> usize {
        self.counts.len() + self.causes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn add(all: &mut BTreeMap<String, i64>, some: &BTreeMap<String, i64>, sign: i64) {
    for (name, number) in some {
        let number = number.saturating_mul(sign);
        let sum = all
            .get(name)
            .map_or(number, |sum| sum.saturating_add(number));
        match all.get_mut(name) {
            _ if sum == 0 => drop(all.remove(name)),
            Some(known) => *known = sum,
            None => drop(all.insert(name.clone(), sum)),
        }
    }
}

/// By what each of some dead letters is counted.
#[derive(Debug, Default)]
pub(super) struct Tallies(HashMap<EntryId, Tally>);

#[derive(Debug)]
struct Tally {
    counts: [String; 3],
    cause: String,
}

impl Tallies {
    pub(super) fn enter(&mut self, id: EntryId, head: HeadView<'_>) {
        let tally = Tally {
            counts: [
                format!("type:{}", head.kind),
                format!("tenant:{}", head.tenant),
                format!("hour:{}", id.millis / HOUR),
            ],
            cause: format!("{} {}", head.reason, head.fingerprint),
        };
        self.0.insert(id, tally);
    }

    /// What some of them add up to.
    pub(super) fn add_up(&self, ids: impl Iterator<Item = EntryId>) -> Sums {
        let mut sums = Sums::default();
        let enter = |all: &mut BTreeMap<String, i64>, name: &String| match all.get_mut(name) {
            Some(sum) => *sum += 1,
            None => drop(all.insert(name.clone(), 1)),
        };
        for tally in ids.filter_map(|id| self.0.get(&id)) {
            for name in &tally.counts {
                enter(&mut sums.counts, name);
            }
            enter(&mut sums.causes, &tally.cause);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums() -> impl Strategy<Value = Sums> {
        let some = || prop::collection::btree_map("[a-c]{1,2}", 1_i64..100, 0..5);
        (some(), some()).prop_map(|(counts, causes)| Sums { counts, causes })
    }

    proptest! {
        #[test]
        fn sums_are_read_as_they_were_written(sums in sums()) {
            prop_assert_eq!(Sums::decode(&sums.encode()), sums);
        }

        #[test]
        fn what_is_added_is_in_the_sum(all in prop::collection::vec(sums(), 0..5)) {
            let mut sum = Sums::default();
            all.iter().for_each(|one| sum.add(one));
            for (name, number) in &sum.counts {
                let each = all.iter().filter_map(|one| one.counts.get(name));
                prop_assert_eq!(each.sum::<i64>(), *number);
            }
            all.iter().for_each(|one| sum.subtract(one));
            prop_assert!(sum.is_empty(), "{:?}", sum);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Sums::decode(&bytes);
        }
    }
}
