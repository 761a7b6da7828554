//! The messages for later that a topic keeps.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::domain::ScheduleId;
use crate::store::{Fields, NewLater};

/// The messages for later of one topic.
#[derive(Debug, Default)]
pub(super) struct LaterState {
    pub(super) by_due: BTreeMap<(u64, ScheduleId), Fields>,
    due_of: HashMap<ScheduleId, u64>,
}

impl LaterState {
    pub(super) fn len(&self) -> u64 {
        self.by_due.len() as u64
    }

    pub(super) fn contains(&self, id: &ScheduleId) -> bool {
        self.due_of.contains_key(id)
    }

    /// When the earliest is due.
    pub(super) fn first_due(&self) -> Option<u64> {
        self.by_due.keys().next().map(|(due, _)| *due)
    }

    pub(super) fn remove(&mut self, id: &ScheduleId) -> Option<Fields> {
        let due = self.due_of.remove(id)?;
        self.by_due.remove(&(due, id.clone()))
    }

    /// Schedules a message. Returns when the message of this id is due, and whether there was one.
    pub(super) fn put(&mut self, message: &NewLater, now: u64) -> (u64, bool) {
        let known = self.due_of.get(&message.id).copied();
        if let Some(due) = known.filter(|_| message.keeps) {
            return (due, true);
        }
        let name = Bytes::from_static(message.name.as_bytes());
        let fields = vec![(name, message.value.clone())];
        let due = message.due.millis(now);
        self.remove(&message.id);
        self.due_of.insert(message.id.clone(), due);
        self.by_due.insert((due, message.id.clone()), fields);
        (due, known.is_some())
    }

    pub(super) fn reschedule(&mut self, id: &ScheduleId, due: u64) -> bool {
        let Some(fields) = self.remove(id) else {
            return false;
        };
        self.due_of.insert(id.clone(), due);
        self.by_due.insert((due, id.clone()), fields);
        true
    }

    pub(super) fn pop_due(&mut self, now: u64) -> Option<Fields> {
        let first = self.by_due.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((_, id), fields) = first.remove_entry();
        self.due_of.remove(&id);
        Some(fields)
    }
}
