//! The user's code.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;

use crate::api::delivery::Delivery;
use crate::api::options::SubscribeOptions;
use crate::domain::BoxFuture;
use crate::domain::{Error, IntoOutcome, IntoOutcomes, Outcome};

/// A handler with a name and state of its own; a closure does where neither is needed.
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
///     type Outcome = Result<(), std::io::Error>;
///
///     async fn handle(&self, cents: u64, delivery: Delivery) -> Self::Outcome {
///         println!("{} {cents}, attempt {}", self.currency, delivery.attempt());
///         Ok(())
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// What the payload is decoded to. A payload that is none goes to the dead letters as
    /// `undecodable`, without being tried again.
    type Message: DeserializeOwned + Send;

    /// What [`handle`](Self::handle) returns: `()`, an [`Outcome`], or a `Result` of either.
    type Outcome: IntoOutcome;

    /// Handles one delivery. An error means: try again by the retry policy. So does a panic.
    ///
    /// The future is dropped when a shutdown has passed its deadline.
    fn handle(
        &self,
        message: Self::Message,
        delivery: Delivery,
    ) -> impl Future<Output = Self::Outcome> + Send;
}

/// A handler as the runtime calls it: object-safe, the payload still encoded.
pub trait RawHandler: Send + Sync + 'static {
    /// What dead letters and traces call it.
    fn name(&self) -> &str;

    /// Handles one delivery. An error says that the payload cannot be understood, by this
    /// attempt or any other.
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Result<Outcome, Error>>;
}

/// A batch handler as the runtime calls it: object-safe, the payloads still encoded.
pub trait RawBatchHandler: Send + Sync + 'static {
    /// What dead letters and traces call it.
    fn name(&self) -> &str;

    /// Handles a batch, which is never empty. What becomes of each, in their order; an error says that
    /// the payload cannot be understood, by this attempt or any other.
    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Result<Outcome, Error>>>;
}

/// What a subscription calls.
pub(crate) enum Work {
    /// With each delivery.
    Each(Arc<dyn RawHandler>),
    /// With many at once.
    Batches(Arc<dyn RawBatchHandler>),
}

impl Work {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Each(handler) => handler.name(),
            Self::Batches(handler) => handler.name(),
        }
    }

    /// How many deliveries one call takes at most.
    pub(crate) fn most_at_once(&self, options: &SubscribeOptions) -> usize {
        match self {
            Self::Each(_) => 1,
            Self::Batches(_) => options.batch.0,
        }
    }
}

/// What can be subscribed: a [`Handler`], or a closure from a payload and its [`Delivery`] to
/// a future.
///
/// `Marker` tells the two apart and is always inferred.
pub trait IntoHandler<Marker> {
    /// The handler as the runtime calls it.
    fn into_handler(self) -> Arc<dyn RawHandler>;
}

/// What a panic said, as an error text.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("the handler panicked: {text}"),
        None => "the handler panicked".to_owned(),
    }
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
            Ok(self.0.handle(message, delivery).await.into_outcome())
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
            Ok((self.function)(message, delivery).await.into_outcome())
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
            let flaws: Vec<Option<Error>> = batch
                .into_iter()
                .map(|delivery| match delivery.envelope().payload() {
                    Ok(message) => {
                        messages.push((message, delivery));
                        None
                    }
                    Err(flaw) => Some(flaw),
                })
                .collect();
            let count = messages.len();
            // A panic is no reason to try again what cannot be understood.
            let call = async {
                match count {
                    0 => Vec::new(),
                    _ => (self.function)(messages).await.into_outcomes(count),
                }
            };
            let outcomes = AssertUnwindSafe(call).catch_unwind().await;
            let panicked = |panic: Box<dyn Any + Send>| {
                Outcome::retry(panic_text(&*panic)).into_outcomes(count)
            };
            let mut outcomes = outcomes.unwrap_or_else(panicked).into_iter();
            let missing = || Outcome::retry("no outcome");
            let result = |flaw: Option<Error>| match flaw {
                Some(flaw) => Err(flaw),
                None => Ok(outcomes.next().unwrap_or_else(missing)),
            };
            flaws.into_iter().map(result).collect()
        })
    }
}

/// A closure from a batch as the runtime calls it.
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
