//! Owned groups over processes that come and go, with a checked history.

#[path = "../support/mod.rs"]
mod support;

mod history;
mod member;
mod processes;
