//! Routers: several handlers in one subscription, each for a type of message.

mod batch;
mod builder;
#[cfg(feature = "schema")]
mod describe;
mod into_router;
mod layered;
mod options;
mod route;
mod table;

pub use batch::{Batch, BatchRouted, IntoBatchRoute};
pub use builder::Router;
pub use into_router::IntoRouter;
pub use options::RouteOptions;
pub use route::IntoRoute;
