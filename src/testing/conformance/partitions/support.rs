//! Shared by the checks of partitions: a topic with four, and messages for each.

use crate::domain::{EntryId, Envelope, TopicSettings};
use crate::store::NewEntry;
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{Must as _, Stage, entry, number};

pub(super) const FOUR: u16 = 4;

pub(super) fn four() -> TopicSettings {
    TopicSettings::default().with_partitions(FOUR)
}

/// A message with a number and one of ten keys.
pub(super) fn keyed(n: u32) -> Envelope {
    number(n).with_key(format!("k{}", n % 10))
}

/// An entry with a number in the partition of a slot.
pub(super) fn entry_of(slot: u16, n: u32) -> NewEntry {
    NewEntry {
        slot: Some(slot),
        ..entry(n)
    }
}

impl<S: Subject> Stage<'_, S> {
    /// Appends one entry to each partition, with the partition's number in it.
    pub(super) async fn append_to_each(&self) -> Vec<EntryId> {
        let entries: Vec<NewEntry> = (0..FOUR).map(|at| entry_of(at, at.into())).collect();
        self.append_entries(&entries).await
    }

    pub(super) async fn publish_keyed(&self, numbers: std::ops::Range<u32>) -> Vec<EntryId> {
        let all: Vec<Envelope> = numbers.map(keyed).collect();
        let results = self.container.bus().publish_all(&self.topic, &all).await;
        let ids = results.into_iter();
        ids.map(|one| one.must("publishing").id).collect()
    }
}
