//! The router: handlers by type, in the making.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::batch::IntoBatchRoute;
use super::layered::layered;
use super::options::RouteOptions;
use super::route::{Around, IntoRoute, Pending, single};
use super::table::Routes;
use crate::api::handler::call::{Call, Unrouted};
use crate::api::handler::{Arguments, Message};
use crate::api::middleware::{Chain, IntoMiddleware, Layer};
#[cfg(feature = "schema")]
use crate::api::schema::SchemaOf;
use crate::domain::{Error, ErrorKind, ErrorRules, IntoOutcome, Outcome};

/// Handlers of several types of messages, for one subscription.
///
/// A message goes to the handler of its [type](Message::TYPE). A message of another type goes to the
/// dead letters with the reason [`Unhandled`](crate::dead_letters::Reason::Unhandled), unless there is
/// a handler for all [others](Self::otherwise).
///
/// A handler is an async function or closure of up to eight arguments, in any order: the message, and
/// [extractors](crate::extract) for the state and the parts of the delivery. It returns `()`, an
/// [`Outcome`], or a `Result` of either. A struct that implements [`Handler`](crate::Handler) does as
/// well.
///
/// # Example
///
/// ```
/// use redstart::extract::Tenant;
/// use redstart::{Container, Message, Outcome, Router, State, Topic};
/// use serde::{Deserialize, Serialize};
///
/// const ORDERS: Topic = Topic::from_static("orders");
///
/// #[derive(Serialize, Deserialize)]
/// struct Placed {
///     id: u32,
/// }
///
/// impl Message for Placed {
///     const TYPE: &'static str = "order.placed";
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Cancelled {
///     id: u32,
/// }
///
/// impl Message for Cancelled {
///     const TYPE: &'static str = "order.cancelled";
/// }
///
/// #[derive(Clone)]
/// struct Printer;
///
/// async fn placed(State(printer): State<Printer>, order: Placed, tenant: Option<Tenant>) {
///     let _ = (printer, order.id, tenant);
/// }
///
/// async fn cancelled(order: Cancelled) -> Result<(), std::io::Error> {
///     println!("order {} is cancelled", order.id);
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), redstart::Error> {
/// let router = Router::with_state(Printer)
///     .on(placed)
///     .on(cancelled)
///     .otherwise(Outcome::Ack);
/// let bus = Container::in_memory().await?.bus();
/// bus.subscribe(&ORDERS, router).await?;
/// bus.send(&ORDERS, &Placed { id: 7 }).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a router does nothing until it is subscribed"]
pub struct Router<S = ()> {
    state: Arc<S>,
    by_type: FxHashMap<&'static str, Pending>,
    pub(super) otherwise: Option<Pending>,
    rules: ErrorRules,
    /// The middleware, in the order of adding.
    layers: Vec<Arc<dyn Layer>>,
    /// The first mistake; subscribing reports it.
    mistake: Option<String>,
    /// The schemas of described messages.
    #[cfg(feature = "schema")]
    pub(super) schemas: Vec<(&'static str, SchemaOf)>,
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("types", &self.message_types())
            .field("otherwise", &self.otherwise.is_some())
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}

impl<S> Router<S> {
    /// The types that have a handler, sorted.
    pub(in crate::api) fn message_types(&self) -> Vec<&'static str> {
        let mut types: Vec<_> = self.by_type.keys().copied().collect();
        types.sort_unstable();
        types
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// A router whose handlers need no state.
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl<S: Send + Sync + 'static> Router<S> {
    /// A router whose handlers take `state`, or [parts](crate::extract::FromRef) of it, as
    /// [`State`](crate::State).
    pub fn with_state(state: S) -> Self {
        Self {
            state: Arc::new(state),
            by_type: FxHashMap::default(),
            otherwise: None,
            rules: ErrorRules::default(),
            layers: Vec::new(),
            mistake: None,
            #[cfg(feature = "schema")]
            schemas: Vec::new(),
        }
    }

    /// Adds a handler for the messages of one type: the type of the message that it takes.
    ///
    /// Two handlers for a type are a mistake: subscribing fails with
    /// [`Invalid`](crate::ErrorKind::Invalid).
    pub fn on<Marker, H: IntoRoute<S, Marker>>(self, handler: H) -> Self {
        self.on_with(RouteOptions::new(), handler)
    }

    /// Adds a handler for the messages of one type, with options. See [`on`](Self::on).
    pub fn on_with<Marker, H: IntoRoute<S, Marker>>(
        mut self,
        options: RouteOptions,
        handler: H,
    ) -> Self {
        let route = handler.into_route(Arc::clone(&self.state), options);
        self.add(H::Message::TYPE, route);
        self
    }

    /// Adds a handler that takes many messages of one type in one call, for example to write them in
    /// bulk.
    ///
    /// The subscription gathers the messages of all types, up to the number and the wait of
    /// [`with_batch`](crate::SubscribeOptions::with_batch). It hands those of this type to the handler, in the order in which they arrived, as a
    /// [`Batch`](crate::Batch). Meanwhile the other handlers of the router run concurrently, each with
    /// one message of the gathered ones.
    ///
    /// The handler returns `()` or a `Result` for the whole batch, or a `Vec` with an outcome for each
    /// message, in their order ([`IntoOutcomes`](crate::handler::IntoOutcomes)). Every message is its own
    /// delivery: it is settled, retried and dead-lettered by itself, and its lease is extended while
    /// its batch is gathered and handled. A payload that does not decode goes to the dead letters; the
    /// handler gets the others. A shutdown releases the messages of a batch that is still being
    /// gathered, and drops a call that has not returned after the grace.
    ///
    /// An error, a panic, or a `Vec` of the wrong length fails every message of the call, including
    /// those that did not cause it: each loses an attempt. If messages can fail by themselves, return
    /// an outcome for each.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use redstart::{Batch, Container, Message, Outcome, Router, SubscribeOptions, Topic};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Click {
    ///     path: String,
    /// }
    ///
    /// impl Message for Click {
    ///     const TYPE: &'static str = "click";
    /// }
    ///
    /// /// One insert for the whole batch. A click without a path is never retried.
    /// async fn store(clicks: Batch<Click>) -> Vec<Outcome> {
    ///     let outcome = |click: &Click| match click.path.starts_with('/') {
    ///         true => Outcome::Ack,
    ///         false => Outcome::dead_letter("no path"),
    ///     };
    ///     clicks.messages().iter().map(outcome).collect()
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), redstart::Error> {
    /// # let bus = Container::in_memory().await?.bus();
    /// let options = SubscribeOptions::new().with_batch(500, Duration::from_secs(1));
    /// let router = Router::new().on_batch(store);
    /// bus.subscribe_with(&Topic::new("clicks")?, options, router).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_batch<Marker, H: IntoBatchRoute<S, Marker>>(self, handler: H) -> Self {
        self.on_batch_with(RouteOptions::new(), handler)
    }

    /// Adds a batch handler with options. See [`on_batch`](Self::on_batch).
    pub fn on_batch_with<Marker, H: IntoBatchRoute<S, Marker>>(
        mut self,
        options: RouteOptions,
        handler: H,
    ) -> Self {
        let route = handler.into_batch_route(Arc::clone(&self.state), options);
        self.add(H::Message::TYPE, route);
        self
    }

    /// Sets the handler for the messages of every other type; by default they go to the dead letters.
    ///
    /// It takes extractors only: [`Delivery`](crate::Delivery), [`Envelope`](crate::Envelope),
    /// [`Payload`](crate::extract::Payload). A plain [`Outcome`] does as well.
    pub fn otherwise<F, Args, Via>(mut self, handler: F) -> Self
    where
        F: Call<Args> + Send + Sync + 'static,
        F::Future: Send,
        F::Output: IntoOutcome,
        Args: Arguments<S, Via> + 'static,
        Via: Unrouted<Args> + 'static,
    {
        let state = Arc::clone(&self.state);
        let route = single::<S, F, Args, Via>(handler, state, RouteOptions::new());
        self.set_otherwise(route);
        self
    }

    /// Adds a rule for an error that a handler returns: how the delivery ends, or `None` to ask the
    /// next rule. If no rule decides, the error is a retry.
    ///
    /// `E` is the type that the handlers return, `anyhow::Error` for example. Rules for returned values
    /// are asked before rules for [causes](Self::on_cause), each kind in the order of adding.
    pub fn on_error<E: 'static>(
        mut self,
        decide: impl Fn(&E) -> Option<Outcome> + Send + Sync + 'static,
    ) -> Self {
        self.rules.add_value(decide);
        self
    }

    /// Adds a rule for an error that a handler returns, or that is one of its causes: how the delivery
    /// ends, or `None` to ask the next rule. If no rule decides, the error is a retry.
    ///
    /// ```
    /// # use redstart::{Outcome, Router};
    /// use std::io::{Error, ErrorKind};
    ///
    /// let router = Router::new().on_cause(|error: &Error| {
    ///     let missing = error.kind() == ErrorKind::NotFound;
    ///     missing.then(|| Outcome::dead_letter("no such file"))
    /// });
    /// # drop(router);
    /// ```
    pub fn on_cause<E: StdError + 'static>(
        mut self,
        decide: impl Fn(&E) -> Option<Outcome> + Send + Sync + 'static,
    ) -> Self {
        self.rules.add_cause(decide);
        self
    }

    /// Adds middleware around all routes of this router and of the routers merged into it, also those
    /// that are added later. The middleware that is added first runs first, and sees the outcome last.
    ///
    /// It sees every delivery whose envelope decodes, and every outcome, also of a payload that does not
    /// decode, of a type that no route handles, of a handler that panics or that passes its time limit.
    /// The time limit is the handler's own: the time of middleware does not count.
    ///
    /// Around a batch handler it runs for each message by itself, for all messages of the batch
    /// concurrently. The handler gets those that the middleware lets through. Messages wait for the
    /// slower ones of their batch, at most for 100 milliseconds; those go into a call of their own.
    ///
    /// To put middleware around a single handler, make a router of it: `Router::new().on(handler)`, or
    /// `Router::new().otherwise(handler)` for a handler that takes every type.
    ///
    /// # Example
    ///
    /// ```
    /// use redstart::middleware::Next;
    /// use redstart::{Delivery, Outcome, Router};
    ///
    /// async fn known_tenants(delivery: Delivery, next: Next) -> Outcome {
    ///     match delivery.envelope().tenant() {
    ///         Some("acme") | None => next.run(delivery).await,
    ///         Some(other) => Outcome::dead_letter(format!("unknown tenant {other}")),
    ///     }
    /// }
    ///
    /// let router = Router::new().with_middleware(known_tenants);
    /// # drop(router);
    /// ```
    pub fn with_middleware<Marker>(mut self, middleware: impl IntoMiddleware<Marker>) -> Self {
        self.layers.push(middleware.into_layer());
        self
    }

    /// Adds the routes of another router. They keep its state, its error rules and its middleware,
    /// which runs inside this router's.
    pub fn merge<T: Send + Sync + 'static>(mut self, other: Router<T>) -> Self {
        let rules = Arc::new(other.rules);
        let chain = chain(other.layers, &rules);
        let own = |route: Pending| {
            let route = route.with_rules(Arc::clone(&rules));
            match chain.clone() {
                Some(chain) => route.map(|ready| layered(ready, chain)),
                None => route,
            }
        };
        for (message_type, route) in other.by_type {
            self.add(message_type, own(route));
        }
        if let Some(route) = other.otherwise {
            self.set_otherwise(own(route));
        }
        self.mistake = self.mistake.or(other.mistake);
        #[cfg(feature = "schema")]
        self.schemas.extend(other.schemas);
        self
    }

    fn add(&mut self, message_type: &'static str, route: Pending) {
        self.check_limit(&route);
        if self.by_type.insert(message_type, route).is_some() {
            let rule = || format!("the router has two handlers for type {message_type:?}");
            self.mistake.get_or_insert_with(rule);
        }
    }

    fn set_otherwise(&mut self, route: Pending) {
        self.check_limit(&route);
        if self.otherwise.replace(route).is_some() {
            let rule = || "the router has two handlers for all other types".to_owned();
            self.mistake.get_or_insert_with(rule);
        }
    }

    fn check_limit(&mut self, route: &Pending) {
        if route
            .limit()
            .is_some_and(|limit| limit < Duration::from_millis(1))
        {
            let rule = || "the timeout of a route must be at least 1 millisecond".to_owned();
            self.mistake.get_or_insert_with(rule);
        }
    }

    /// The complete table, with the time limit of the subscription, and the middleware around it.
    pub(super) fn into_routes(
        self,
        limit: Option<Duration>,
    ) -> Result<(Routes, Option<Arc<Chain>>), Error> {
        let empty = self.by_type.is_empty() && self.otherwise.is_none();
        let mistake = self
            .mistake
            .or_else(|| empty.then(|| "the router has no handlers".to_owned()));
        if let Some(rule) = mistake {
            return Err(Error::new(ErrorKind::Invalid, "subscribe", rule));
        }
        let rules = Arc::new(self.rules);
        let chain = chain(self.layers, &rules);
        let around = Around { rules, limit };
        let ready = |route: Pending| route.ready(around.clone());
        let by_type = self.by_type.into_iter();
        let routes = Routes {
            by_type: by_type.map(|(name, route)| (name, ready(route))).collect(),
            otherwise: self.otherwise.map(ready),
        };
        Ok((routes, chain))
    }
}

/// The chain of a router that has middleware.
fn chain(layers: Vec<Arc<dyn Layer>>, rules: &Arc<ErrorRules>) -> Option<Arc<Chain>> {
    (!layers.is_empty()).then(|| Chain::new(layers, Arc::clone(rules)))
}
