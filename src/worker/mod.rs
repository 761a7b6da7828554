//! The consumer runtime: fetch → execute → settle, and beside it the lease keeper, the
//! reclaimer, the promoter of due retries, the janitor and the one that removes overdue dead
//! letters. One file each.
//!
//! Written once on the backend port; it knows no adapter.

mod core;
mod handle;
mod intake;
mod meters;
mod services;
mod settle;
mod shutdown;
mod subscription;

pub(crate) use subscription::{Setup, start};
