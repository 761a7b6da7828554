//! Where the demo runs: the given server, a private one, or this process's memory.

use redstart::{
    Container, Durability, Namespace, container::ContainerBuilder, memory::MemoryStore,
};
use uuid::Uuid;

use super::cluster::PrivateCluster;
use super::server::PrivateServer;
use crate::failure::Failure;
use crate::settings::Settings;

/// Where the demo runs, and in which namespace.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) place: Place,
    pub(super) namespace: Namespace,
}

/// The store of the messages.
#[derive(Debug)]
pub(super) enum Place {
    /// The server of this URL.
    Given(String),
    /// A server that the demo started.
    Private(PrivateServer),
    /// A cluster that the demo started.
    Cluster(PrivateCluster),
    /// The memory of this process.
    Memory(MemoryStore),
}

impl Ground {
    /// Starts a cluster if it is wanted. Else takes the given server, else starts one; without
    /// redis-server, this process's memory.
    pub(super) async fn choose(settings: &Settings, cluster: bool) -> Result<Self, Failure> {
        if cluster {
            return Ok(Self {
                place: Place::Cluster(PrivateCluster::start().await?),
                namespace: Namespace::new("redstart-demo")?,
            });
        }
        if let Some(url) = settings.redis_url() {
            // A new namespace disturbs nothing on a shared server; the configured one might.
            let random = Uuid::new_v4().simple().to_string();
            return Ok(Self {
                place: Place::Given(url.to_owned()),
                namespace: Namespace::new(format!("redstart-demo-{}", &random[..12]))?,
            });
        }
        Ok(Self {
            place: match PrivateServer::start()? {
                Some(server) => Place::Private(server),
                None => Place::Memory(MemoryStore::new()),
            },
            namespace: Namespace::new("redstart-demo")?,
        })
    }

    pub(super) async fn connect(&mut self) -> Result<Container, Failure> {
        let namespace = self.namespace.clone();
        let builder = || -> Result<ContainerBuilder, Failure> {
            let builder = ContainerBuilder::from_env().map_err(Failure::of_settings)?;
            Ok(builder.with_namespace(namespace.clone()))
        };
        match &mut self.place {
            Place::Given(url) => builder()?
                .with_redis_url(url.clone())
                .connect()
                .await
                .map_err(Failure::of_settings),
            Place::Private(server) => {
                let url = server.url().to_owned();
                server
                    .connect(|| Ok(builder()?.with_redis_url(url.clone())))
                    .await
            }
            // A failover can lose messages that no replica has.
            Place::Cluster(cluster) => builder()?
                .with_redis_url(cluster.url())
                .with_durability(Durability::replicated(1, Durability::MAX_TIMEOUT))
                .connect()
                .await
                .map_err(Failure::of_settings),
            Place::Memory(store) => builder()?
                .with_memory(store.clone())
                .connect()
                .await
                .map_err(Failure::of_settings),
        }
    }

    /// Why the demo's own server has ended.
    pub(super) fn fault(&mut self) -> Option<Failure> {
        match &mut self.place {
            Place::Private(server) => (!server.is_running())
                .then(|| Failure::new("the private redis-server ended unexpectedly")),
            Place::Cluster(cluster) => cluster.fault(),
            Place::Given(_) | Place::Memory(_) => None,
        }
    }

    /// Describes the place.
    pub(super) fn describe(&self) -> String {
        match &self.place {
            Place::Given(_) => format!(
                "Connected to the server of REDSTART_REDIS_URL; the demo uses the new namespace {}.",
                self.namespace
            ),
            Place::Private(server) => format!(
                "Started a private redis-server (pid {}, unix socket, append-only file).",
                server.pid()
            ),
            Place::Cluster(cluster) => format!(
                "Started a private cluster of three primaries with a replica each \
                 (redis-server pids {}, append-only files).",
                cluster.pids().join(", ")
            ),
            Place::Memory(_) => {
                "No REDSTART_REDIS_URL and no redis-server on the PATH: running on \
                 the memory adapter, in this process."
                    .to_owned()
            }
        }
    }
}
