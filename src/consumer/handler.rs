//! The user's code.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::delivery::Delivery;
use crate::domain::{Error, IntoOutcome, Outcome};
use crate::ports::BoxFuture;

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

/// What can be subscribed: a [`Handler`], or a closure from a payload and its [`Delivery`] to
/// a future.
///
/// `Marker` tells the two apart and is always inferred.
pub trait IntoHandler<Marker> {
    /// The handler as the runtime calls it.
    fn into_handler(self) -> Arc<dyn RawHandler>;
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
