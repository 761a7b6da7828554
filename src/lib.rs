//! Redstart: a durable message bus and key-value store for Rust services, on Redis Streams.
//!
//! This version holds the domain, the wire format and the key-value store; the bus itself
//! is being built on them. The README says what is there.

pub mod backend;
pub mod codec;
mod domain;
mod ports;
mod redis;

pub use domain::{
    Attempt, Codec, ConsumerName, DeadLetter, EntryId, Envelope, Error, ErrorKind, Group,
    IntoOutcome, LONGEST_DELAY, Namespace, Outcome, Payload, Reason, Retention, RetryPolicy,
    Timestamp, Topic, TopicSettings, Trail,
};
pub use ports::{
    BoxFuture, Cas, Claim, KvStore, KvStoreExt, Once, OnceError, deduplicate_event, once,
};
pub use redis::RedisKv;

/// The traits that bring the methods into scope: `use redstart::prelude::*;`.
pub mod prelude {
    pub use crate::ports::{KvStore, KvStoreExt};
}

// The README's examples are compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
