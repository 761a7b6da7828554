//! Owned groups over processes that come and go and over primaries that die, with a checked history.

#[path = "../support/mod.rs"]
mod support;

mod failover;
mod history;
mod member;
mod processes;
