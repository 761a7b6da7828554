//! Handlers: the user's code, and its object-safe form.

use std::any::Any;
use std::future::Future;
use std::iter::repeat;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;

use crate::api::delivery::Delivery;
use crate::api::options::SubscribeOptions;
use crate::domain::BoxFuture;
use crate::domain::{Error, IntoOutcome, IntoOutcomes, Outcome, panic_text};

/// A handler with a name and state. Without either, a closure is enough.
///
/// # Example
///
/// ```
/// use redstart::{Delivery, Handler};
///
/// struct Billing {
///     currency: &'static str,
/// }
///
/// impl Handler for Billing {
///     type Message = u64;
///     type Output = Result<(), std::io::Error>;
///
///     async fn handle(&self, cents: u64, delivery: Delivery) -> Self::Output {
///         println!("{} {cents}, attempt {}", self.currency, delivery.attempt());
///         Ok(())
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// The type of the payload. A payload that does not decode goes to the dead letters as
    /// `undecodable` at its first attempt, unless
    /// [`with_undecodable_retry`](SubscribeOptions::with_undecodable_retry) says otherwise.
    type Message: DeserializeOwned + Send;

    /// The type that [`handle`](Self::handle) returns: `()`, an [`Outcome`], or a `Result` of either.
    type Output: IntoOutcome;

    /// Handles one delivery. After an error or a panic the message is tried again by the retry policy.
    ///
    /// After the delivery was [cancelled](Delivery::cancelled) only an outcome that the handler
    /// names ends it: [`Outcome::Ack`], [`Outcome::Snooze`] or [`Outcome::DeadLetter`]. After `()`,
    /// `Ok(())`, an error, a panic or [`Outcome::Retry`] the shutdown releases the message, and no
    /// attempt counts.
    ///
    /// A shutdown drops the future after its grace.
    fn handle(
        &self,
        message: Self::Message,
        delivery: Delivery,
    ) -> impl Future<Output = Self::Output> + Send;
}

/// The object-safe form of a handler; its payload is still encoded.
pub trait RawHandler: Send + Sync + 'static {
    /// The name in dead letters.
    fn name(&self) -> &str;

    /// Handles one delivery. An error means that the payload does not decode: the message goes to
    /// the dead letters as `undecodable`.
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Result<Outcome, Error>>;
}

/// The object-safe form of a batch handler; its payloads are still encoded.
pub trait RawBatchHandler: Send + Sync + 'static {
    /// The name in dead letters.
    fn name(&self) -> &str;

    /// Handles a batch, which is never empty. Returns one result for each delivery, in their order.
    /// An error means that the payload does not decode.
    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Result<Outcome, Error>>>;
}

/// The handler of a subscription.
#[derive(Clone)]
pub(crate) enum Work {
    /// Called with one delivery at a time.
    Each(Arc<dyn RawHandler>),
    /// Called with a batch of deliveries.
    Batches(Arc<dyn RawBatchHandler>),
}

