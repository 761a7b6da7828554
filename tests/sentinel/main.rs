//! Servers behind sentinels: failovers of each kind under load, log-ins, health and the doctor.

#[path = "../support/mod.rs"]
mod support;

mod connect;
mod durability;
mod failover;
