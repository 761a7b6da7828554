//! A durable message bus and key-value store for Rust services, on Redis Streams.
//!
//! Begin with [`Container`], which hands out the [`MessageBus`], the [`KvStore`] and the
//! [`DeadLetters`]. A message is an [`Envelope`]; a handler is a closure or a [`Handler`]; what it
//! returns is an [`Outcome`]. The README tells what is guaranteed and what is not.
//!
//! The way of a message: publish → validate → encode → admit → append, and on the other side
//! fetch → decode → handle → decide → settle. Beside it work the lease keeper, the reclaimer,
//! the promoter of due retries and the janitor. All of that is written once on the
//! [`store`] port; an adapter carries it out.

mod adapters;
mod api;
mod bus;
mod container;
mod domain;
mod operate;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;
mod worker;

pub use adapters::memory::{ManualClock, MemoryKv, MemoryStore};
pub use adapters::redis::{AppliedMigration, MigrationState, Migrations, RedisKv, TlsSettings};
pub use api::{
    Cas, Claim, DeadLetterPage, DeadLetters, Ended, Imported, KvStore, KvStoreExt, MessageBus,
    MessageBusExt, Once, OnceError, Operation, Progress, PublishOptions, Published, Redriven,
    Survey, Swept, deduplicate_event, once,
};
pub use api::{
    Delivery, Handler, IntoHandler, RawBatchHandler, RawHandler, SubscribeOptions, Subscription,
    SubscriptionReport,
};
pub use container::{Check, Container, ContainerBuilder, Coordinator, Health, ShutdownReport};
pub use domain::BoxFuture;
pub use domain::{
    Action, Attempt, Cause, Clock, Codec, ConsumerName, DeadLetter, DeadLetterFilter,
    DeadLetterHead, DeadLetterRetention, EntryId, Envelope, Error, ErrorKind, Group, IntoOutcome,
    IntoOutcomes, LONGEST_DELAY, Left, Namespace, Outcome, Payload, Reason, Retention, RetryPolicy,
    Selection, Sweep, SystemClock, Tally, Timestamp, Topic, TopicSettings, Trail,
};
pub use operate::doctor::{Diagnosis, Doctor, Finding, Level};
pub use operate::retries::{Chosen, Retries, Retry};
pub use operate::topics::{Admin, Entry};
pub use store::{
    ConsumerStatus, GroupStatus, Lane, Receipt, Removal, ServerFacts, Start, TopicStatus,
};
pub use wire::{Limits, Undecodable};

/// Documents, as part of the documentation.
pub mod docs {
    #[doc = include_str!("docs/dead_letters.md")]
    pub mod dead_letters {}
    #[doc = include_str!("docs/lifecycle.md")]
    pub mod lifecycle {}
    #[doc = include_str!("docs/metrics.md")]
    pub mod metrics {}
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/reliability.md")]
    pub mod reliability {}
    #[doc = include_str!("docs/security.md")]
    ///
    /// ## The users, line by line
    ///
    /// ```text
    #[doc = include_str!("docs/acl/producer.acl")]
    #[doc = include_str!("docs/acl/consumer.acl")]
    #[doc = include_str!("docs/acl/operator.acl")]
    #[doc = include_str!("docs/acl/viewer.acl")]
    /// ```
    pub mod security {}
    #[cfg(feature = "testing")]
    #[doc = include_str!("docs/testing.md")]
    pub mod testing {}
}

/// The traits that bring the methods into scope: `use redstart::prelude::*;`.
pub mod prelude {
    pub use crate::api::{DeadLetters, KvStore, KvStoreExt, MessageBus, MessageBusExt};
}

// The README's examples are compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
