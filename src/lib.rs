//! A durable message bus and key-value store for Rust services, on Redis Streams.
//!
//! Redstart keeps a published message until your handlers have handled it, even if no handler exists
//! yet. If a handler fails, Redstart tries the message again. If the last attempt fails, the message
//! becomes a dead letter, which operators can inspect and send back. To scale, start more processes.
//! If a process dies, no message is lost.
//!
//! ```
//! use redstart::{Container, Delivery, Message, Outcome, Topic};
//! use serde::{Deserialize, Serialize};
//!
//! const ORDERS: Topic = Topic::from_static("orders");
//!
//! #[derive(Serialize, Deserialize)]
//! struct Placed {
//!     cents: u64,
//! }
//!
//! impl Message for Placed {
//!     const TYPE: &'static str = "order.placed";
//! }
//!
//! async fn bill(order: Placed, delivery: Delivery) -> Outcome {
//!     if order.cents == 0 {
//!         return Outcome::dead_letter("an order without a price");
//!     }
//!     println!("{} cents, attempt {}", order.cents, delivery.attempt());
//!     Outcome::Ack // after an error or a panic, Redstart tries the message again
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `Container::builder()` and `Container::from_env()` connect to a Redis server.
//! let container = Container::in_memory().await?;
//! let bus = container.bus();
//!
//! // Nobody subscribes yet. The topic keeps the message.
//! bus.send(&ORDERS, &Placed { cents: 1250 }).await?;
//! bus.subscribe(&ORDERS, bill).await?;
//!
//! let report = container.shutdown(std::time::Duration::from_secs(10)).await;
//! assert!(report.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! The root has the types that every service needs. Each module covers one subject:
//!
//! | Module | Holds | Who needs it |
//! |---|---|---|
//! | root | [`Container`], [`Bus`], [`Kv`], [`Topic`], [`Message`], [`Envelope`], [`Delivery`], [`Router`], [`Outcome`], options, [`Error`] | every service |
//! | [`handler`], [`extract`] | the traits of handlers and of their return values; the parts of a delivery that a handler takes | handlers |
//! | [`middleware`] | code around handlers, layers of tower, hooks around publishes | services with rules for every message |
//! | [`effects`], [`schedules`] | messages and values in one step with an acknowledgement; messages for later | services that publish from handlers or at a time |
//! | [`ownership`] | owned groups, which keep the order of each key | services that need that order |
//! | [`envelope`] | codec, entry id, timestamp, raw payload | producers that set these parts themselves |
//! | [`foreign`] | readers of entries that other programs write | services beside other programs |
//! | [`kv`] | [`once`](kv::once) and [`first_time`](kv::first_time) | handlers whose work must not repeat |
//! | [`container`] | builder, coordinators, health, shutdown reports, TLS | `main` |
//! | [`topics`] | topics, their settings and retention, groups, consumers | operators |
//! | [`retries`] | scheduled retries: list, run now, cancel | operators |
//! | [`dead_letters`] | dead letters: causes, lists, sweeps, export, import | operators |
//! | [`doctor`], [`migrations`] | problems of the server and the namespace; the stored layout | operators |
//! | [`memory`] | the store in this process's memory, and its clocks | tests, demos |
//! | `console` (feature) | the operators' page, to mount into your own service | operators |
//! | `asyncapi` (feature `schema`) | an AsyncAPI document from routers | readers of your topics |
//! | `otel` (feature) | the propagator for OpenTelemetry | `main` |
//! | `testing` (feature) | a test bus, handmade deliveries, faults, the conformance suite | tests |
//! | [`ports`] | the object-safe traits behind [`Bus`] and [`Kv`] | decorators |
//! | [`store`] | the port of adapters; not covered by semver | adapters |
//! | [`docs`] | guides and decisions | readers |
//!
//! # Guides
//!
//! | To | Read |
//! |---|---|
//! | know the promises | [guarantees], [durability](docs::durability), [reliability](docs::reliability), [performance](docs::performance), [capacity](docs::capacity) |
//! | write handlers | [handlers](docs::handlers), [lifecycle of a message](docs::lifecycle), [messages for later](docs::later), [key-value store](docs::key_value), [exactly once inside Redis](docs::exactly_once) |
#![cfg_attr(
    feature = "testing",
    doc = "| test them | [testing your handlers](docs::testing) |"
)]
#![cfg_attr(
    not(feature = "testing"),
    doc = "| test them | *testing your handlers*: these pages have it with the feature `testing` |"
)]
//! | grow | [Redis Cluster](docs::cluster), [partitions](docs::partitions), [owned groups](docs::owned_groups), [Sentinel](docs::sentinel), [native commands](docs::servers) |
//! | run it | [running in production](docs::production), [security](docs::security), [observability](docs::observability), [metrics and traces](docs::metrics), [command line](docs::command_line), [dead letters](docs::dead_letters) |
//! | work with other programs and languages, or choose payloads | [interoperating](docs::interoperating), [payloads](docs::payloads), [wire format](docs::wire_format), [stored keys](docs::keys) |
//! | upgrade or contribute | [versions](docs::semver), [decisions](docs::decisions), and `ARCHITECTURE.md` in the repository |
//!
//! [guarantees]: docs::guarantees
//!
//! # Features
//!
//! | Feature | Adds |
//! |---|---|
//! | `tls` | TLS connections, by URLs with `rediss://` |
//! | `tower` | layers of tower as middleware, by [`middleware`] |
//! | `schema` | AsyncAPI documents, with JSON Schemas by `schemars` |
//! | `testing` | the test kit for handlers and the conformance suite for adapters |
//! | `otel` | traces through OpenTelemetry: a propagator for the header `traceparent` |
//! | `console` | the operators' page, as a service of tower and as the command `redstart console` |
//! | `cli` | the command-line tool `redstart`; the library does not use it |
//!
//! All features are off by default.

