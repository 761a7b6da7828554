//! The handle of a store in memory.

use std::fmt;
use std::sync::Arc;

use super::adapter::MemoryAdapter;
use super::state::Shared;
use super::steady::Steady;
use crate::api::{Kv, StoreKv};
use crate::domain::{Clock, Error, Namespace, Placement, SystemClock};
use crate::store::{Partitioned, Store};

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
    /// deliveries go by the time that really passes. When the clock is set back, the store's time
    /// goes on where it was.
    #[must_use]
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        Self {
            shared: Arc::new(Shared::new(Arc::new(Steady::new(clock)))),
        }
    }

    /// The store of a namespace, for use without a container; a container makes its own.
    #[must_use]
    pub fn store(&self, namespace: Option<Namespace>) -> Arc<dyn Store> {
        let adapter = MemoryAdapter::new(Arc::clone(&self.shared), namespace);
        Arc::new(Partitioned::new(Arc::new(adapter)))
    }

    /// A store of single partitions.
    #[cfg(test)]
    pub(crate) fn single(&self) -> Arc<dyn Store> {
        Arc::new(MemoryAdapter::new(Arc::clone(&self.shared), None))
    }

    /// The store of a namespace that has the wanted placement, or gets it where it is new and `set_up`
    /// is set.
    pub(crate) fn connect(
        &self,
        namespace: Option<Namespace>,
        wanted: Option<Placement>,
        set_up: bool,
    ) -> Result<Arc<dyn Store>, Error> {
        let store = MemoryAdapter::new(Arc::clone(&self.shared), namespace);
        store.place(wanted, set_up)?;
        Ok(Arc::new(Partitioned::new(Arc::new(store))))
    }

    /// The key-value store of a namespace.
    #[must_use]
    pub fn kv(&self, namespace: Option<Namespace>) -> Kv {
        StoreKv::of(self.store(namespace))
    }

    /// Removes everything in all namespaces, like a server that has lost its data. Subscriptions
    /// create their groups again and continue.
    pub fn clear(&self) {
        self.shared.clear();
    }
}
