//! Extractors: the parts of a delivery that a handler takes as arguments.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;

use serde::de::DeserializeOwned;

use crate::api::delivery::Delivery;
use crate::domain::{Envelope, IntoOutcome, Outcome, Reason};

/// A part of an application's state, which handlers take as [`State`].
///
/// # Example
///
/// ```
/// use redstart::extract::FromRef;
///
/// #[derive(Clone)]
/// struct Pool;
///
/// struct App {
///     pool: Pool,
/// }
///
/// impl FromRef<App> for Pool {
///     fn from_ref(app: &App) -> Self {
///         app.pool.clone()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the router's state `{S}` holds no `{Self}`",
    label = "`State<{Self}>` cannot be taken from `{S}`",
    note = "`impl FromRef<{S}> for {Self}`, or begin with `Router::with_state(…)`"
)]
pub trait FromRef<S> {
    /// Takes the part out of the state.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> T {
        state.clone()
    }
}

/// An argument of a handler that is taken from the delivery, before the handler is called.
///
/// # Example
///
/// ```
/// use redstart::extract::FromDelivery;
/// use redstart::{Delivery, Outcome};
///
/// struct Author(String);
///
/// impl<S: Sync> FromDelivery<S> for Author {
///     type Rejection = Outcome;
///
///     async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Outcome> {
///         let author = delivery.envelope().headers().get("author");
///         let missing = || Outcome::dead_letter("no header `author`");
///         author.cloned().map(Author).ok_or_else(missing)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from a delivery",
    label = "not an extractor"
)]
pub trait FromDelivery<S>: Sized {
    /// How the delivery ends if the argument cannot be taken. The handler is not called.
    type Rejection: IntoOutcome;

    /// Takes the argument.
    fn from_delivery(
        delivery: &Delivery,
        state: &S,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send;
}

/// An argument that a delivery may lack. `Option` of it is an argument too.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is never absent from a delivery",
    label = "`Option<{Self}>` is not an extractor",
    note = "take `{Self}` by itself, or `Result<{Self}, _>` to handle the rejection"
)]
pub trait OptionalFromDelivery<S>: Sized {
    /// How the delivery ends if the argument is there and cannot be taken.
    type Rejection: IntoOutcome;

    /// Takes the argument; `None` if it is absent.
    fn optional_from_delivery(
        delivery: &Delivery,
        state: &S,
    ) -> impl Future<Output = Result<Option<Self>, Self::Rejection>> + Send;
}

/// The state of the [router](crate::Router::with_state), or a [part](FromRef) of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct State<T>(pub T);

impl<S: Sync, T: FromRef<S> + Send> FromDelivery<S> for State<T> {
    type Rejection = Infallible;

    async fn from_delivery(_: &Delivery, state: &S) -> Result<Self, Infallible> {
        Ok(Self(T::from_ref(state)))
    }
}

impl<S: Sync> FromDelivery<S> for Delivery {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Infallible> {
        Ok(delivery.clone())
    }
}

impl<S: Sync> FromDelivery<S> for Envelope {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Infallible> {
        Ok(delivery.envelope().clone())
    }
}

/// The payload, decoded as a `T` whatever type the message has.
///
/// A handler that takes a [`Message`](crate::Message) gets the messages of that type only. With
/// `Payload` it gets every message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Payload<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Send> FromDelivery<S> for Payload<T> {
    type Rejection = Outcome;

    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Outcome> {
        decode(delivery).map(Self)
    }
}

/// Decodes the payload.
pub(crate) fn decode<T: DeserializeOwned>(delivery: &Delivery) -> Result<T, Outcome> {
    let undecodable = |error| Outcome::dead_letter_as(Reason::Undecodable, error);
    delivery.envelope().payload().map_err(undecodable)
}

/// The number of this attempt, from 1; see [`Delivery::attempt`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attempt(pub u32);

impl<S: Sync> FromDelivery<S> for Attempt {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Infallible> {
        Ok(Self(delivery.attempt()))
    }
}

/// All headers of the message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Headers(pub BTreeMap<String, String>);

impl<S: Sync> FromDelivery<S> for Headers {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Infallible> {
        Ok(Self(delivery.envelope().headers().clone()))
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $method:ident, $what:literal) => {
        $(#[$doc])*
        #[doc = concat!("A message without one goes to the dead letters; take `Option<", stringify!($name), ">` to handle it.")]
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $name(pub String);

        impl<S: Sync> FromDelivery<S> for $name {
            type Rejection = Outcome;

            async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Outcome> {
                let missing = || Outcome::dead_letter(concat!("the message has no ", $what));
                let text = delivery.envelope().$method();
                text.map(|text| Self(text.to_owned())).ok_or_else(missing)
            }
        }

        impl<S: Sync> OptionalFromDelivery<S> for $name {
            type Rejection = Infallible;

            async fn optional_from_delivery(
                delivery: &Delivery,
                _: &S,
            ) -> Result<Option<Self>, Infallible> {
                let text = delivery.envelope().$method();
                Ok(text.map(|text| Self(text.to_owned())))
            }
        }
    };
}

text!(
    /// The message's [tenant](Envelope::tenant).
    Tenant, tenant, "tenant"
);
text!(
    /// The message's [correlation id](Envelope::correlation).
    Correlation, correlation, "correlation id"
);
text!(
    /// The message's [ordering key](Envelope::key).
    Key, key, "ordering key"
);

#[diagnostic::do_not_recommend]
impl<S: Sync, T: OptionalFromDelivery<S>> FromDelivery<S> for Option<T> {
    type Rejection = T::Rejection;

    async fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, T::Rejection> {
        T::optional_from_delivery(delivery, state).await
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync, T: FromDelivery<S>> FromDelivery<S> for Result<T, T::Rejection> {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, Infallible> {
        Ok(T::from_delivery(delivery, state).await)
    }
}
