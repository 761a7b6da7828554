//! The store of a subscription that owns partitions.

use std::sync::Arc;

use super::group::OwnedGroup;
use super::reader;
use crate::domain::{BoxFuture, Error, Timestamp};
use crate::store::{
    Bell, Capabilities, DeadLetters, Deliveries, Effect, EffectStore, GroupAt, Inspect, Later, Log,
    Opened, Opening, Owners, Schedule, Store, Topics, Values,
};

/// The store of a subscription that owns partitions: its deliveries come from them.
#[derive(Debug)]
pub(crate) struct OwnedStore(pub(crate) Arc<OwnedGroup>);

impl OwnedStore {
    fn inner(&self) -> &dyn Store {
        &*self.0.store
    }
}

impl Store for OwnedStore {
    fn name(&self) -> &'static str {
        self.inner().name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner().capabilities()
    }

    fn now(&self) -> Timestamp {
        self.inner().now()
    }

    fn keeps_time(&self) -> bool {
        self.inner().keeps_time()
    }

    fn clock_set(&self) -> BoxFuture<'_, ()> {
        self.inner().clock_set()
    }

    fn open<'a>(&'a self, _opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(async { Ok(reader::open(&self.0)) })
    }

    fn lane_of(&self, effects: &[Effect]) -> u16 {
        self.inner().lane_of(effects)
    }

    fn bell(&self, at: &GroupAt) -> Option<Arc<Bell>> {
        self.inner().bell(at)
    }

    fn topics(&self) -> &dyn Topics {
        self.inner().topics()
    }

    fn log(&self) -> &dyn Log {
        self.inner().log()
    }

    fn deliveries(&self) -> &dyn Deliveries {
        &*self.0
    }

    fn schedule(&self) -> &dyn Schedule {
        self.inner().schedule()
    }

    fn later(&self) -> &dyn Later {
        self.inner().later()
    }

    fn owners(&self) -> &dyn Owners {
        self.inner().owners()
    }

    fn effects(&self) -> &dyn EffectStore {
        &*self.0
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        self.inner().dead_letters()
    }

    fn inspect(&self) -> &dyn Inspect {
        self.inner().inspect()
    }

    fn values(&self) -> &dyn Values {
        self.inner().values()
    }
}
