//! The values that can be middleware.

use std::future::Future;
use std::sync::Arc;

use super::next::{Layer, Next};
use crate::api::delivery::Delivery;
use crate::domain::{BoxFuture, HandlerError, IntoOutcome, Outcome};

/// Middleware with a name and state of its own. Without either, an async function is enough.
///
/// `Arc<M>` of middleware is middleware too, so one value can serve two routers.
///
/// # Example
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use redstart::middleware::{Middleware, Next};
/// use redstart::{Delivery, Outcome};
///
/// #[derive(Default)]
/// struct CountFailures(AtomicU64);
///
/// impl Middleware for CountFailures {
///     async fn handle(&self, delivery: Delivery, next: Next) -> Outcome {
///         let outcome = next.run(delivery).await;
///         if matches!(outcome, Outcome::Retry { .. }) {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///         outcome
///     }
/// }
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// Runs around one attempt, and returns how the delivery ends. `next.run(delivery)` calls the
    /// handler; without that call the handler does not run.
    fn handle(&self, delivery: Delivery, next: Next) -> impl Future<Output = Outcome> + Send;
}

impl<M: Middleware> Middleware for Arc<M> {
    fn handle(&self, delivery: Delivery, next: Next) -> impl Future<Output = Outcome> + Send {
        M::handle(self, delivery, next)
    }
}

/// A value that can be middleware: an async function or closure
/// `async fn(Delivery, Next) -> Outcome`, a [`Middleware`], or, with the feature `tower`,
/// `Tower(layer)`.
///
/// `Marker` is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not middleware",
    label = "expected `async fn(Delivery, Next) -> Outcome`",
    note = "a closure names the types of its arguments and owns its captures: `|delivery: Delivery, next: Next| async move {{ next.run(delivery).await }}`",
    note = "it returns the outcome: that of `next.run(delivery).await`, or one of its own; `Result<Outcome, E>` will do",
    note = "a struct can be middleware where it implements `Middleware`",
    note = "a `tower::Layer` goes in by `with_middleware(Tower(layer))`, feature `tower`, if the service that it makes is `Clone` and `Send`"
)]
pub trait IntoMiddleware<Marker> {
    #[doc(hidden)]
    fn into_layer(self) -> Arc<dyn Layer>;
}

/// A value that a middleware function may return: an [`Outcome`], or a `Result` of one, whose error is
/// judged as a handler's is.
///
/// `()` is not one: middleware that forgets the handler's outcome must not acknowledge.
pub trait MiddlewareOutcome: IntoOutcome {}

impl MiddlewareOutcome for Outcome {}

impl<E: HandlerError> MiddlewareOutcome for Result<Outcome, E> {}

/// Marks a function. The compiler infers it.
#[derive(Debug)]
#[doc(hidden)]
pub enum ByFunction {}

struct Function<F>(F);

impl<F, Fut> Layer for Function<F>
where
    F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: MiddlewareOutcome> + Send + 'static,
{
    fn run(self: Arc<Self>, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome> {
        let rules = next.rules();
        Box::pin(async move {
            let value = (self.0)(delivery, next).await;
            value.into_outcome_by(&rules)
        })
    }
}

#[diagnostic::do_not_recommend]
impl<F, Fut> IntoMiddleware<ByFunction> for F
where
    F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: MiddlewareOutcome> + Send + 'static,
{
    fn into_layer(self) -> Arc<dyn Layer> {
        Arc::new(Function(self))
    }
}

/// Marks a [`Middleware`]. The compiler infers it.
#[derive(Debug)]
#[doc(hidden)]
pub enum ByItself {}

struct Itself<M>(M);

impl<M: Middleware> Layer for Itself<M> {
    fn run(self: Arc<Self>, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome> {
        Box::pin(async move { self.0.handle(delivery, next).await })
    }
}

#[diagnostic::do_not_recommend]
impl<M: Middleware> IntoMiddleware<ByItself> for M {
    fn into_layer(self) -> Arc<dyn Layer> {
        Arc::new(Itself(self))
    }
}
