//! The shared state.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::adapter::MemoryAdapter;
use super::ids::Ids;
use super::sequence::{Cursor, Sequence, next_id};
use super::values::Table;
use crate::api::{Kv, StoreKv};
use crate::domain::{
    Clock, ConsumerName, EntryId, Group, Namespace, SystemClock, Topic, TopicSettings,
};
use crate::store::{DeliveryId, Fields, GroupAt, JournalRow, Lane, Record, Store};
use crate::wire::redelivery::RETRY_FIELD;

/// A store in this process's memory. Cheap to clone; clones are the same store.
///
/// Several containers can share one, as several processes share a server. Its contents are gone
/// when the last clone, container and key-value store is dropped.
///
/// # Example
///
/// ```
/// use redstart::{Container, Group, memory::MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), redstart::Error> {
/// let store = MemoryStore::new();
/// let billing = Container::builder()
///     .with_memory(store.clone())
///     .with_service(Group::new("billing")?)
///     .connect()
///     .await?;
/// let shipping = Container::builder()
///     .with_memory(store)
///     .with_service(Group::new("shipping")?)
///     .connect()
///     .await?;
/// # drop((billing, shipping));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("clock", &self.shared.clock)
            .finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store on the clock of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock)
    }

    /// An empty store on another clock, such as a [`ManualClock`](super::ManualClock).
    ///
    /// Retries, snoozes, times to live, ages, entry ids and claims of `once` go by it. Leases of
    /// deliveries go by the time that really passes.
    #[must_use]
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: Arc::new(clock),
                spaces: Mutex::default(),
            }),
        }
    }

    /// The store of a namespace, for use without a container; a container makes its own.
    #[must_use]
    pub fn store(&self, namespace: Option<Namespace>) -> Arc<dyn Store> {
        Arc::new(MemoryAdapter::new(Arc::clone(&self.shared), namespace))
    }

    /// The key-value store of a namespace.
    #[must_use]
    pub fn kv(&self, namespace: Option<Namespace>) -> Kv {
        StoreKv::of(self.store(namespace))
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Removes everything in all namespaces, like a server that has lost its data. Subscriptions
    /// create their groups again and continue.
    pub fn clear(&self) {
        let spaces = std::mem::take(&mut *self.shared.lock());
        // A waiting reader then finds that its group is gone.
        for topic in spaces.values().flat_map(|space| space.topics.values()) {
            topic.arrived.notify_waiters();
        }
    }
}

type Spaces = HashMap<Option<Namespace>, Space>;

/// All namespaces, behind one lock that is never held across a wait.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    spaces: Mutex<Spaces>,
}

impl Shared {
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
    pub(super) topics: BTreeMap<Topic, TopicState>,
    pub(super) values: Table,
}

impl Space {
    pub(super) fn group(&mut self, at: &GroupAt) -> Option<&mut GroupState> {
        self.topics.get_mut(at.topic())?.groups.get_mut(&at.group)
    }
}

/// A topic. It has no settings when a publish created it before `ensure_topic` did.
#[derive(Debug, Default)]
pub(super) struct TopicState {
    pub(super) settings: Option<TopicSettings>,
    pub(super) log: Sequence,
    pub(super) ids: Ids,
    pub(super) groups: BTreeMap<Group, GroupState>,
    /// Notified when the log or a redelivery stream has a new entry.
    pub(super) arrived: Arc<Notify>,
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
    /// The identities of restored dead letters, and the ids that they got.
    pub(super) restored: BTreeMap<String, EntryId>,
    /// When each consumer was last active.
    pub(super) consumers: BTreeMap<ConsumerName, Instant>,
}

impl GroupState {
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
