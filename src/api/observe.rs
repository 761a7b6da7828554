//! An observer of handlers: it sees how each delivery ends.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::api::delivery::Delivery;
use crate::api::handler::{RawBatchHandler, RawHandler, RouteSettings, Work};
use crate::domain::{BoxFuture, Outcome, panic_text};

/// Sees each delivery with the outcome of its handler, before the store knows of it.
pub(crate) trait Observer: Send + Sync + std::fmt::Debug {
    fn handled(&self, delivery: &Delivery, outcome: &Outcome);
}

impl Work {
    /// The same handler, with an observer.
    pub(crate) fn observed(self, observer: Arc<dyn Observer>) -> Self {
        match self {
            Self::Each(handler) => Self::Each(Arc::new(Observed { handler, observer })),
            Self::Batches(handler) => Self::Batches(Arc::new(Observed { handler, observer })),
        }
    }
}

struct Observed<H: ?Sized> {
    handler: Arc<H>,
    observer: Arc<dyn Observer>,
}

impl RawHandler for Observed<dyn RawHandler> {
    fn name(&self) -> Option<&str> {
        self.handler.name()
    }

    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let handling = async { self.handler.handle(delivery.clone()).await };
            let outcome = AssertUnwindSafe(handling).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|panic| Outcome::retry(panic_text(panic)));
            self.observer.handled(&delivery, &outcome);
            outcome
        })
    }

    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        self.handler.route(message_type)
    }

    fn routes(&self) -> Vec<&RouteSettings> {
        self.handler.routes()
    }
}

impl RawBatchHandler for Observed<dyn RawBatchHandler> {
    fn name(&self) -> Option<&str> {
        self.handler.name()
    }

    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>> {
        Box::pin(async move {
            let handling = async { self.handler.handle(batch.clone()).await };
            let outcomes = AssertUnwindSafe(handling).catch_unwind().await;
            let outcomes = outcomes.unwrap_or_else(|panic| {
                let text = panic_text(panic);
                batch.iter().map(|_| Outcome::retry(&*text)).collect()
            });
            for (delivery, outcome) in batch.iter().zip(&outcomes) {
                self.observer.handled(delivery, outcome);
            }
            outcomes
        })
    }

    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        self.handler.route(message_type)
    }

    fn routes(&self) -> Vec<&RouteSettings> {
        self.handler.routes()
    }
}
