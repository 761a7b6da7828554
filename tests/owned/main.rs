//! Owned groups over processes that come and go and over primaries that die, with a checked history; and how
//! long joins take.

#[path = "../support/mod.rs"]
mod support;

mod failover;
mod history;
mod joins;
mod member;
mod processes;
mod wire;
