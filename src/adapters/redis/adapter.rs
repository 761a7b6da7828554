//! The store of one namespace on a Redis server: its roles lie in one file each.

use std::sync::Arc;

use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::bells::{Bells, BellsByRuntime};
use super::clocks::Clocks;
use super::keys::Keys;
use super::migrate::{Migrations, OWNED_GROUPS, PARTITIONS};
use super::net::Net;
use crate::domain::{BoxFuture, Error, ErrorKind, Namespace, Placement, Timestamp};
use crate::store::{
    Bell, Capabilities, DeadLetters, Deliveries, Effect, EffectStore, GroupAt, Inspect, Later, Log,
    Opened, Opening, Owners, Partition, Schedule, Store, Topics, Values,
};

/// Topics as Redis Streams.
#[derive(Debug)]
pub(crate) struct RedisAdapter {
    pub(super) net: Net,
    pub(super) keys: Keys,
    namespace: Option<Namespace>,
    bells: BellsByRuntime,
    clocks: Clocks,
    /// One for each reader that gets a connection of its own without asking for it.
    pub(super) own_readers: Arc<Semaphore>,
    /// Set once the namespace has the layout of topics with several partitions.
    partitions_layout: OnceCell<()>,
    /// The same of owned groups.
    owned_groups_layout: OnceCell<()>,
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
            clocks: Clocks::default(),
            own_readers: Arc::new(Semaphore::new(OWN_READERS)),
            partitions_layout: OnceCell::new(),
            owned_groups_layout: OnceCell::new(),
        }
    }

    /// Notes the time that an answer of a topic's server tells. Returns whether its clock was set forward.
    pub(super) fn note_clock(&self, at: &Partition, sent: Instant, millis: u64) -> bool {
        let slot = self.net.slot(&self.keys.log(at)).unwrap_or_default();
        self.clocks.note(slot, sent, millis, Instant::now())
    }

    /// Whether a topic's server may have ended leases early, because its clock was set forward. Asked
    /// only where nobody holds a delivery of this consumer. An error becomes that of the call: its caller
    /// repeats it.
    pub(super) async fn ended_leases_early(&self, at: &Partition) -> Result<bool, Error> {
        let sent = Instant::now();
        let log = self.keys.log(at);
        let asked = self.net.run("read the clock", &log, async |connection| {
            redis::cmd("TIME")
                .query_async::<(u64, u64)>(connection)
                .await
        });
        let (seconds, micros) = asked.await?;
        Ok(self.note_clock(at, sent, seconds * 1000 + micros / 1000))
    }

    /// The bells of the current runtime; `None` outside of one.
    pub(super) fn bells(&self) -> Option<Arc<Bells>> {
        self.bells.current(&self.net, &self.keys)
    }

    /// Makes sure that the namespace has the layout of topics with several partitions.
    pub(super) async fn need_partitions(&self, operation: &'static str) -> Result<(), Error> {
        let rule = "the first topic with several partitions changes the layout of the namespace, which this \
                    user may not do; create it as an operator";
        let layout = &self.partitions_layout;
        self.need(layout, PARTITIONS, (operation, rule)).await
    }

    /// Makes sure that the namespace has the layout of owned groups.
    pub(super) async fn need_owned_groups(&self, operation: &'static str) -> Result<(), Error> {
        let rule = "the first owned group changes the layout of the namespace, which this user may not do; \
                    run `redstart migrate up --owned-groups` as an operator";
        let layout = &self.owned_groups_layout;
        self.need(layout, OWNED_GROUPS, (operation, rule)).await
    }

    async fn need(
        &self,
        has: &OnceCell<()>,
        migration: &'static str,
        (operation, rule): (&'static str, &'static str),
    ) -> Result<(), Error> {
        let layout = self.layout();
        let needed = has.get_or_try_init(async || layout.demand(migration).await.map(|_| ()));
        match needed.await {
            Err(error) if error.kind() == ErrorKind::Refused => {
                Err(Error::new(ErrorKind::Refused, operation, rule).because(error))
            }
            Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
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
            ownership: true,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(self.open_reader(opening))
    }

    fn lane_of(&self, effects: &[Effect]) -> u16 {
        self.lane_of_effects(effects)
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

    fn owners(&self) -> &dyn Owners {
        self
    }
}
