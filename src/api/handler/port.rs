//! The object-safe form of handlers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::api::delivery::Delivery;
use crate::api::options::SubscribeOptions;
use crate::domain::{BoxFuture, Outcome, RetryPolicy};

/// The settings of a route, where they differ from those of its subscription.
#[derive(Clone, Debug, Default)]
#[doc(hidden)]
pub struct RouteSettings {
    /// The name that the route was given.
    pub(crate) name: Option<String>,
    /// The name of its function or struct.
    pub(crate) own_name: Option<&'static str>,
    /// The time limit of the route itself, if it has one.
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<RetryPolicy>,
}

/// The object-safe form of a handler; its payload is still encoded.
pub trait RawHandler: Send + Sync + 'static {
    /// The name in dead letters; by default `topic/group`.
    fn name(&self) -> Option<&str> {
        None
    }

    /// Handles one delivery. A payload that does not decode and a type that has no handler are
    /// [`Outcome::DeadLetter`] with the reasons `Undecodable` and `Unhandled`.
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome>;

    /// The settings of the route of a type.
    #[doc(hidden)]
    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        let _ = message_type;
        None
    }

    /// The settings of all routes.
    #[doc(hidden)]
    fn routes(&self) -> Vec<&RouteSettings> {
        Vec::new()
    }
}

/// The object-safe form of a batch handler; its payloads are still encoded.
pub trait RawBatchHandler: Send + Sync + 'static {
    /// The name in dead letters; by default `topic/group`.
    fn name(&self) -> Option<&str> {
        None
    }

    /// Handles a batch, which is never empty. Returns one outcome for each delivery, in their order,
    /// as [`RawHandler::handle`] does.
    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>>;

    /// As [`RawHandler::route`].
    #[doc(hidden)]
    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        let _ = message_type;
        None
    }

    /// As [`RawHandler::routes`].
    #[doc(hidden)]
    fn routes(&self) -> Vec<&RouteSettings> {
        Vec::new()
    }
}

/// The handler of a subscription.
#[derive(Clone)]
#[doc(hidden)]
pub enum Work {
    /// Called with one delivery at a time.
    Each(Arc<dyn RawHandler>),
    /// Called with a batch of deliveries.
    Batches(Arc<dyn RawBatchHandler>),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Each(_) => "Each",
            Self::Batches(_) => "Batches",
        };
        f.debug_tuple(kind).field(&self.name()).finish()
    }
}

impl Work {
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Each(handler) => handler.name(),
            Self::Batches(handler) => handler.name(),
        }
    }

    pub(crate) fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        match self {
            Self::Each(handler) => handler.route(message_type),
            Self::Batches(handler) => handler.route(message_type),
        }
    }

    pub(crate) fn routes(&self) -> Vec<&RouteSettings> {
        match self {
            Self::Each(handler) => handler.routes(),
            Self::Batches(handler) => handler.routes(),
        }
    }

    /// The largest number of deliveries in one call.
    pub(crate) fn most_at_once(&self, options: &SubscribeOptions) -> usize {
        match self {
            Self::Each(_) => 1,
            Self::Batches(_) => options.batch.0,
        }
    }
}
