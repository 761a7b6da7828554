//! Hash tags of a namespace by slot.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::net::slot_of;

/// Hash tags such as `shop:4711`, one for each slot: the smallest number whose tag lies in the slot. Clones
/// share what they have found.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotTags(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    numbers: HashMap<u16, u32>,
    /// The first number that nobody has tried. All slots together take about 170,000 numbers.
    next: u32,
}

impl SlotTags {
    /// The tag in a slot, always the same one.
    pub(super) fn tag(&self, namespace: &str, slot: u16) -> String {
        let mut tag = String::new();
        let mut write = |number: u32| {
            tag.clear();
            // Writing to memory does not fail.
            let _ = write!(tag, "{namespace}:{number}");
            slot_of(tag.as_bytes())
        };
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !found.numbers.contains_key(&slot) {
            let number = found.next;
            found.next += 1;
            found.numbers.entry(write(number)).or_insert(number);
        }
        write(found.numbers[&slot]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_one_tag_whatever_was_asked_for_before() {
        let (tags, fresh) = (SlotTags::default(), SlotTags::default());
        for slot in [0, 16_383, 4_711, 0] {
            let tag = tags.tag("shop", slot);
            assert_eq!(slot_of(tag.as_bytes()), slot, "{tag}");
        }
        assert_eq!(tags.tag("shop", 4_711), fresh.tag("shop", 4_711));
    }
}
