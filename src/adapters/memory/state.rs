//! The state of a store: its namespaces, their topics and groups, behind one lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::bells::Bells;
use super::ids::Ids;
use super::later_state::LaterState;
use super::owned::Owned;
use super::sequence::{Cursor, Sequence, next_id};
use super::sessions::Sessions;
use super::table::Table;
use crate::domain::{Clock, ConsumerName, EntryId, Group, Namespace, Placement, TopicSettings};
use crate::store::{DeliveryId, Fields, GroupAt, JournalRow, Lane, Partition, Record};
use crate::wire::redelivery::RETRY_FIELD;

type Spaces = HashMap<Option<Namespace>, Space>;

/// All namespaces, behind one lock that is never held across a wait.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bells: Bells,
    spaces: Mutex<Spaces>,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            bells: Bells::default(),
            spaces: Mutex::default(),
        }
    }

    /// Removes everything in all namespaces.
    pub(super) fn clear(&self) {
        let spaces = std::mem::take(&mut *self.lock());
        // A waiting reader then finds that its group is gone.
        for topic in spaces.values().flat_map(|space| space.topics.values()) {
            topic.arrived.notify_waiters();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Spaces> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on one namespace, alone.
    pub(super) fn with<T>(
        &self,
        namespace: &Option<Namespace>,
        work: impl FnOnce(&mut Space) -> T,
    ) -> T {
        let mut spaces = self.lock();
        if let Some(space) = spaces.get_mut(namespace) {
            return work(space);
        }
        work(spaces.entry(namespace.clone()).or_default())
    }

    /// Milliseconds since 1970, by the store's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(0)
    }
}

/// The contents of one namespace.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) topics: BTreeMap<Partition, TopicState>,
    pub(super) values: Table,
    pub(super) sessions: Sessions,
    /// `None` until a container has set the namespace up.
    pub(super) placement: Option<Placement>,
    /// The last token of any owner: tokens grow over groups that are removed and created again.
    pub(super) last_token: u64,
}

impl Space {
    pub(super) fn group(&mut self, at: &GroupAt) -> Option<&mut GroupState> {
        self.topics
            .get_mut(&at.partition)?
            .groups
            .get_mut(&at.group)
    }
}

/// A partition. It has no settings when a publish created it before `ensure_topic` did.
#[derive(Debug, Default)]
pub(super) struct TopicState {
    pub(super) settings: Option<TopicSettings>,
    pub(super) log: Sequence,
    pub(super) ids: Ids,
    pub(super) later: LaterState,
    pub(super) groups: BTreeMap<Group, GroupState>,
    /// Notified when the log or a redelivery stream has a new entry.
    pub(super) arrived: Arc<Notify>,
    /// When a consumer last trimmed the log.
    pub(super) trimmed: Option<Instant>,
}

impl TopicState {
    /// The entries of one of a group's lanes, and the group's cursor over them.
    pub(super) fn lane(&mut self, group: &Group, lane: Lane) -> Option<(&Sequence, &mut Cursor)> {
        let state = self.groups.get_mut(group)?;
        Some(match lane {
            Lane::Log => (&self.log, &mut state.log),
            Lane::Redelivery => (&state.redelivery, &mut state.redelivered),
        })
    }
}

/// An entry of a redelivery stream.
pub(super) fn redelivery_entry(redelivery: Bytes) -> Fields {
    vec![(Bytes::from_static(RETRY_FIELD), redelivery)]
}

#[derive(Debug, Default)]
pub(super) struct GroupState {
    /// How far it has come in the topic's log.
    pub(super) log: Cursor,
    pub(super) redelivery: Sequence,
    /// How far it has come in its redelivery stream.
    pub(super) redelivered: Cursor,
    /// Redeliveries by due time in milliseconds and by the delivery that ended with them.
    pub(super) scheduled: BTreeMap<(u64, DeliveryId), Bytes>,
    pub(super) dead: BTreeMap<EntryId, Record>,
    last_dead: EntryId,
    /// Operators' changes to its dead letters.
    pub(super) journal: BTreeMap<Uuid, JournalRow>,
    /// Operators' notes, by name.
    pub(super) notes: BTreeMap<String, String>,
    /// The identities of restored dead letters, and the ids that they got.
    pub(super) restored: BTreeMap<String, EntryId>,
    /// Zero until a consumer sets one.
    pub(super) lease: Duration,
    /// Set for an owned group.
    pub(super) owned: Option<Owned>,
    /// When each consumer was last active.
    pub(super) consumers: BTreeMap<ConsumerName, Instant>,
}

impl GroupState {
    /// Scheduled retries and unsettled redeliveries.
    pub(super) fn later(&self) -> u64 {
        let unsettled = self.redelivered.lag(&self.redelivery);
        (self.scheduled.len() + self.redelivered.pending.len()) as u64 + unsettled
    }

    pub(super) fn cursor(&mut self, lane: Lane) -> &mut Cursor {
        match lane {
            Lane::Log => &mut self.log,
            Lane::Redelivery => &mut self.redelivered,
        }
    }

    /// Adds a dead letter, as the newest.
    pub(super) fn dead_letter(&mut self, record: Record, now: u64) -> EntryId {
        let id = next_id(self.last_dead, now);
        self.last_dead = id;
        self.dead.insert(id, record);
        id
    }

    pub(super) fn set_active(&mut self, consumer: &ConsumerName) {
        self.consumers.insert(consumer.clone(), Instant::now());
    }
}
