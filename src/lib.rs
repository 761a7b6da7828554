//! A durable message bus and key-value store for Rust services, on Redis Streams.
//!
//! Begin with [`Container`], which hands out the [`MessageBus`], the [`KvStore`] and the
//! [`DeadLetters`]. A message is an [`Envelope`]; a handler is a closure or a [`Handler`]; what it
//! returns is an [`Outcome`]. The README tells what is guaranteed and what is not.
//! [`docs::payloads`] lists which values survive as a payload.
//!
//! The way of a message: publish → validate → encode → admit → append, and on the other side
//! fetch → decode → handle → decide → settle. Beside it work the lease keeper, the reclaimer,
//! the promoter of due retries and the janitor. All of that is written once on the
//! [`store`] port; an adapter carries it out.

mod adapters;
mod api;
mod bus;
pub mod container;
mod domain;
mod operate;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;
mod worker;

pub use api::{
    Bus, Delivery, Handler, Kv, PublishOptions, Published, SubscribeOptions, Subscription,
};
pub use container::Container;
pub use domain::{Envelope, Error, ErrorKind, Group, Namespace, Outcome, RetryPolicy, Topic};

pub mod handler {
    //! Handlers: the traits behind [`Bus::subscribe`](crate::Bus::subscribe).
    pub use crate::api::IntoHandler;
    pub use crate::domain::{IntoOutcome, IntoOutcomes};
}

pub mod envelope {
    //! The parts of an [`Envelope`](crate::Envelope).
    pub use crate::domain::{Codec, EntryId, RawPayload, Timestamp};
}

pub mod kv {
    //! Doing something once, on a [`Kv`](crate::Kv).
    pub use crate::api::{Once, OnceError, first_time, once};
}

pub mod topics {
    //! Topics and groups as operators see them.
    pub use crate::domain::{ConsumerName, Retention, TopicSettings};
    pub use crate::operate::group_removal::PlannedRemoval;
    pub use crate::operate::plan::{Confirmed, Plan};
    pub use crate::operate::topics::{Entry, Topics};
    pub use crate::store::{ConsumerStatus, GroupRemoval, GroupStatus, StartFrom, TopicStatus};
    pub use crate::wire::Undecodable;
}

pub mod retries {
    //! Scheduled retries and snoozed messages.
    pub use crate::domain::Moved;
    pub use crate::operate::plan::{Confirmed, Plan};
    pub use crate::operate::retries::{Retries, ScheduledRetry};
    pub use crate::operate::retry_plan::{
        PlannedRetries, RetriesReport, RetryAction, RetrySelection,
    };
    pub use crate::store::{DeliveryId, Lane};
}

pub mod dead_letters {
    //! Dead letters: listing, redriving, purging, editing, moving them between systems.
    pub use crate::domain::{
        Cause, CountBy, DeadLetter, DeadLetterFilter, DeadLetterRetention, DeadLetterSummary,
        DeliveryHistory, FailedAttempt, Moved, Reason, Selection, SkipReason, Sweep, SweepAction,
    };
    pub use crate::operate::dead_letters::{
        CauseSummary, CountSummary, DeadLetterPage, DeadLetterPages, DeadLetters, GroupSummary,
        ImportReport, Imported, JournalEntry, PlannedImport, PlannedSweep, Preview, SweepEnd,
        SweepProgress, SweepReport,
    };
    pub use crate::operate::plan::{Confirmed, Plan};
}

#[doc(hidden)]
pub use operate::views;

pub mod doctor {
    //! A deep look at the server and the namespace.
    pub use crate::operate::doctor::{Doctor, DoctorReport, Finding, Severity};
    pub use crate::store::ServerInfo;
}

pub mod migrations {
    //! The layout of a namespace, and how it is brought up to date.
    pub use crate::adapters::redis::Migrations;
    pub use crate::domain::{Migration, MigrationState};
}

pub mod memory {
    //! The store in this process's memory, and its clocks.
    pub use crate::adapters::memory::{ManualClock, MemoryStore};
    pub use crate::domain::{Clock, SystemClock};
}

pub mod ports {
    //! The object-safe ports behind [`Bus`](crate::Bus) and [`Kv`](crate::Kv), for decorators.
    pub use crate::api::{
        CasResult, ClaimResult, KvStore, MessageBus, RawBatchHandler, RawHandler,
    };
    pub use crate::domain::BoxFuture;
}

/// Documents, as part of the documentation.
pub mod docs {
    #[doc = include_str!("docs/dead_letters.md")]
    pub mod dead_letters {}
    #[doc = include_str!("docs/lifecycle.md")]
    pub mod lifecycle {}
    #[doc = include_str!("docs/metrics.md")]
    pub mod metrics {}
    #[doc = include_str!("docs/payloads.md")]
    pub mod payloads {}
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

// The README's examples are compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