impl Work {
    pub(crate) fn name(&self) -> &str {
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

/// A handler to subscribe: a [`Handler`], or a closure that takes a payload and its [`Delivery`] and
/// returns a future.
///
/// `Marker` distinguishes the two and is always inferred.
pub trait IntoHandler<Marker> {
    /// Converts to the object-safe form.
    fn into_handler(self) -> Arc<dyn RawHandler>;
}

/// The outcome of a handler that was cancelled and has not said how its delivery ends. The runtime
/// gives a delivery back that was cancelled and asks for a retry.
fn without_a_word() -> Outcome {
    Outcome::retry("the handler was cancelled and did not say how the delivery ends")
}

/// What a handler's value means, given whether its delivery was cancelled meanwhile.
fn outcome_of(value: impl IntoOutcome, delivery: &Delivery) -> Outcome {
    if delivery.is_cancelled() && value.is_implied_ack() {
        return without_a_word();
    }
    value.into_outcome()
}

#[derive(Debug)]
struct Named<H>(H);

impl<H: Handler> RawHandler for Named<H> {
    fn name(&self) -> &str {
        std::any::type_name::<H>()
    }

    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Result<Outcome, Error>> {
        Box::pin(async move {
            let message = delivery.envelope().payload()?;
            let value = self.0.handle(message, delivery.clone()).await;
            Ok(outcome_of(value, &delivery))
        })
    }
}

impl<H: Handler> IntoHandler<()> for H {
    fn into_handler(self) -> Arc<dyn RawHandler> {
        Arc::new(Named(self))
    }
}

struct Closure<F, T> {
    function: F,
    message: PhantomData<fn(T)>,
}

impl<F, T, Fut> RawHandler for Closure<F, T>
where
    F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    Fut: Future + Send,
    Fut::Output: IntoOutcome,
{
    fn name(&self) -> &str {
        std::any::type_name::<F>()
    }

    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Result<Outcome, Error>> {
        Box::pin(async move {
            let message = delivery.envelope().payload()?;
            let value = (self.function)(message, delivery.clone()).await;
            Ok(outcome_of(value, &delivery))
        })
    }
}

impl<F, T, Fut> IntoHandler<fn(T)> for F
where
    F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    Fut: Future + Send,
    Fut::Output: IntoOutcome,
{
    fn into_handler(self) -> Arc<dyn RawHandler> {
        Arc::new(Closure {
            function: self,
            message: PhantomData,
        })
    }
}

/// Decodes one payload of a batch. `Err` holds the result of a message whose payload does not decode,
/// or whose decoding panics: neither may cost the other messages of the batch.
fn payload<T: DeserializeOwned>(delivery: &Delivery) -> Result<T, Result<Outcome, Error>> {
    let decoding = AssertUnwindSafe(|| delivery.envelope().payload());
    match catch_unwind(decoding) {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(error)) => Err(Err(error)),
        Err(panic) => Err(Ok(Outcome::retry(panic_text(panic)))),
    }
}

struct BatchClosure<F, T> {
    function: F,
    message: PhantomData<fn(T)>,
}

impl<F, T, Fut> RawBatchHandler for BatchClosure<F, T>
where
    F: Fn(Vec<(T, Delivery)>) -> Fut + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    Fut: Future + Send,
    Fut::Output: IntoOutcomes,
{
    fn name(&self) -> &str {
        std::any::type_name::<F>()
    }

    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Result<Outcome, Error>>> {
        Box::pin(async move {
            let mut messages = Vec::with_capacity(batch.len());
            let mut handled = Vec::with_capacity(batch.len());
            // The result of each message that the function is not called with.
            let unread: Vec<Option<Result<Outcome, Error>>> = batch
                .into_iter()
                .map(|delivery| match payload(&delivery) {
                    Ok(message) => {
                        handled.push(delivery.clone());
                        messages.push((message, delivery));
                        None
                    }
                    Err(result) => Some(result),
                })
                .collect();
            let count = messages.len();
            // The function's panic must not retry the messages that do not decode.
            let call = async {
                if count == 0 {
                    return Vec::new();
                }
                let value = (self.function)(messages).await;
                let silent: Vec<bool> = (0..count)
                    .map(|at| handled[at].is_cancelled() && value.is_implied_ack_at(at))
                    .collect();
                let outcomes = value.into_outcomes(count).into_iter();
                let outcomes = outcomes.zip(silent.into_iter().chain(repeat(false)));
                outcomes
                    .map(|(outcome, silent)| if silent { without_a_word() } else { outcome })
                    .collect()
            };
            let outcomes = AssertUnwindSafe(call).catch_unwind().await;
            let panicked =
                |panic: Box<dyn Any + Send>| Outcome::retry(panic_text(panic)).into_outcomes(count);
            let mut outcomes = outcomes.unwrap_or_else(panicked).into_iter();
            let missing = || Outcome::retry("no outcome");
            let result = |unread: Option<Result<Outcome, Error>>| match unread {
                Some(result) => result,
                None => Ok(outcomes.next().unwrap_or_else(missing)),
            };
            unread.into_iter().map(result).collect()
        })
    }
}

/// Converts a batch closure to the object-safe form.
pub(crate) fn batch_handler<F, T, Fut>(function: F) -> Arc<dyn RawBatchHandler>
where
    F: Fn(Vec<(T, Delivery)>) -> Fut + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    Fut: Future + Send,
    Fut::Output: IntoOutcomes,
{
    let message = PhantomData;
    Arc::new(BatchClosure { function, message })
}
