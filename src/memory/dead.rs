//! Dead letters: reading, redriving, purging.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::backend::MemoryBackend;
use super::promote::redo_entry;
use crate::backend::Record;
use crate::domain::{EntryId, Group, Topic};

impl MemoryBackend {
    pub(super) fn list_dead(
        &self,
        topic: &Topic,
        group: &Group,
        after: Option<EntryId>,
        max: usize,
    ) -> Vec<(EntryId, Record)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.with(|space| {
            let Some(group) = space.group(topic, group) else {
                return Vec::new();
            };
            let records = group.dead.range((from, Bound::Unbounded));
            let found = records.take(max);
            found.map(|(id, record)| (*id, record.clone())).collect()
        })
    }

    pub(super) fn find_dead(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Vec<(EntryId, Record)> {
        self.with(|space| {
            let Some(group) = space.group(topic, group) else {
                return Vec::new();
            };
            let find = |id: &EntryId| Some((*id, group.dead.get(id)?.clone()));
            ids.iter().filter_map(find).collect()
        })
    }

    pub(super) fn redrive_dead(
        &self,
        topic: &Topic,
        group: &Group,
        parcels: &[(EntryId, Bytes)],
    ) -> Vec<bool> {
        let now = self.shared.now();
        let (moved, arrived) = self.with(|space| {
            let none = || (vec![false; parcels.len()], None);
            let Some(topic) = space.topics.get_mut(topic) else {
                return none();
            };
            let Some(group) = topic.groups.get_mut(group) else {
                return none();
            };
            let mut redrive = |(id, parcel): &(EntryId, Bytes)| {
                let found = group.dead.remove(id).is_some();
                if found {
                    group.redo.push(now, redo_entry(parcel.clone()));
                }
                found
            };
            let moved = parcels.iter().map(&mut redrive).collect();
            (moved, Some(Arc::clone(&topic.arrived)))
        });
        if let Some(arrived) = arrived {
            arrived.notify_waiters();
        }
        moved
    }

    pub(super) fn purge_dead(&self, topic: &Topic, group: &Group, ids: &[EntryId]) -> Vec<bool> {
        self.with(|space| {
            let Some(group) = space.group(topic, group) else {
                return vec![false; ids.len()];
            };
            let mut purge = |id: &EntryId| group.dead.remove(id).is_some();
            ids.iter().map(&mut purge).collect()
        })
    }

    pub(super) fn count_dead(&self, topic: &Topic, group: &Group) -> Vec<(String, u64)> {
        self.with(|space| {
            let mut counts = BTreeMap::new();
            let records = space.group(topic, group).into_iter();
            for record in records.flat_map(|group| group.dead.values()) {
                for name in [
                    format!("reason:{}", record.reason),
                    format!("fingerprint:{}", record.fingerprint),
                    format!("type:{}", record.kind),
                    format!("tenant:{}", record.tenant),
                ] {
                    *counts.entry(name).or_default() += 1;
                }
            }
            counts.into_iter().collect()
        })
    }
}
