//! One running subscription: intake → handle → settle, and the background jobs beside it.
//!
//! - `intake/` reads deliveries, reclaims expired ones, and queues them within the capacity.
//! - `handle/` is the pipeline of one delivery: decode → count → call → decide → commit.
//! - `hold_back/` keeps failed deliveries that are tried again soon.
//! - `give_back` returns deliveries that this process does not finish.
//! - `settle` writes to the store, in batches, how deliveries ended.
//! - `ownership/` stands between the intake and the store in an owned group.
//! - `services/` holds the background jobs: lease keeper, promoter, janitor, dead-letter janitor,
//!   gauges.
//!
//! The worker knows the store only through its port.

mod core;
mod effect_port;
mod fault;
#[cfg(test)]
mod fixture;
mod give_back;
mod handle;
mod hold_back;
mod intake;
mod meters;
pub(crate) mod ownership;
mod scope;
#[cfg(test)]
mod script;
mod services;
mod settle;
mod settle_effects;
mod shutdown;
mod stir;
mod subscription;
mod tasks;
mod tracks;

pub(crate) use scope::is_handler_of;
pub(crate) use subscription::start;
