//! Messages for later, beside the log of their topic.

use std::ops::Bound;
use std::time::Duration;

use super::adapter::{MemoryAdapter, turn};
use super::log::refuse;
use super::schedule::{promote_later, time, until};
use super::state::TopicState;
use crate::domain::{BoxFuture, Durability, Error, ScheduleId, Timestamp, When};
use crate::store::{
    Later, LaterEntry, LaterPage, LaterPlace, LaterPut, MAX_BATCH, NewLater, Partition, Promoted,
};

impl TopicState {
    /// Whether the topic keeps as many messages for later as it may, and none of this id.
    pub(super) fn is_full_for(&self, id: &ScheduleId) -> bool {
        self.left_for_later() == 0 && !self.later.contains(id)
    }

    /// How many more messages for later the topic may keep.
    pub(super) fn left_for_later(&self) -> u64 {
        let settings = self.settings.unwrap_or_default();
        let limit = settings.share(settings.backlog_limit());
        limit.saturating_sub(self.later.len())
    }
}

fn put(topic: &mut TopicState, message: &NewLater, now: u64) -> LaterPut {
    if topic.settings.is_none() {
        return LaterPut::NoTopic;
    }
    if topic.is_full_for(&message.id) {
        let settings = topic.settings.unwrap_or_default();
        return LaterPut::Full {
            partition: 0,
            partitions: settings.partitions(),
            most: settings.share(settings.backlog_limit()),
        };
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
        level: Durability,
        messages: &'a [NewLater],
    ) -> BoxFuture<'a, Result<Vec<LaterPut>, Error>> {
        turn(move || {
            refuse(level)?;
            let done = self.with(|space| {
                let now = self.shared.now();
                let Some(topic) = space.topics.get_mut(at) else {
                    return vec![LaterPut::NoTopic; messages.len()];
                };
                let each = messages.iter();
                each.map(|message| put(topic, message, now)).collect()
            });
            self.ring_due(at.topic());
            Ok(done)
        })
    }

    fn list<'a>(
        &'a self,
        at: &'a Partition,
        after: Option<LaterPlace<'a>>,
        max: usize,
    ) -> BoxFuture<'a, Result<LaterPage, Error>> {
        let from = after.map_or(Bound::Unbounded, |place| {
            let due = u64::try_from(place.due.as_millis()).unwrap_or(0);
            Bound::Excluded((due, place.id.clone()))
        });
        turn(move || {
            let entries = self.with(|space| {
                let Some(topic) = space.topics.get(at) else {
                    return Vec::new();
                };
                let range = topic.later.by_due.range((from, Bound::Unbounded));
                let listed = range.map(|((due, id), fields)| LaterEntry {
                    id: id.clone(),
                    partition: 0,
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
    ) -> BoxFuture<'a, Result<Vec<u64>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let mut topic = space.topics.get_mut(at);
                let mut cancel = |id: &ScheduleId| {
                    let topic = topic.as_deref_mut();
                    u64::from(topic.is_some_and(|topic| topic.later.remove(id).is_some()))
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
    ) -> BoxFuture<'a, Result<Vec<(Timestamp, Duration)>, Error>> {
        turn(move || {
            let done = self.with(|space| {
                let now = self.shared.now();
                let due = due.millis(now);
                let topic = space.topics.get_mut(at)?;
                let changed = topic.later.reschedule(id, due);
                changed.then(|| (time(due), until(due, now)))
            });
            self.ring_due(at.topic());
            Ok(done.into_iter().collect())
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
                let topic = space.topics.get_mut(at);
                topic.map_or_else(Promoted::default, |topic| promote_later(topic, now, max))
            }))
        })
    }
}
