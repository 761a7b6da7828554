//! Sums of what dead letters count for: type, tenant, hour and cause.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::domain::{EntryId, HeadView};

const HOUR: u64 = 3_600_000;

/// Numbers of dead letters by count and by cause, under their field names in the hashes; see
/// `lua/lib/dead_counts.lua`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) counts: BTreeMap<String, i64>,
    pub(super) causes: BTreeMap<String, i64>,
}

impl Sums {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Writing text and integers to memory does not fail.
        rmp_serde::to_vec(self).unwrap_or_default()
    }

    /// Decodes a sum. Undecodable bytes are an empty sum.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        rmp_serde::from_slice(bytes).unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (name, number) in &other.counts {
            change(&mut self.counts, name, *number);
        }
        for (name, number) in &other.causes {
            change(&mut self.causes, name, *number);
        }
    }

    /// Adds a number for a dead letter.
    pub(super) fn count(&mut self, id: EntryId, head: HeadView<'_>, number: i64) {
        let mut name = String::with_capacity(64);
        let hour = id.millis / HOUR;
        let parts = [
            format_args!("type:{}", head.message_type),
            format_args!("tenant:{}", head.tenant),
            format_args!("hour:{hour}"),
        ];
        for parts in parts {
            name.clear();
            // Writing to memory does not fail.
            let _ = name.write_fmt(parts);
            change(&mut self.counts, &name, number);
        }
        name.clear();
        let _ = write!(name, "{} {}", head.reason, head.fingerprint);
        change(&mut self.causes, &name, number);
    }

    /// How many counts and causes the sum changes.
    pub(super) fn len(&self) -> usize {
        self.counts.len() + self.causes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn change(all: &mut BTreeMap<String, i64>, name: &str, number: i64) {
    match all.get_mut(name) {
        Some(sum) => {
            *sum = sum.saturating_add(number);
            if *sum == 0 {
                all.remove(name);
            }
        }
        None if number != 0 => drop(all.insert(name.to_owned(), number)),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;
    use proptest::prelude::*;

    fn sums() -> impl Strategy<Value = Sums> {
        let some = || prop::collection::btree_map("[a-c]{1,2}", 1_i64..100, 0..5);
        (some(), some()).prop_map(|(counts, causes)| Sums { counts, causes })
    }

    proptest! {
        #[test]
        fn a_decoded_sum_equals_the_encoded_one(sums in sums()) {
            prop_assert_eq!(Sums::decode(&sums.encode()), sums);
        }

        #[test]
        fn an_added_number_is_in_the_sum(all in prop::collection::vec(sums(), 0..5)) {
            let mut sum = Sums::default();
            all.iter().for_each(|one| sum.add(one));
            for (name, number) in &sum.counts {
                let each = all.iter().filter_map(|one| one.counts.get(name));
                prop_assert_eq!(each.sum::<i64>(), *number);
            }
        }

        #[test]
        fn counting_and_uncounting_leaves_an_empty_sum(
            texts in prop::collection::vec("[a-c]{0,2}", 0..20)
        ) {
            let mut sums = Sums::default();
            for (number, left) in [(1, texts.len() as i64), (-1, 0)] {
                for text in &texts {
                    let head = HeadView {
                        reason: Reason::Crashed,
                        fingerprint: text,
                        message_type: text,
                        tenant: text,
                        correlation: "",
                        error: "",
                        attempts: 1,
                        redriven: 0,
                        redriven_by: None,
                    };
                    sums.count(EntryId::default(), head, number);
                }
                // Each is counted once by its hour, and once by its cause.
                prop_assert_eq!(sums.counts.get("hour:0").copied().unwrap_or(0), left);
                prop_assert_eq!(sums.causes.values().sum::<i64>(), left);
            }
            prop_assert!(sums.is_empty(), "{:?}", sums);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Sums::decode(&bytes);
        }
    }
}
