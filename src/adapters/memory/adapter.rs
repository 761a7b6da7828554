//! The store of one namespace: its roles lie in one file each.

use std::sync::Arc;

use super::state::{Shared, Space};
use crate::domain::{BoxFuture, Error, ErrorKind, Namespace, Placement, Timestamp, Topic};
use crate::store::{
    Bell, Capabilities, DeadLetters, Deliveries, Effect, EffectStore, GroupAt, Inspect, Later, Log,
    Opened, Opening, Owners, Schedule, Store, Topics, Values,
};

/// One namespace of a store in memory.
#[derive(Clone, Debug)]
pub(super) struct MemoryAdapter {
    pub(super) shared: Arc<Shared>,
    namespace: Option<Namespace>,
}

impl MemoryAdapter {
    pub(super) fn new(shared: Arc<Shared>, namespace: Option<Namespace>) -> Self {
        Self { shared, namespace }
    }

    pub(super) fn namespace(&self) -> &Option<Namespace> {
        &self.namespace
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Space) -> T) -> T {
        self.shared.with(&self.namespace, work)
    }

    /// Fixes the placement of a new namespace where `set_up` is set. It changes nothing here: memory has
    /// no slots. Refuses another placement than the namespace has.
    pub(super) fn place(&self, wanted: Option<Placement>, set_up: bool) -> Result<(), Error> {
        Placement::check(wanted, self.namespace.as_ref())?;
        let placement = self.with(|space| {
            if set_up && space.placement.is_none() {
                space.placement = Some(wanted.unwrap_or_default());
            }
            space.placement
        });
        let agree = |placement: Placement| placement.agree(wanted, self.namespace.as_ref());
        placement.map_or(Ok(()), agree)
    }

    /// Rings for messages for later of a topic.
    pub(super) fn ring_due(&self, topic: &Topic) {
        self.shared.bells.ring_due(self.namespace(), topic);
    }

    /// Rings for the messages for later that effects schedule.
    pub(super) fn ring_for<'e>(&self, effects: impl IntoIterator<Item = &'e Effect>) {
        for effect in effects {
            if let Effect::Schedule { at, .. } = effect {
                self.ring_due(at.topic());
            }
        }
    }
}

/// Does the work of one call. Nothing here ever waits, so without spending budget a loop of calls
/// would keep its thread from all other tasks.
pub(super) fn turn<'a, T>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'a,
) -> BoxFuture<'a, Result<T, Error>> {
    Box::pin(async move {
        tokio::task::coop::consume_budget().await;
        work()
    })
}

/// The error on which the runtime creates the group again.
pub(super) fn gone(operation: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "the group is gone")
}

impl Store for MemoryAdapter {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            append_once: true,
            values: true,
            effects: true,
            effects_anywhere: true,
            later: true,
            ownership: true,
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn keeps_time(&self) -> bool {
        true
    }

    fn clock_set(&self) -> BoxFuture<'_, ()> {
        self.shared.clock.set()
    }

    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        turn(move || Ok(self.open_reader(opening)))
    }

    fn bell(&self, at: &GroupAt) -> Option<Arc<Bell>> {
        Some(self.shared.bells.bell_of(&self.namespace, at))
    }

    fn topics(&self) -> &dyn Topics {
        self
    }

    fn log(&self) -> &dyn Log {
        self
    }

    fn deliveries(&self) -> &dyn Deliveries {
        self
    }

    fn schedule(&self) -> &dyn Schedule {
        self
    }

    fn later(&self) -> &dyn Later {
        self
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn inspect(&self) -> &dyn Inspect {
        self
    }

    fn values(&self) -> &dyn Values {
        self
    }

    fn effects(&self) -> &dyn EffectStore {
        self
    }

    fn owners(&self) -> &dyn Owners {
        self
    }
}
