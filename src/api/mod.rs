//! The ports that users hold: object-safe, free of any adapter's types.

pub(crate) mod bus;
pub(crate) mod dead_letters;
pub(crate) mod delivery;
pub(crate) mod handler;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod once;
pub(crate) mod options;
pub(crate) mod subscription;

pub use bus::{MessageBus, MessageBusExt, PublishOptions, Published};
pub use dead_letters::{
    DeadLetterPage, DeadLetters, Ended, Imported, Operation, Progress, Redriven, Survey, Swept,
};
pub use delivery::Delivery;
pub use handler::{Handler, IntoHandler, RawBatchHandler, RawHandler};
pub(crate) use handler::{Work, batch_handler};
pub(crate) use kv::check_key;
pub use kv::{Cas, Claim, KvStore, KvStoreExt};
pub use once::{Once, OnceError, deduplicate_event, once};
pub use options::SubscribeOptions;
pub use subscription::{Subscription, SubscriptionReport};
