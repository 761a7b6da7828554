//! Handlers of batches.

use std::future::ready;
use std::iter::Zip;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;

use super::options::RouteOptions;
use super::route::{Around, BatchRoute, Pending, Ready, timed_out, without_a_word};
use crate::api::delivery::Delivery;
use crate::api::handler::call::{Call, TimedOut};
use crate::api::handler::extract::{FromRef, State, decode};
use crate::api::handler::message::Message;
use crate::domain::{BoxFuture, IntoOutcomes, Outcome, panic_text};

/// The messages of one call of a [batch handler](crate::Router::on_batch), in the order in which they
/// arrived. It is never empty.
///
/// Iterating yields each message with its [`Delivery`].
#[derive(Debug)]
pub struct Batch<T> {
    messages: Vec<T>,
    deliveries: Vec<Delivery>,
}

impl<T> Batch<T> {
    /// The messages.
    #[must_use]
    pub fn messages(&self) -> &[T] {
        &self.messages
    }

    /// The deliveries, in the order of the messages.
    #[must_use]
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it has no message: never, in a handler.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Each message with its delivery.
    pub fn iter(&self) -> Zip<std::slice::Iter<'_, T>, std::slice::Iter<'_, Delivery>> {
        self.messages.iter().zip(&self.deliveries)
    }

    /// The messages without their deliveries.
    #[must_use]
    pub fn into_messages(self) -> Vec<T> {
        self.messages
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = (T, Delivery);
    type IntoIter = Zip<std::vec::IntoIter<T>, std::vec::IntoIter<Delivery>>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.into_iter().zip(self.deliveries)
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = (&'a T, &'a Delivery);
    type IntoIter = Zip<std::slice::Iter<'a, T>, std::slice::Iter<'a, Delivery>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The arguments of a batch handler.
#[doc(hidden)]
pub trait BatchArguments<S, Via>: Sized + Send {
    type Message: Message + DeserializeOwned;

    fn arguments(batch: Batch<Self::Message>, state: &S) -> Self;
}

impl<S, T: Message + DeserializeOwned> BatchArguments<S, (T,)> for (Batch<T>,) {
    type Message = T;

    fn arguments(batch: Batch<T>, _: &S) -> Self {
        (batch,)
    }
}

impl<S, A, T> BatchArguments<S, (A, T)> for (State<A>, Batch<T>)
where
    A: FromRef<S> + Send,
    T: Message + DeserializeOwned,
{
    type Message = T;

    fn arguments(batch: Batch<T>, state: &S) -> Self {
        (State(A::from_ref(state)), batch)
    }
}

/// The arguments of a batch handler: `Batch<T>`, alone or after `State<…>`.
///
/// One step away from `BatchArguments`, so that the compiler shows this text.
#[diagnostic::on_unimplemented(
    message = "a batch handler cannot take `{Self}`",
    label = "expected `Batch<T>`, alone or after `State<…>`",
    note = "`async fn store(State(pool): State<Pool>, batch: Batch<Click>)`, where `Click` implements `Message` and `serde::Deserialize`"
)]
pub trait BatchRouted<S, Via>: Sized + Send {
    /// The message.
    type Message: Message + DeserializeOwned;

    #[doc(hidden)]
    fn arguments(batch: Batch<Self::Message>, state: &S) -> Self;
}

#[diagnostic::do_not_recommend]
impl<S, Via, Args: BatchArguments<S, Via>> BatchRouted<S, Via> for Args {
    type Message = Args::Message;

    fn arguments(batch: Batch<Args::Message>, state: &S) -> Self {
        <Args as BatchArguments<S, Via>>::arguments(batch, state)
    }
}

/// A handler of many messages of one type in one call.
///
/// `Marker` is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a batch handler",
    label = "expected `async fn(Batch<T>)` or `async fn(State<S>, Batch<T>)`"
)]
pub trait IntoBatchRoute<S, Marker> {
    /// The message that it takes.
    type Message: Message;

    #[doc(hidden)]
    fn into_batch_route(self, state: Arc<S>, options: RouteOptions) -> Pending;
}

