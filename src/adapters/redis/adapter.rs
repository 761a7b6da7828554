//! The store of one namespace on a Redis server: its roles lie in one file each.

use super::keys::Keys;
use super::migrate::Migrations;
use super::net::{Net, TlsSettings};
use crate::domain::{BoxFuture, Error, Namespace, Timestamp};
use crate::store::{
    Capabilities, DeadLetters, Deliveries, EffectStore, Inspect, Log, Opened, Opening, Schedule,
    Store, Topics, Values,
};

/// Topics as Redis Streams.
#[derive(Debug)]
pub(crate) struct RedisAdapter {
    pub(super) net: Net,
    pub(super) keys: Keys,
}

impl RedisAdapter {
    /// Prepares the adapter; connections are made when they are needed.
    pub(crate) fn new(
        url: &str,
        tls: &TlsSettings,
        namespace: Option<Namespace>,
    ) -> Result<Self, Error> {
        Ok(Self {
            net: Net::new(url, tls, namespace.as_ref())?,
            keys: Keys::new(namespace),
        })
    }

    /// The migrations of the namespace, on the same connections.
    pub(crate) fn layout(&self) -> Migrations {
        Migrations::on(self.net.clone(), self.keys.clone())
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
            effects_anywhere: !self.net.is_clustered(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(self.open_reader(opening))
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
