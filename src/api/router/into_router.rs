//! The values that can be subscribed.

use std::future::ready;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::builder::Router;
use super::layered::LayeredRoutes;
use super::route::{Around, Route, Single};
use super::table::unhandled;
use crate::api::delivery::Delivery;
use crate::api::handler::call::{AtMostOneMessage, Call};
use crate::api::handler::{Arguments, RawHandler, Work};
use crate::domain::{BoxFuture, Error, ErrorRules, IntoOutcome, Outcome};

/// A value that can be subscribed: an async function, a [`Handler`](crate::Handler) or a [`Router`].
///
/// `Marker` is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be subscribed",
    label = "expected an async function, a `Handler` or a `Router`",
    note = "a handler function is `async`, and takes up to eight arguments by value: the message and extractors, in any order",
    note = "a struct can be subscribed where it implements `Handler`",
    note = "a closure whose future borrows or consumes what it captures can be called once only: take it as `State<T>`, or clone it before an inner `async move {{ … }}` block"
)]
pub trait IntoRouter<Marker> {
    /// The handler of the subscription, with the subscription's time limit.
    #[doc(hidden)]
    fn into_work(self, limit: Option<Duration>) -> Result<Work, Error>;
}

/// Marks a [`Router`].
#[derive(Debug)]
#[doc(hidden)]
pub enum WholeRouter {}

#[diagnostic::do_not_recommend]
impl<S: Send + Sync + 'static> IntoRouter<WholeRouter> for Router<S> {
    fn into_work(self, limit: Option<Duration>) -> Result<Work, Error> {
        let (routes, chain) = self.into_routes(limit)?;
        let has_batches = routes.has_batches();
        let routes = Arc::new(routes);
        Ok(match (has_batches, chain) {
            (true, None) => Work::Batches(routes),
            (false, None) => Work::Each(routes),
            (true, Some(chain)) => Work::Batches(Arc::new(LayeredRoutes { chain, routes })),
            (false, Some(chain)) => Work::Each(Arc::new(LayeredRoutes { chain, routes })),
        })
    }
}

impl<F, Args, Via> IntoRouter<(Args, Via)> for F
where
    F: Call<Args> + Send + Sync + 'static,
    F::Future: Send,
    F::Output: IntoOutcome,
    Args: Arguments<(), Via> + 'static,
    Via: AtMostOneMessage<Args> + 'static,
{
    fn into_work(self, limit: Option<Duration>) -> Result<Work, Error> {
        let rules = Arc::<ErrorRules>::default();
        Ok(Work::Each(Arc::new(Bare {
            name: F::name(),
            message_type: Via::TYPE,
            route: Single::<(), F, Args, Via> {
                state: Arc::new(()),
                handler: self,
                around: Around { rules, limit },
                arguments: PhantomData,
            },
        })))
    }
}

/// A handler without a router.
struct Bare<R> {
    name: Option<&'static str>,
    /// The type of its messages; `None`: it takes every type.
    message_type: Option<&'static str>,
    route: R,
}

impl<R: Route + 'static> RawHandler for Bare<R> {
    fn name(&self) -> Option<&str> {
        self.name
    }

    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        match self.message_type {
            Some(handled) if handled != delivery.envelope().message_type() => {
                Box::pin(ready(unhandled(&delivery, [handled].into_iter())))
            }
            _ => self.route.handle(delivery),
        }
    }
}
