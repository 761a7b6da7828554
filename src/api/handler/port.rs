//! The object-safe form of handlers.

use std::fmt;
use std::sync::Arc;

use crate::api::delivery::Delivery;
use crate::api::options::SubscribeOptions;
use crate::domain::{BoxFuture, Outcome};

/// The object-safe form of a handler; its payload is still encoded.
pub trait RawHandler: Send + Sync + 'static {
    /// The name in dead letters; by default `topic/group`.
    fn name(&self) -> Option<&str> {
        None
    }

    /// Handles one delivery. A payload that does not decode and a type that has no handler are
    /// [`Outcome::DeadLetter`] with the reasons `Undecodable` and `Unhandled`.
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome>;
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

    /// The largest number of deliveries in one call.
    pub(crate) fn most_at_once(&self, options: &SubscribeOptions) -> usize {
        match self {
            Self::Each(_) => 1,
            Self::Batches(_) => options.batch.0,
        }
    }
}
