//! Traces and metrics as OpenTelemetry's exporter sees them, on the store in memory and on Redis.
//!
//! Each test runs on one thread with a subscriber of its own, so that it sees its own spans only.

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod collector;
mod metrics;
mod traces;

use redstart::Container;
use redstart::container::ContainerBuilder;
use redstart::memory::MemoryStore;

use support::{Server, builder};

/// Settings for a container in memory, of service `billing`.
fn in_memory() -> ContainerBuilder {
    Container::builder()
        .with_memory(MemoryStore::new())
        .with_service("billing")
}

/// A server, and settings for a container on it.
fn on_redis() -> (Server, ContainerBuilder) {
    let server = Server::start();
    let builder = builder(&server);
    (server, builder)
}
