//! Messages for later, beside the log of their topic.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::adapter::{MemoryAdapter, turn};
use super::log::fields;
use super::schedule::time;
use super::state::TopicState;
use crate::domain::{BoxFuture, Error, ScheduleId, Timestamp, When};
use crate::store::{
    Fields, Later, LaterEntry, LaterPage, LaterPut, MAX_BATCH, NewEntry, NewLater, Partition,
    Promoted,
};

/// The messages for later of one topic.
#[derive(Debug, Default)]
pub(super) struct LaterState {
    by_due: BTreeMap<(u64, ScheduleId), Fields>,
    due_of: HashMap<ScheduleId, u64>,
}

impl LaterState {
    pub(super) fn len(&self) -> u64 {
        self.by_due.len() as u64
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
        let entry = NewEntry {
            id: uuid::Uuid::nil(),
            name: message.name,
            value: message.value.clone(),
        };
        let due = message.due.millis(now);
        self.remove(&message.id);
        self.due_of.insert(message.id.clone(), due);
        self.by_due
            .insert((due, message.id.clone()), fields(&entry));
        (due, known.is_some())
    }

    fn reschedule(&mut self, id: &ScheduleId, due: u64) -> bool {
        let Some(fields) = self.remove(id) else {
            return false;
        };
        self.due_of.insert(id.clone(), due);
        self.by_due.insert((due, id.clone()), fields);
        true
    }

    fn pop_due(&mut self, now: u64) -> Option<Fields> {
        let first = self.by_due.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((_, id), fields) = first.remove_entry();
        self.due_of.remove(&id);
        Some(fields)
    }
}

impl TopicState {
    /// Whether the topic keeps as many messages for later as it may, and none of this id.
    pub(super) fn is_full_for(&self, id: &ScheduleId) -> bool {
        let settings = self.settings.unwrap_or_default();
        self.later.len() >= settings.backlog_limit() && !self.later.due_of.contains_key(id)
    }
}

/// Appends due messages to the topic's log. Wakes its readers.
pub(super) fn promote_later(topic: &mut TopicState, now: u64, max: usize) -> Promoted {
    let mut promoted = Promoted::default();
    while promoted.published < max.min(MAX_BATCH) as u64
        && let Some(fields) = topic.later.pop_due(now)
    {
        topic.log.push(now, fields);
        promoted.published += 1;
    }
    if promoted.published > 0 {
        topic.arrived.notify_waiters();
    }
    let next = topic.later.first_due();
    promoted.next = next.map(|due| until(due, now));
    promoted
}

fn until(due: u64, now: u64) -> Duration {
    Duration::from_millis(due.saturating_sub(now))
}

fn put(topic: &mut TopicState, message: &NewLater, now: u64) -> LaterPut {
    if topic.settings.is_none() {
        return LaterPut::NoTopic;
    }
    if topic.is_full_for(&message.id) {
        return LaterPut::Full;
    }
    let (due, known) = topic.later.put(message, now);
    let due_in = until(due, now);
    let due = time(due);
    match known && message.keeps {
        true => LaterPut::Kept { due, due_in },
        false => LaterPut::Scheduled {
            due,
            due_in,
            replaced: known,
        },
    }
}

impl Later for MemoryAdapter {
    fn put<'a>(
        &'a self,
        at: &'a Partition,
        messages: &'a [NewLater],
    ) -> BoxFuture<'a, Result<Vec<LaterPut>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let now = self.shared.now();
                let Some(topic) = space.topics.get_mut(at.topic()) else {
                    return vec![LaterPut::NoTopic; messages.len()];
                };
                let each = messages.iter();
                each.map(|message| put(topic, message, now)).collect()
            }))
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<(Timestamp, &'a ScheduleId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<LaterPage, Error>> {
        let from = after.map_or(Bound::Unbounded, |(due, id)| {
            let due = u64::try_from(due.as_millis()).unwrap_or(0);
            Bound::Excluded((due, id.clone()))
        });
        turn(move || {
            let entries = self.with(|space| {
                let Some(topic) = space.topics.get(at.topic()) else {
                    return Vec::new();
                };
                let range = topic.later.by_due.range((from, Bound::Unbounded));
                let listed = range.map(|((due, id), fields)| LaterEntry {
                    id: id.clone(),
                    due: time(*due),
                    fields: fields.clone(),
                });
                listed.take(max.min(MAX_BATCH)).collect()
            });
            let now = self.shared.clock.now();
            Ok(LaterPage { now, entries })
        })
    }

    fn cancel<'a>(
        &'a self,
        at: &'a Partition,
        ids: &'a [ScheduleId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let mut topic = space.topics.get_mut(at.topic());
                let mut cancel = |id: &ScheduleId| {
                    let topic = topic.as_deref_mut();
                    topic.is_some_and(|topic| topic.later.remove(id).is_some())
                };
                ids.iter().map(&mut cancel).collect()
            }))
        })
    }

    fn reschedule<'a>(
        &'a self,
        at: &'a Partition,
        id: &'a ScheduleId,
        due: When,
    ) -> BoxFuture<'a, Result<Option<(Timestamp, Duration)>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let now = self.shared.now();
                let due = due.millis(now);
                let topic = space.topics.get_mut(at.topic())?;
                let changed = topic.later.reschedule(id, due);
                changed.then(|| (time(due), until(due, now)))
            }))
        })
    }

    fn promote<'a>(
        &'a self,
        at: &'a Partition,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let now = self.shared.now();
                let topic = space.topics.get_mut(at.topic());
                topic.map_or_else(Promoted::default, |topic| promote_later(topic, now, max))
            }))
        })
    }
}
