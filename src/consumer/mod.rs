//! The consumer runtime: fetch → execute → settle, and beside it the lease keeper, the
//! reclaimer, the promoter of due retries, the janitor and the one that removes overdue dead
//! letters. One file each.
//!
//! Written once on the backend port; it knows no adapter.

mod batch;
mod core;
mod delivery;
mod execute;
mod fetch;
mod handler;
mod held;
mod lease;
mod meters;
mod options;
mod promote;
mod queue;
mod reclaim;
mod retain;
mod retain_dead;
mod room;
mod settle;
mod shutdown;
mod subscription;

pub use delivery::Delivery;
pub use handler::{Handler, IntoHandler, RawBatchHandler, RawHandler};
pub(crate) use handler::{Work, batch_handler};
#[cfg(feature = "testing")]
pub(crate) use held::Lease;
pub use options::SubscribeOptions;
pub(crate) use subscription::{Setup, start};
pub use subscription::{Subscription, SubscriptionReport};