mod adapters;
mod api;
mod bus;
#[cfg(feature = "console")]
pub mod console;
pub mod container;
mod domain;
mod operate;
#[cfg(feature = "otel")]
pub mod otel;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;
mod worker;

pub use api::{
    Batch, Bus, Delivery, Durability, Handler, Kv, Message, PublishOptions, Published, Router,
    State, SubscribeOptions, Subscription,
};
pub use container::Container;
pub use domain::{
    Effects, Envelope, Error, ErrorKind, Group, Namespace, Outcome, Placement, RetryPolicy, Topic,
};

pub mod handler {
    //! Handlers: the traits that [`Bus::subscribe`](crate::Bus::subscribe), [`Router`](crate::Router) and
    //! return values use.
    //!
    //! A handler is an async closure or function that takes a [`Message`](crate::Message) and
    //! [extractors](crate::extract), or a struct that implements [`Handler`](crate::Handler).
    //! [`IntoOutcome`] lists its return types, [`IntoOutcomes`] those of a batch handler, and
    //! [`HandlerError`] its errors. The compiler infers the other traits.
    pub use crate::api::{
        Argument, Arguments, BatchRouted, Call, IntoBatchRoute, IntoRoute, IntoRouter,
        RouteOptions, Routed, Unrouted,
    };
    pub use crate::domain::{HandlerError, IntoOutcome, IntoOutcomes};
}

pub mod extract {
    //! Extractors: arguments of a handler that come from the delivery or from the state.
    //!
    //! [`Delivery`](crate::Delivery), [`Envelope`](crate::Envelope) and [`State`](crate::State) are
    //! extractors too. `Option` of a part that may be absent is one, and so is `Result` of any extractor
    //! with its rejection. Implement [`FromDelivery`] for your own.
    pub use crate::api::{
        Attempt, Correlation, FromDelivery, FromRef, Headers, Key, OptionalFromDelivery, Payload,
        Publisher, Tenant,
    };
}

pub mod middleware {
    //! Middleware: code around handlers, and hooks around publishes.
    //!
    //! [`Router::with_middleware`](crate::Router::with_middleware) takes an async function
    //! `async fn(Delivery, Next) -> Outcome`, a [`Middleware`], or, with the feature `tower`,
    //! `Tower(layer)`. The guide [handlers](crate::docs::handlers#middleware) shows each.
    //! [`ContainerBuilder::with_publish_hook`](crate::container::ContainerBuilder::with_publish_hook)
    //! takes a [`PublishHook`].
    #[cfg(feature = "tower")]
    pub use crate::api::{HandlerService, Tower};
    pub use crate::api::{IntoMiddleware, Middleware, MiddlewareOutcome, Next, PublishHook};
}

