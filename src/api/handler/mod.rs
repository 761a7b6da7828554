//! Handlers: the user's code, its arguments, and its object-safe form.

pub(crate) mod argument;
pub(crate) mod call;
pub(crate) mod extract;
pub(crate) mod message;
pub(crate) mod port;

pub use argument::{Argument, Arguments};
pub use call::{Call, Handler, Routed, Unrouted};
pub use extract::{
    Attempt, Correlation, FromDelivery, FromRef, Headers, Key, OptionalFromDelivery, Payload,
    State, Tenant,
};
pub use message::Message;
pub use port::{RawBatchHandler, RawHandler};
pub(crate) use port::{RouteSettings, Work};
