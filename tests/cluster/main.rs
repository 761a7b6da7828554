//! Redis Cluster: slots that move the old way, and primaries that die, under load.

#[path = "../support/mod.rs"]
mod support;

mod connect;
mod effects;
mod failover;
mod moving;
mod roles;
mod shared;
