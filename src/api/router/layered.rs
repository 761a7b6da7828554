//! Routes behind middleware.

use std::sync::Arc;

use super::route::{BatchRoute, Ready, Route};
use super::table::Routes;
use crate::api::delivery::Delivery;
use crate::api::handler::{RawBatchHandler, RawHandler, RouteSettings};
use crate::api::middleware::{Chain, End, Together, around_batch};
use crate::domain::{BoxFuture, Outcome};

/// Puts middleware around one route of a merged router.
pub(super) fn layered(route: Ready, chain: Arc<Chain>) -> Ready {
    match route {
        Ready::Each(route) => Ready::Each(Box::new(LayeredRoute {
            chain,
            end: Arc::new(Single(route)),
        })),
        Ready::Batch(route) => Ready::Batch(Box::new(LayeredBatch {
            chain,
            end: Arc::new(Many(route)),
        })),
    }
}

struct LayeredRoute {
    chain: Arc<Chain>,
    end: Arc<Single>,
}

impl Route for LayeredRoute {
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        self.chain.run(delivery, Arc::clone(&self.end) as _)
    }
}

struct Single(Box<dyn Route>);

impl End for Single {
    fn run(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        Box::pin(async move { self.0.handle(delivery).await })
    }
}

struct LayeredBatch {
    chain: Arc<Chain>,
    end: Arc<dyn Together>,
}

impl BatchRoute for LayeredBatch {
    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>> {
        Box::pin(around_batch(&self.chain, &self.end, batch))
    }
}

struct Many(Box<dyn BatchRoute>);

impl Together for Many {
    fn is_batched(&self, _: &Delivery) -> bool {
        true
    }

    fn alone(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let outcomes = self.0.handle(vec![delivery]).await;
            let first = outcomes.into_iter().next();
            first.unwrap_or_else(|| Outcome::retry("no outcome"))
        })
    }

    fn together(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>> {
        self.0.handle(batch)
    }
}

/// The routes of a subscription with the middleware of its router, which also sees messages that no
/// route takes.
pub(super) struct LayeredRoutes {
    pub(super) chain: Arc<Chain>,
    pub(super) routes: Arc<Routes>,
}

impl End for Routes {
    fn run(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        Box::pin(async move { RawHandler::handle(&*self, delivery).await })
    }
}

impl Together for Routes {
    fn is_batched(&self, delivery: &Delivery) -> bool {
        matches!(self.of(delivery), Some(Ready::Batch(_)))
    }

    fn alone(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        RawHandler::handle(self, delivery)
    }

    fn together(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>> {
        RawBatchHandler::handle(self, batch)
    }
}

impl RawHandler for LayeredRoutes {
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        self.chain.run(delivery, Arc::clone(&self.routes) as _)
    }

    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        RawHandler::route(&*self.routes, message_type)
    }

    fn routes(&self) -> Vec<&RouteSettings> {
        RawHandler::routes(&*self.routes)
    }
}

impl RawBatchHandler for LayeredRoutes {
    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>> {
        let routes = Arc::clone(&self.routes) as Arc<dyn Together>;
        Box::pin(async move { around_batch(&self.chain, &routes, batch).await })
    }

    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        RawBatchHandler::route(&*self.routes, message_type)
    }

    fn routes(&self) -> Vec<&RouteSettings> {
        RawBatchHandler::routes(&*self.routes)
    }
}
