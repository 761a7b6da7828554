//! Redis Cluster: slots that move, and primaries that die, under load.

#[path = "../support/mod.rs"]
mod support;

mod atomic;
mod connect;
mod effects;
mod failover;
mod moving;
mod owned;
mod partitions;
mod roles;
mod shared;
mod tls;