pub mod effects {
    //! Effects: messages and values that the store writes in one step with an acknowledgement.
    //!
    //! A handler returns [`Effects`](crate::Effects).
    //! [`Container::commit`](crate::Container::commit) writes them without a delivery and returns
    //! [`Committed`]; [`Container::rehearse`](crate::Container::rehearse) returns a [`Rehearsal`].
    //! [`Kv::read`](crate::Kv::read) returns a [`Read`], which an effect can demand to be unchanged.
    pub use crate::api::{Committed, Rehearsal, Rehearsed};
    pub use crate::domain::Read;
}

pub mod envelope {
    //! The parts of an [`Envelope`](crate::Envelope): codec, entry id, timestamp, raw payload.
    //!
    //! The page [wire format](crate::docs::wire_format) shows how an envelope is stored.
    pub use crate::domain::{Codec, EntryId, RawPayload, Timestamp};
}

pub mod foreign {
    //! Foreign entries: entries of programs that do not know Redstart's wire format.
    //!
    //! [`ContainerBuilder::with_foreign`](crate::container::ContainerBuilder::with_foreign) takes a
    //! function that turns such an entry into an envelope. The functions here read common formats.
    //! The guide [interoperating](crate::docs::interoperating) shows them at work.
    pub use crate::wire::foreign::{ForeignAnswer, ForeignEntry, cloud_events, debezium, plain};
}

pub mod kv {
    //! Work that must not repeat, on a [`Kv`](crate::Kv).
    //!
    //! [`once`] runs a function once per key and remembers its result; [`once_with`] does so with
    //! options. [`first_time`] tells whether an id is new, and marks it before any work is done. The
    //! page [key-value store](crate::docs::key_value) shows both and states their limits.
    //! [`Kv::keys`](crate::Kv::keys) lists keys, a [`KeyPage`] at a time.
    pub use crate::api::{Once, OnceError, OnceOptions, first_time, once, once_with};
    pub use crate::store::{KeyCursor, KeyPage, Peeked};
}

pub mod topics {
    //! Topics and groups: create a topic, read its entries, see the status of its groups, reset or remove a group.
    //!
    //! [`Container::topics`](crate::Container::topics) returns [`Topics`]. Reading entries consumes none of them.
    pub use crate::domain::{ConsumerName, Retention, TopicSettings};
    pub use crate::operate::gauges::{GroupAges, GroupGauges, TopicGauges};
    pub use crate::operate::group_removal::PlannedRemoval;
    pub use crate::operate::group_reset::PlannedReset;
    pub use crate::operate::housekeeping::Housekeeping;
    pub use crate::operate::in_flight::{ConsumerInFlight, InFlightDelivery};
    pub use crate::operate::owned::{HoldingMessage, OwnedPartition};
    pub use crate::operate::plan::{Confirmed, Plan};
    pub use crate::operate::topic_removal::PlannedTopicRemoval;
    pub use crate::operate::topic_settings::PlannedSettings;
    pub use crate::operate::topics::{Entry, Topics};
    pub use crate::store::{
        ConsumerStatus, GroupRemoval, GroupReset, GroupStatus, Reading, ResetTo, StartFrom,
        TopicRemoval, TopicStatus,
    };
    pub use crate::wire::Undecodable;
}

pub mod ownership {
    //! Owned groups, which keep the order of each key: each partition has one process at a time.
    //!
    //! [`SubscribeOptions::with_ownership`](crate::SubscribeOptions::with_ownership) takes [`Ownership`];
    //! [`Delivery::fence`](crate::Delivery::fence) returns a [`Fence`].
    pub use crate::api::{Fence, Ownership};
}

pub mod schedules {
    //! Messages for later: the store publishes them at a time that the caller names. Until then the
    //! caller can cancel or reschedule them by an id.
    //!
    //! [`Bus::publish_at`](crate::Bus::publish_at) and [`Bus::publish_after`](crate::Bus::publish_after)
    //! schedule a message, [`Effects::publish_after`](crate::Effects::publish_after) does so in one step
    //! with an acknowledgement. [`Container::schedules`](crate::Container::schedules) returns
    //! [`Schedules`], which lists them. The guide [messages for later](crate::docs::later) shows all of
    //! this.
    pub use crate::domain::{ScheduleId, ScheduleOptions, Scheduled, When};
    pub use crate::operate::schedules::{ScheduledMessage, Schedules};
}

