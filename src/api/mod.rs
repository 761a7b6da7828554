//! The types that users hold: the bus, the key-value store, handlers, deliveries, options.

pub(crate) mod bus;
mod claim;
pub(crate) mod delivery;
pub(crate) mod handler;
pub(crate) mod kv;
pub(crate) mod lease;
mod message;
pub(crate) mod once;
pub(crate) mod options;
pub(crate) mod store_kv;
pub(crate) mod subscription;

pub use crate::store::{CasResult, ClaimResult};
pub use bus::{Bus, MessageBus, PublishOptions, Published};
pub use delivery::Delivery;
pub use handler::{Handler, IntoHandler, RawBatchHandler, RawHandler};
pub(crate) use handler::{Work, batch_handler};
pub use kv::{Kv, KvStore};
pub use message::Message;
pub use once::{Once, OnceError, OnceOptions, first_time, once, once_with};
pub use options::SubscribeOptions;
pub(crate) use store_kv::StoreKv;
pub use subscription::{Subscription, SubscriptionReport};
