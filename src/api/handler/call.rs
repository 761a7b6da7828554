//! The handlers that can be called: functions, [`Handler`]s, and a fixed outcome.

use std::any::type_name;
use std::future::{Future, Ready, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Sleep;

use super::argument::{Arguments, ViaDelivery, ViaMessage, each_number_of_arguments};
use super::extract::decode;
use super::message::Message;
use crate::api::delivery::Delivery;
use crate::domain::{BoxFuture, IntoOutcome, Outcome};

/// A handler with a name and state of its own. Without either, a function is enough.
///
/// `Arc<H>` of a handler is a handler too, so one handler can serve two topics.
///
/// # Example
///
/// ```
/// use redstart::{Delivery, Handler, Message};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Placed {
///     cents: u64,
/// }
///
/// impl Message for Placed {
///     const TYPE: &'static str = "order.placed";
/// }
///
/// struct Billing {
///     currency: &'static str,
/// }
///
/// impl Handler for Billing {
///     type Message = Placed;
///     type Output = Result<(), std::io::Error>;
///
///     async fn handle(&self, order: Placed, delivery: Delivery) -> Self::Output {
///         println!("{} {}, attempt {}", self.currency, order.cents, delivery.attempt());
///         Ok(())
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// The message that it handles. A payload that does not decode goes to the dead letters as
    /// `undecodable` at its first attempt, unless
    /// [`with_undecodable_retry`](crate::SubscribeOptions::with_undecodable_retry) says otherwise.
    type Message: Message + DeserializeOwned;

    /// The type that [`handle`](Self::handle) returns: `()`, an [`Outcome`], or a `Result` of either.
    type Output: IntoOutcome;

    /// Handles one delivery. After an error or a panic the message is tried again by the retry policy.
    ///
    /// After the delivery was [cancelled](Delivery::cancelled) only an outcome that the handler
    /// names ends it: [`Outcome::Ack`], [`Outcome::Snooze`] or [`Outcome::DeadLetter`]. After `()`,
    /// `Ok(())`, an error, a panic or [`Outcome::Retry`] the shutdown releases the message, and no
    /// attempt counts.
    ///
    /// A shutdown drops the future after its grace, and a
    /// [time limit](crate::SubscribeOptions::with_handler_timeout) when it has passed.
    fn handle(
        &self,
        message: Self::Message,
        delivery: Delivery,
    ) -> impl Future<Output = Self::Output> + Send;
}

impl<H: Handler> Handler for Arc<H> {
    type Message = H::Message;
    type Output = H::Output;

    fn handle(
        &self,
        message: H::Message,
        delivery: Delivery,
    ) -> impl Future<Output = H::Output> + Send {
        H::handle(self, message, delivery)
    }
}

/// The time limit of a call has passed.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct TimedOut(pub(crate) Duration);

/// A handler that can be called with arguments: a function, a closure, a [`Handler`], an
/// [`Outcome`].
pub trait Call<Args> {
    /// The type of the value that a call returns.
    type Output;

    /// The future of a function. It must be `Send`; the compiler names the reason if it is not.
    type Future: Future<Output = Self::Output>;

    /// The handler's own name, if it has one.
    #[doc(hidden)]
    fn name() -> Option<&'static str> {
        None
    }

    /// Waits for the arguments, calls the handler, and ends with its value: all in one allocation.
    #[doc(hidden)]
    fn call<'a, R: Send + 'a>(
        &'a self,
        args: impl Future<Output = Result<Args, R>> + Send + 'a,
        limit: Option<Duration>,
        end: impl FnOnce(Result<Self::Output, TimedOut>) -> R + Send + 'a,
    ) -> BoxFuture<'a, R>
    where
        Self: Sync,
        Self::Future: Send,
        Args: 'a;
}

/// Runs a future within a limit; drops it when the limit has passed.
async fn within<T>(
    limit: Option<Duration>,
    mut future: Pin<&mut (impl Future<Output = T> + ?Sized)>,
) -> Result<T, TimedOut> {
    let Some(limit) = limit else {
        return Ok(future.await);
    };
    // A handler that never waits needs no timer.
    let mut sleep: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        let timer = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(TimedOut(limit)));
        }
        Poll::Pending
    })
    .await
}

