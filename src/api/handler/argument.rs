//! The arguments of a handler, each found by its own rule.
//!
//! The conditions stand in nested traits with a text of their own, so that the compiler names the
//! argument that is wrong instead of the whole function.

use std::future::Future;

use serde::de::DeserializeOwned;

use super::extract::{FromDelivery, decode};
use super::message::Message;
use crate::api::delivery::Delivery;
use crate::domain::{IntoOutcome, Outcome};

/// Marks the argument that is the message. The compiler infers it.
#[derive(Debug)]
#[doc(hidden)]
pub enum ViaMessage {}

/// Marks an argument that is taken from the delivery. The compiler infers it.
#[derive(Debug)]
#[doc(hidden)]
pub enum ViaDelivery {}

/// One argument of a handler: a [`Message`] or an extractor, [`FromDelivery`].
#[diagnostic::on_unimplemented(
    message = "a handler cannot take `{Self}`",
    label = "`{Self}` is neither a message nor an extractor",
    note = "a message is taken by value, derives `serde::Deserialize` and has a type: `impl Message for {Self} {{ const TYPE: &'static str = \"order.placed\"; }}`",
    note = "extractors: `Delivery`, `Envelope`, `Payload<T>`, `Headers`, `Attempt`, `Tenant`, `Correlation`, `Key`, `Publisher`, `Option<…>` and `Result<…>` of them, and your own `FromDelivery` types",
    note = "a `Batch<T>` goes to a handler of `Router::on_batch`",
    note = "`State<T>` is taken from the router's state, here `{S}`: begin with `Router::with_state(state)`, where `T` is the state itself or `T: FromRef<State>`"
)]
pub trait Argument<S, Via>: Sized {
    #[doc(hidden)]
    fn argument(
        delivery: &Delivery,
        state: &S,
    ) -> impl Future<Output = Result<Self, Outcome>> + Send;
}

#[diagnostic::do_not_recommend]
impl<S: Sync, T: Message + DeserializeOwned> Argument<S, ViaMessage> for T {
    async fn argument(delivery: &Delivery, _: &S) -> Result<Self, Outcome> {
        decode(delivery)
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync, T: FromDelivery<S>> Argument<S, ViaDelivery> for T {
    async fn argument(delivery: &Delivery, state: &S) -> Result<Self, Outcome> {
        let taken = T::from_delivery(delivery, state).await;
        taken.map_err(IntoOutcome::into_outcome)
    }
}

/// The arguments of a handler: up to eight, in any order.
pub trait Arguments<S, Via>: Sized + Send {
    #[doc(hidden)]
    fn arguments(
        delivery: &Delivery,
        state: &S,
    ) -> impl Future<Output = Result<Self, Outcome>> + Send;
}

/// Calls a macro with the arguments of every number, each with its marker.
macro_rules! each_number_of_arguments {
    ($apply:ident) => {
        $apply!();
        $apply!(A1 V1);
        $apply!(A1 V1, A2 V2);
        $apply!(A1 V1, A2 V2, A3 V3);
        $apply!(A1 V1, A2 V2, A3 V3, A4 V4);
        $apply!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5);
        $apply!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5, A6 V6);
        $apply!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5, A6 V6, A7 V7);
        $apply!(A1 V1, A2 V2, A3 V3, A4 V4, A5 V5, A6 V6, A7 V7, A8 V8);
    };
}
pub(super) use each_number_of_arguments;

macro_rules! arguments {
    ($($argument:ident $via:ident),*) => {
        #[allow(non_snake_case, unused_variables, clippy::unused_unit)]
        impl<S: Sync, $($argument,)* $($via,)*> Arguments<S, ($($via,)*)> for ($($argument,)*)
        where
            $($argument: Argument<S, $via> + Send,)*
        {
            async fn arguments(delivery: &Delivery, state: &S) -> Result<Self, Outcome> {
                $(let $argument = $argument::argument(delivery, state).await?;)*
                Ok(($($argument,)*))
            }
        }
    };
}
each_number_of_arguments!(arguments);