pub mod retries {
    //! Scheduled retries and snoozed messages: list them, run them now, cancel them.
    //!
    //! [`Container::retries`](crate::Container::retries) returns [`Retries`].
    pub use crate::domain::Moved;
    pub use crate::operate::plan::{Confirmed, Plan};
    pub use crate::operate::retries::{Retries, ScheduledRetry};
    pub use crate::operate::retry_plan::{
        PlannedRetries, RetriesReport, RetryAction, RetrySelection,
    };
    pub use crate::store::{DeliveryId, Lane};
}

pub mod dead_letters {
    //! Dead letters: messages that a group could not handle and no longer tries.
    //!
    //! [`Container::dead_letters`](crate::Container::dead_letters) returns [`DeadLetters`]. It counts
    //! them by cause, lists them by a [`DeadLetterFilter`], brings them back or removes them with a
    //! [`Sweep`], edits one, exports and imports them, and keeps a journal. The guide
    //! [operating dead letters](crate::docs::dead_letters) shows the same with the command-line tool.
    pub use crate::domain::{
        Cause, CountBy, DeadLetter, DeadLetterFilter, DeadLetterRetention, DeadLetterSummary,
        DeliveryHistory, FailedAttempt, Moved, Reason, Selection, SkipReason, Sweep, SweepAction,
    };
    pub use crate::operate::dead_letters::{
        CauseNote, CauseSummary, CountSummary, DeadLetterPage, DeadLetterPages, DeadLetterWatch,
        DeadLetters, EnvelopeEdit, GroupSummary, ImportReport, Imported, JournalEntry,
        NewDeadLetters, PlannedImport, PlannedSweep, Preview, SweepEnd, SweepProgress, SweepReport,
    };
    pub use crate::operate::plan::{Confirmed, Plan};
}

#[cfg(feature = "schema")]
pub mod asyncapi {
    //! AsyncAPI: a document of the topics and messages of a service.
    //!
    //! [`Router::describe`](crate::Router::describe) adds the schema of a message to a router,
    //! [`AsyncApi`] makes the document. The schemas come from `schemars` 1: add it to your
    //! dependencies and derive its `JsonSchema` for your messages.
    pub use crate::api::asyncapi::AsyncApi;
}

#[doc(hidden)]
pub use operate::{escape, exposition, hex, views};

pub mod doctor {
    //! The doctor: problems of the server and the namespace, their causes and remedies.
    //!
    //! [`Container::doctor`](crate::Container::doctor) returns a [`Doctor`], which changes nothing. The
    //! one of [`ContainerBuilder::doctor`](crate::container::ContainerBuilder::doctor) also examines a
    //! namespace that `connect` refuses.
    pub use crate::operate::doctor::{Doctor, DoctorReport, Finding, Severity};
    pub use crate::store::ServerInfo;
}

pub mod metrics {
    //! Metrics: the buckets of the histograms.
    //!
    //! The page [metrics and traces](crate::docs::metrics) lists all metrics.
    pub use crate::container::meters::BUCKETS;
}

pub mod migrations {
    //! The layout of a namespace: list the applied migrations, and apply the pending ones.
    //!
    //! [`ContainerBuilder::migrations`](crate::container::ContainerBuilder::migrations) returns
    //! [`Migrations`]. The page [stored keys](crate::docs::keys) explains when a migration is due.
    pub use crate::adapters::redis::Migrations;
    pub use crate::domain::{Migration, MigrationState};
}

pub mod memory {
    //! The store in this process's memory, and its clocks: for tests, demos and single processes.
    //!
    //! It passes the same conformance suite as the Redis adapter. Containers on clones of one
    //! [`MemoryStore`] behave as processes on one server. A [`ManualClock`] makes hours pass at once.
    pub use crate::adapters::memory::{ManualClock, MemoryStore};
    pub use crate::domain::{Clock, SystemClock};
}

pub mod ports {
    //! The object-safe ports behind [`Bus`](crate::Bus) and [`Kv`](crate::Kv), for decorators, and the
    //! port of traces.
    //!
    //! To add behaviour to every call, implement [`MessageBus`] around
    //! [`Bus::port`](crate::Bus::port) and build a `Bus` from it; `Kv` works the same way.
    pub use crate::api::{
        CasResult, ClaimResult, KvStore, MessageBus, Operation, OperationKind, Propagator,
        RawBatchHandler, RawHandler,
    };
    pub use crate::domain::BoxFuture;
}

pub mod docs;

// The README's examples are compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