/// The name of a function or a struct, out of the name of its type. A closure and a function pointer
/// have none.
fn own_name(mut name: &'static str) -> Option<&'static str> {
    while let Some(inner) = name.strip_prefix("alloc::sync::Arc<") {
        name = inner.strip_suffix('>')?;
    }
    // A function inside a function or a closure.
    let name = name.rsplit("{{closure}}::").next()?;
    let is_name = !name.ends_with("{{closure}}") && !name.contains([' ', '(']);
    is_name.then_some(name)
}

/// The message that a handler takes, if it takes one.
#[diagnostic::on_unimplemented(
    message = "this handler takes more than one message",
    label = "a delivery brings one message",
    note = "make the other arguments extractors, or write a handler for each type and add both with `Router::on`"
)]
#[doc(hidden)]
pub trait AtMostOneMessage<Args> {
    /// The type of the messages that the handler takes; `None`: of any type.
    const TYPE: Option<&'static str>;
}

/// The handler takes no message.
#[doc(hidden)]
pub trait NoMessage<Args> {}

/// The arguments of a handler for all other types.
///
/// One step away from `NoMessage`: the compiler infers the kind of each argument first.
#[diagnostic::on_unimplemented(
    message = "the handler of all other types cannot take a message",
    label = "a message has one type",
    note = "take `Delivery`, `Envelope` or `Payload<T>` instead, or add the handler with `Router::on`"
)]
pub trait Unrouted<Args> {}

#[diagnostic::do_not_recommend]
impl<Args, Via: NoMessage<Args>> Unrouted<Args> for Via {}

/// The one message that a handler of a route takes.
#[doc(hidden)]
pub trait OneMessage<Args> {
    type Message: Message;
}

/// The message of a route's handler.
///
/// One step away from `OneMessage`: the compiler infers the kind of each argument first.
#[diagnostic::on_unimplemented(
    message = "this handler takes no message, so the router cannot tell which type it is for",
    label = "no argument of this handler implements `Message`",
    note = "the handler of a route takes exactly one message; handle all other types with `.otherwise(handler)`"
)]
pub trait Routed<Args> {
    /// The message.
    type Message: Message;
}

#[diagnostic::do_not_recommend]
impl<Args, Via: OneMessage<Args>> Routed<Args> for Via {
    type Message = Via::Message;
}

macro_rules! via_delivery {
    ($argument:ident) => {
        ViaDelivery
    };
}

/// No argument is the message.
macro_rules! without_message {
    ($($argument:ident)*) => {
        #[diagnostic::do_not_recommend]
        impl<$($argument,)*> AtMostOneMessage<($($argument,)*)> for ($(via_delivery!($argument),)*) {
            const TYPE: Option<&'static str> = None;
        }

        #[diagnostic::do_not_recommend]
        impl<$($argument,)*> NoMessage<($($argument,)*)> for ($(via_delivery!($argument),)*) {}
    };
}

/// One argument is the message: each in turn.
macro_rules! with_message {
    ([$($before:ident)*]) => {};
    ([$($before:ident)*] $this:ident $($after:ident)*) => {
        #[diagnostic::do_not_recommend]
        impl<$($before,)* $this: Message, $($after,)*> AtMostOneMessage<($($before,)* $this, $($after,)*)>
            for ($(via_delivery!($before),)* ViaMessage, $(via_delivery!($after),)*)
        {
            const TYPE: Option<&'static str> = Some($this::TYPE);
        }

        #[diagnostic::do_not_recommend]
        impl<$($before,)* $this: Message, $($after,)*> OneMessage<($($before,)* $this, $($after,)*)>
            for ($(via_delivery!($before),)* ViaMessage, $(via_delivery!($after),)*)
        {
            type Message = $this;
        }

        with_message!([$($before)* $this] $($after)*);
    };
}

macro_rules! functions {
    ($($argument:ident $via:ident),*) => {
        #[diagnostic::do_not_recommend]
        #[allow(non_snake_case)]
        impl<Function, Fut, $($argument,)*> Call<($($argument,)*)> for Function
        where
            Function: Fn($($argument),*) -> Fut,
            Fut: Future,
        {
            type Output = Fut::Output;
            type Future = Fut;

            fn name() -> Option<&'static str> {
                own_name(type_name::<Function>())
            }

            fn call<'a, R: Send + 'a>(
                &'a self,
                args: impl Future<Output = Result<($($argument,)*), R>> + Send + 'a,
                limit: Option<Duration>,
                end: impl FnOnce(Result<Fut::Output, TimedOut>) -> R + Send + 'a,
            ) -> BoxFuture<'a, R>
            where
                Self: Sync,
                Fut: Send,
                ($($argument,)*): 'a,
            {
                Box::pin(async move {
                    let calling = pin!(async move {
                        let ($($argument,)*) = args.await?;
                        Ok(self($($argument),*).await)
                    });
                    match within(limit, calling).await {
                        Ok(Ok(value)) => end(Ok(value)),
                        Ok(Err(rejection)) => rejection,
                        Err(timed_out) => end(Err(timed_out)),
                    }
                })
            }
        }

        without_message!($($argument)*);
        with_message!([] $($argument)*);
    };
}
each_number_of_arguments!(functions);

