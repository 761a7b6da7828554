//! Places in a merged sequence as each partition sees them, and sums of what partitions answer.

use crate::domain::EntryId;
use crate::store::GroupStatus;

fn next(id: EntryId) -> EntryId {
    match id.sequence.checked_add(1) {
        Some(sequence) => EntryId::new(id.millis, sequence),
        None => EntryId::new(id.millis.saturating_add(1), 0),
    }
}

fn bare(id: EntryId) -> EntryId {
    id.in_partition(0)
}

/// After which id of a partition its entries are after an id of any partition.
pub(super) fn after_in(after: Option<EntryId>, number: u16) -> Option<EntryId> {
    let id = after?;
    match number > id.partition() {
        true => bare(id).before(),
        false => Some(bare(id)),
    }
}

/// Before which id of a partition its entries are before an id of any partition.
pub(super) fn before_in(before: Option<EntryId>, number: u16) -> Option<EntryId> {
    let id = before?;
    match number < id.partition() {
        true => Some(next(id)),
        false => Some(bare(id)),
    }
}

/// Up to which id of a partition its entries are not after an id of any partition. No entry has the
/// smallest id.
pub(super) fn until_in(until: Option<EntryId>, number: u16) -> Option<EntryId> {
    let id = until?;
    match number > id.partition() {
        true => Some(bare(id).before().unwrap_or_default()),
        false => Some(bare(id)),
    }
}

/// The first id of a partition that is not before an id of any partition.
pub(super) fn first_in(id: EntryId, number: u16) -> EntryId {
    match number < id.partition() {
        true => next(id),
        false => bare(id),
    }
}

/// The status of a group on two partitions. A consumer is known on every partition.
pub(super) fn join_groups(one: GroupStatus, other: GroupStatus) -> GroupStatus {
    GroupStatus {
        group: one.group,
        lag: one.lag + other.lag,
        in_flight: one.in_flight + other.in_flight,
        scheduled: one.scheduled + other.scheduled,
        dead: one.dead + other.dead,
        consumers: one.consumers.max(other.consumers),
        owned: one.owned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = EntryId> {
        (0..3_u64, 0..3_u64, 0..3_u16)
            .prop_map(|(millis, sequence, at)| EntryId::new(millis, sequence).in_partition(at))
    }

    proptest! {
        #[test]
        fn each_partition_sees_a_place_as_the_whole_topic_does(place in id(), entry in id()) {
            // No entry has the smallest id.
            prop_assume!(bare(entry) > EntryId::default());
            let (number, own) = (entry.partition(), bare(entry));
            let after = after_in(Some(place), number).is_none_or(|after| own > after);
            prop_assert_eq!(after, entry > place);
            let before = before_in(Some(place), number).is_none_or(|before| own < before);
            prop_assert_eq!(before, entry < place);
            let until = until_in(Some(place), number).is_none_or(|until| own <= until);
            prop_assert_eq!(until, entry <= place);
            prop_assert_eq!(own >= first_in(place, number), entry >= place);
        }
    }
}
