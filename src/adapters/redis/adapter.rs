//! The store of one namespace on a Redis server: its roles lie in one file each.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::bells::{Bells, BellsByRuntime};
use super::keys::Keys;
use super::migrate::Migrations;
use super::net::Net;
use crate::domain::{BoxFuture, Error, Namespace, Placement, Timestamp};
use crate::store::{
    Bell, Capabilities, DeadLetters, Deliveries, EffectStore, GroupAt, Inspect, Later, Log, Opened,
    Opening, Schedule, Store, Topics, Values,
};

/// Topics as Redis Streams.
#[derive(Debug)]
pub(crate) struct RedisAdapter {
    pub(super) net: Net,
    pub(super) keys: Keys,
    namespace: Option<Namespace>,
    bells: BellsByRuntime,
    /// One for each reader that gets a connection of its own without asking for it.
    pub(super) own_readers: Arc<Semaphore>,
}

/// How many subscriptions of a container read on connections of their own, unless they ask for one.
const OWN_READERS: usize = 8;

impl RedisAdapter {
    /// Prepares the adapter; connections are made when they are needed.
    pub(super) fn on(net: Net, namespace: Option<Namespace>, placement: Placement) -> Self {
        Self {
            net,
            keys: Keys::new(namespace.clone(), placement),
            namespace,
            bells: BellsByRuntime::default(),
            own_readers: Arc::new(Semaphore::new(OWN_READERS)),
        }
    }

    /// The bells of the current runtime; `None` outside of one.
    pub(super) fn bells(&self) -> Option<Arc<Bells>> {
        self.bells.current(&self.net, &self.keys)
    }

    /// The migrations of the namespace, on the same connections.
    pub(super) fn layout(&self) -> Migrations {
        Migrations::on(self.net.clone(), self.namespace.clone(), None)
    }
}

impl Store for RedisAdapter {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            append_once: true,
            values: true,
            effects: true,
            effects_anywhere: self.keys.are_together() || !self.net.is_clustered(),
            later: true,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(self.open_reader(opening))
    }

    fn bell(&self, at: &GroupAt) -> Option<Arc<Bell>> {
        Some(self.bells()?.bell_of(at))
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
}
