//! The ports that users hold: object-safe, free of any adapter's types.

use std::future::Future;
use std::pin::Pin;

mod bus;
mod dead_letters;
mod kv;
mod once;

pub use bus::{MessageBus, MessageBusExt, PublishOptions, Published};
pub use dead_letters::{
    DeadLetterPage, DeadLetters, Ended, Imported, Operation, Progress, Redriven, Survey, Swept,
};
pub(crate) use kv::check_key;
pub use kv::{Cas, Claim, KvStore, KvStoreExt};
pub use once::{Once, OnceError, deduplicate_event, once};

/// A boxed future, `Send`, as the ports return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
