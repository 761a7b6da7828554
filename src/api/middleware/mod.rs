//! Middleware: code around handlers, and hooks around publishes.

mod batch;
mod hook;
mod into_middleware;
mod next;
#[cfg(feature = "tower")]
mod tower;

pub(crate) use batch::{Together, around_batch};
pub use hook::PublishHook;
pub(crate) use hook::PublishHooks;
pub use into_middleware::{IntoMiddleware, Middleware, MiddlewareOutcome};
pub use next::Next;
pub(crate) use next::{Chain, End, Layer};
#[cfg(feature = "tower")]
pub use tower::{HandlerService, Tower};
