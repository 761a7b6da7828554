//! Layers of tower as middleware.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tower_layer::Layer as TowerLayer;
use tower_service::Service;

use super::into_middleware::IntoMiddleware;
use super::next::{Layer, Next};
use crate::api::delivery::Delivery;
use crate::domain::{BoxFuture, HandlerError as _, Outcome};

/// A [`tower_layer::Layer`] as middleware. The layer is applied once, when it is added.
///
/// An error of the layer is a failed attempt, judged as an error of a handler: the router's
/// [`on_error`](crate::Router::on_error) and [`on_cause`](crate::Router::on_cause) see its type.
///
/// The guide [handlers](crate::docs::handlers#tower) says which layers fit.
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use redstart::Router;
/// use redstart::middleware::Tower;
/// use tower::limit::GlobalConcurrencyLimitLayer;
///
/// let limit = GlobalConcurrencyLimitLayer::new(4);
/// let router = Router::new().with_middleware(Tower(limit));
/// # drop(router);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tower<L>(pub L);

/// The service that a layer wraps: the middleware after it, and the handler.
///
/// It is always ready and never fails: a handler that fails returns an [`Outcome`], not an error.
#[derive(Clone)]
pub struct HandlerService(());

impl fmt::Debug for HandlerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerService")
    }
}

tokio::task_local! {
    /// The rest of the chain of the delivery whose layer is being polled. A layer may pass the call
    /// to another task, as a buffer does, but returns its future to the caller, who polls it.
    static NEXT: Mutex<Option<Next>>;
}

impl Service<Delivery> for HandlerService {
    type Response = Outcome;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Outcome, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        Box::pin(async move {
            let next =
                NEXT.try_with(|next| next.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(match next.ok().flatten() {
                Some(next) => next.run(delivery).await,
                None => {
                    Outcome::retry("a tower layer called the handler twice, or on another task")
                }
            })
        })
    }
}

/// The service that a layer has made. Each call has a clone of its own, so that the readiness that it
/// polls is its own.
struct Layered<V>(Mutex<V>);

impl<V> Layer for Layered<V>
where
    V: Service<Delivery, Response = Outcome> + Clone + Send + 'static,
    V::Error: Into<Box<dyn StdError + Send + Sync>> + 'static,
    V::Future: Send,
{
    fn run(self: Arc<Self>, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome> {
        let rules = next.rules();
        Box::pin(NEXT.scope(Mutex::new(Some(next)), async move {
            let service = self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            match call(service, delivery).await {
                Ok(outcome) => outcome,
                Err(error) => error.decide(&rules),
            }
        }))
    }
}

async fn call<V: Service<Delivery>>(
    mut service: V,
    delivery: Delivery,
) -> Result<V::Response, V::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(delivery).await
}

/// Marks a [`Tower`]. The compiler infers it.
#[derive(Debug)]
#[doc(hidden)]
pub enum ByTower {}

#[diagnostic::do_not_recommend]
impl<L, V> IntoMiddleware<ByTower> for Tower<L>
where
    L: TowerLayer<HandlerService, Service = V>,
    V: Service<Delivery, Response = Outcome> + Clone + Send + 'static,
    V::Error: Into<Box<dyn StdError + Send + Sync>> + 'static,
    V::Future: Send,
{
    fn into_layer(self) -> Arc<dyn Layer> {
        let service = self.0.layer(HandlerService(()));
        Arc::new(Layered(Mutex::new(service)))
    }
}