/// The arguments of a [`Handler`].
#[derive(Debug)]
#[doc(hidden)]
pub struct OfHandler<T>(T, Delivery);

/// Marks the arguments of a [`Handler`].
#[derive(Debug)]
#[doc(hidden)]
pub enum ViaHandler {}

#[diagnostic::do_not_recommend]
impl<H: Handler> Call<OfHandler<H::Message>> for H {
    type Output = H::Output;
    // A `Handler` promises that its future is `Send`; this one is never made.
    type Future = BoxFuture<'static, H::Output>;

    fn name() -> Option<&'static str> {
        own_name(type_name::<H>())
    }

    fn call<'a, R: Send + 'a>(
        &'a self,
        args: impl Future<Output = Result<OfHandler<H::Message>, R>> + Send + 'a,
        limit: Option<Duration>,
        end: impl FnOnce(Result<H::Output, TimedOut>) -> R + Send + 'a,
    ) -> BoxFuture<'a, R>
    where
        Self: Sync,
        Self::Future: Send,
        OfHandler<H::Message>: 'a,
    {
        Box::pin(async move {
            let calling = pin!(async move {
                let OfHandler(message, delivery) = args.await?;
                Ok(self.handle(message, delivery).await)
            });
            match within(limit, calling).await {
                Ok(Ok(value)) => end(Ok(value)),
                Ok(Err(rejection)) => rejection,
                Err(timed_out) => end(Err(timed_out)),
            }
        })
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync, T: Message + DeserializeOwned> Arguments<S, ViaHandler> for OfHandler<T> {
    async fn arguments(delivery: &Delivery, _: &S) -> Result<Self, Outcome> {
        Ok(Self(decode(delivery)?, delivery.clone()))
    }
}

#[diagnostic::do_not_recommend]
impl<T: Message> AtMostOneMessage<OfHandler<T>> for ViaHandler {
    const TYPE: Option<&'static str> = Some(T::TYPE);
}

#[diagnostic::do_not_recommend]
impl<T: Message> OneMessage<OfHandler<T>> for ViaHandler {
    type Message = T;
}

/// The arguments of an [`Outcome`] as a handler: none.
#[derive(Debug)]
#[doc(hidden)]
pub struct Fixed;

#[diagnostic::do_not_recommend]
impl Call<Fixed> for Outcome {
    type Output = Self;
    type Future = Ready<Self>;

    fn call<'a, R: Send + 'a>(
        &'a self,
        _: impl Future<Output = Result<Fixed, R>> + Send + 'a,
        _: Option<Duration>,
        end: impl FnOnce(Result<Self, TimedOut>) -> R + Send + 'a,
    ) -> BoxFuture<'a, R>
    where
        Self: Sync,
        Self::Future: Send,
    {
        Box::pin(std::future::ready(end(Ok(self.clone()))))
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync> Arguments<S, Fixed> for Fixed {
    async fn arguments(_: &Delivery, _: &S) -> Result<Self, Outcome> {
        Ok(Self)
    }
}

#[diagnostic::do_not_recommend]
impl AtMostOneMessage<Fixed> for Fixed {
    const TYPE: Option<&'static str> = None;
}

#[diagnostic::do_not_recommend]
impl NoMessage<Fixed> for Fixed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_structs_have_names_and_closures_have_none() {
        for (full, own) in [
            ("shop::bill", Some("shop::bill")),
            ("shop::main::{{closure}}::bill", Some("bill")),
            ("shop::main::{{closure}}", None),
            ("shop::main::{{closure}}::{{closure}}", None),
            ("fn(u32) -> core::future::ready::Ready<()>", None),
            ("alloc::sync::Arc<shop::Billing>", Some("shop::Billing")),
            ("shop::Sink<u32>", Some("shop::Sink<u32>")),
        ] {
            assert_eq!(own_name(full), own, "{full}");
        }
    }
}
