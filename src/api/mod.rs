//! The types that users hold: the bus, the key-value store, handlers, deliveries, options.

#[cfg(feature = "schema")]
pub(crate) mod asyncapi;
pub(crate) mod bus;
mod claim;
pub(crate) mod delivery;
mod effects;
pub(crate) mod handler;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod middleware;
pub(crate) mod observe;
pub(crate) mod once;
pub(crate) mod options;
pub(crate) mod overrides;
pub(crate) mod ownership;
pub(crate) mod propagator;
pub(crate) mod publish;
mod publisher;
pub(crate) mod rehearsal;
mod router;
#[cfg(feature = "schema")]
mod schema;
pub(crate) mod store_kv;
pub(crate) mod subscription;
pub(crate) mod supervise;
pub(crate) mod traces;

pub use crate::domain::Durability;
pub use crate::store::{CasResult, ClaimResult};
pub use bus::{Bus, MessageBus};
pub use delivery::Delivery;
pub use effects::{Committed, Rehearsal};
pub(crate) use handler::Work;
pub use handler::{
    Argument, Arguments, Attempt, Call, Correlation, FromDelivery, FromRef, Handler, Headers, Key,
    Message, OptionalFromDelivery, Payload, RawBatchHandler, RawHandler, Routed, State, Tenant,
    Unrouted,
};
pub use kv::{Kv, KvStore};
pub(crate) use middleware::PublishHooks;
#[cfg(feature = "tower")]
pub use middleware::{HandlerService, Tower};
pub use middleware::{IntoMiddleware, Middleware, MiddlewareOutcome, Next, PublishHook};
pub use once::{Once, OnceError, OnceOptions, first_time, once, once_with};
pub use options::SubscribeOptions;
pub use overrides::SubscriptionConfig;
pub use ownership::{Fence, Ownership};
pub use propagator::{Operation, OperationKind, Propagator};
pub use publish::{PublishOptions, Published};
pub use publisher::Publisher;
pub use rehearsal::Rehearsed;
pub use router::{Batch, BatchRouted, IntoBatchRoute, IntoRoute, IntoRouter, RouteOptions, Router};
pub(crate) use store_kv::StoreKv;
pub use subscription::{Subscription, SubscriptionReport};