impl<S, F, Args, Via> IntoBatchRoute<S, (Args, Via)> for F
where
    S: Send + Sync + 'static,
    F: Call<Args> + Send + Sync + 'static,
    F::Future: Send,
    F::Output: IntoOutcomes,
    Args: BatchRouted<S, Via> + 'static,
    Via: 'static,
{
    type Message = Args::Message;

    fn into_batch_route(self, state: Arc<S>, options: RouteOptions) -> Pending {
        Pending::new(options, F::name(), |around| {
            Ready::Batch(Box::new(Many::<S, F, Args, Via> {
                state,
                handler: self,
                around,
                arguments: PhantomData,
            }))
        })
    }
}

/// A batch handler with everything that it needs.
struct Many<S, F, Args, Via> {
    state: Arc<S>,
    handler: F,
    around: Around,
    arguments: PhantomData<fn() -> (Args, Via)>,
}

/// Decodes one payload of a batch. `Err` holds the outcome of a message whose payload does not decode,
/// or whose decoding panics: neither may cost the other messages of the batch.
fn payload<T: DeserializeOwned>(delivery: &Delivery) -> Result<T, Outcome> {
    let decoding = AssertUnwindSafe(|| decode(delivery));
    catch_unwind(decoding).unwrap_or_else(|panic| Err(Outcome::retry(panic_text(panic))))
}

impl<S, F, Args, Via> Many<S, F, Args, Via>
where
    S: Send + Sync + 'static,
    F: Call<Args> + Send + Sync + 'static,
    F::Future: Send,
    F::Output: IntoOutcomes,
    Args: BatchRouted<S, Via> + 'static,
{
    /// Calls the handler. A panic fails the messages of this call only.
    async fn call(&self, batch: Batch<Args::Message>) -> Vec<Outcome> {
        let deliveries = batch.deliveries.clone();
        let count = deliveries.len();
        let end = move |value: Result<F::Output, TimedOut>| match value {
            Ok(value) => self.outcomes_of(value, &deliveries),
            Err(limit) => deliveries
                .iter()
                .map(|delivery| timed_out(limit, delivery))
                .collect(),
        };
        let calling = async {
            let args = Args::arguments(batch, &self.state);
            let call = self.handler.call(ready(Ok(args)), self.around.limit, end);
            call.await
        };
        let outcomes = AssertUnwindSafe(calling).catch_unwind().await;
        outcomes.unwrap_or_else(|panic| Outcome::retry(panic_text(panic)).into_outcomes(count))
    }

    fn outcomes_of(&self, value: F::Output, deliveries: &[Delivery]) -> Vec<Outcome> {
        let silent: Vec<bool> = deliveries
            .iter()
            .enumerate()
            .map(|(at, delivery)| delivery.is_cancelled() && value.is_implied_ack_at(at))
            .collect();
        let outcomes = value.into_outcomes_by(deliveries.len(), &self.around.rules);
        outcomes
            .into_iter()
            .zip(silent)
            .map(|(outcome, silent)| if silent { without_a_word() } else { outcome })
            .collect()
    }
}

impl<S, F, Args, Via> BatchRoute for Many<S, F, Args, Via>
where
    S: Send + Sync + 'static,
    F: Call<Args> + Send + Sync + 'static,
    F::Future: Send,
    F::Output: IntoOutcomes,
    Args: BatchRouted<S, Via> + 'static,
    Via: 'static,
{
    fn handle(&self, deliveries: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>> {
        Box::pin(async move {
            let mut batch = Batch {
                messages: Vec::with_capacity(deliveries.len()),
                deliveries: Vec::with_capacity(deliveries.len()),
            };
            // The outcome of each message that the handler is not called with.
            let mut unread = Vec::with_capacity(deliveries.len());
            for delivery in deliveries {
                match payload(&delivery) {
                    Ok(message) => {
                        batch.messages.push(message);
                        batch.deliveries.push(delivery);
                        unread.push(None);
                    }
                    Err(outcome) => unread.push(Some(outcome)),
                }
            }
            let called = if batch.is_empty() {
                Vec::new()
            } else {
                self.call(batch).await
            };
            let mut called = called.into_iter();
            let missing = || Outcome::retry("no outcome");
            let outcome = |unread: Option<Outcome>| {
                unread.unwrap_or_else(|| called.next().unwrap_or_else(missing))
            };
            unread.into_iter().map(outcome).collect()
        })
    }
}
