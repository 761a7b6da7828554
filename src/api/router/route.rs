//! A route: a handler with its state and its rules, whose argument types are forgotten.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::options::RouteOptions;
use crate::api::delivery::Delivery;
use crate::api::handler::call::{Call, Routed, TimedOut};
use crate::api::handler::{Arguments, Message, RouteSettings};
use crate::domain::{BoxFuture, ErrorRules, IntoOutcome, Outcome};

/// A handler of single deliveries.
pub(super) trait Route: Send + Sync {
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome>;
}

/// A handler of batches. Returns one outcome for each delivery, in their order.
pub(super) trait BatchRoute: Send + Sync {
    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>>;
}

/// A route that can be called.
pub(super) enum Ready {
    Each(Box<dyn Route>),
    Batch(Box<dyn BatchRoute>),
}

/// The parts of a route that are known last: those of its router and of its subscription.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) rules: Arc<ErrorRules>,
    /// The time limit of the subscription.
    pub(super) limit: Option<Duration>,
}

/// Makes a route when the rest is known.
type Make = Box<dyn FnOnce(Around) -> Ready + Send + Sync>;

/// A route whose router is not complete.
#[doc(hidden)]
pub struct Pending {
    make: Make,
    settings: RouteSettings,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Pending {
    pub(super) fn new(
        options: RouteOptions,
        own_name: Option<&'static str>,
        make: impl FnOnce(Around) -> Ready + Send + Sync + 'static,
    ) -> Self {
        let RouteOptions {
            name,
            timeout,
            retry,
        } = options;
        Self {
            make: Box::new(make),
            settings: RouteSettings {
                name,
                own_name,
                timeout,
                retry,
            },
        }
    }

    /// Fixes the rules: those of another router do not apply.
    pub(super) fn with_rules(self, rules: Arc<ErrorRules>) -> Self {
        let make = self.make;
        let make = move |around: Around| make(Around { rules, ..around });
        Self {
            make: Box::new(make),
            ..self
        }
    }

    /// Puts something around the route when it is made.
    pub(super) fn map(self, change: impl FnOnce(Ready) -> Ready + Send + Sync + 'static) -> Self {
        let make = self.make;
        Self {
            make: Box::new(move |around| change(make(around))),
            ..self
        }
    }

    pub(super) fn limit(&self) -> Option<Duration> {
        self.settings.timeout
    }

    pub(super) fn ready(self, around: Around) -> (Ready, RouteSettings) {
        let limit = self.limit().or(around.limit);
        ((self.make)(Around { limit, ..around }), self.settings)
    }
}

/// A handler of single deliveries with everything that it needs.
pub(super) struct Single<S, F, Args, Via> {
    pub(super) state: Arc<S>,
    pub(super) handler: F,
    pub(super) around: Around,
    pub(super) arguments: PhantomData<fn() -> (Args, Via)>,
}

impl<S, F, Args, Via> Route for Single<S, F, Args, Via>
where
    S: Send + Sync + 'static,
    F: Call<Args> + Send + Sync + 'static,
    F::Future: Send,
    F::Output: IntoOutcome,
    Args: Arguments<S, Via> + 'static,
    Via: 'static,
{
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        let source = delivery.clone();
        let args = async move { Args::arguments(&source, &self.state).await };
        let end = move |value: Result<F::Output, TimedOut>| match value {
            Ok(value) => outcome_of(value, &delivery, &self.around.rules),
            Err(limit) => timed_out(limit, &delivery),
        };
        self.handler.call(args, self.around.limit, end)
    }
}

/// The outcome of a handler that was cancelled and has not said how its delivery ends. The runtime
/// gives a delivery back that was cancelled and asks for a retry.
pub(super) fn without_a_word() -> Outcome {
    Outcome::retry("the handler was cancelled and did not say how the delivery ends")
}

/// What a handler's value means, given whether its delivery was cancelled meanwhile.
fn outcome_of(value: impl IntoOutcome, delivery: &Delivery, rules: &ErrorRules) -> Outcome {
    if delivery.is_cancelled() && value.is_implied_ack() {
        return without_a_word();
    }
    value.into_outcome_by(rules)
}

/// The outcome of a delivery whose handler was dropped at its time limit.
pub(super) fn timed_out(TimedOut(limit): TimedOut, delivery: &Delivery) -> Outcome {
    let (topic, group) = (delivery.topic(), delivery.group());
    tracing::warn!(%topic, %group, id = %delivery.envelope().id(), ?limit, "a handler timed out");
    metrics::counter!("redstart_handler_timeouts_total", "topic" => topic.to_string(), "group" => group.to_string())
        .increment(1);
    delivery.note_timeout();
    Outcome::retry(format!("timed out after {limit:?}"))
}

/// A handler of one type of message: an async function or a [`Handler`](crate::Handler).
///
/// `Marker` is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a route's handler",
    label = "expected an async function or a `Handler`",
    note = "a handler function is `async`, and takes up to eight arguments by value: the message and extractors, in any order",
    note = "a struct can be a handler where it implements `Handler`; a `Router` is added with `merge`",
    note = "a closure whose future borrows or consumes what it captures can be called once only: take it as `State<T>`, or clone it before an inner `async move {{ … }}` block"
)]
pub trait IntoRoute<S, Marker> {
    /// The message that it takes.
    type Message: Message;

    #[doc(hidden)]
    fn into_route(self, state: Arc<S>, options: RouteOptions) -> Pending;
}

impl<S, F, Args, Via> IntoRoute<S, (Args, Via)> for F
where
    S: Send + Sync + 'static,
    F: Call<Args> + Send + Sync + 'static,
    F::Future: Send,
    F::Output: IntoOutcome,
    Args: Arguments<S, Via> + 'static,
    Via: Routed<Args> + 'static,
{
    type Message = Via::Message;

    fn into_route(self, state: Arc<S>, options: RouteOptions) -> Pending {
        single::<S, F, Args, Via>(self, state, options)
    }
}

pub(super) fn single<S, F, Args, Via>(handler: F, state: Arc<S>, options: RouteOptions) -> Pending
where
    S: Send + Sync + 'static,
    F: Call<Args> + Send + Sync + 'static,
    F::Future: Send,
    F::Output: IntoOutcome,
    Args: Arguments<S, Via> + 'static,
    Via: 'static,
{
    Pending::new(options, F::name(), |around| {
        Ready::Each(Box::new(Single::<S, F, Args, Via> {
            state,
            handler,
            around,
            arguments: PhantomData,
        }))
    })
}
