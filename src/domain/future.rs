//! The boxed future that object-safe traits return.

use std::future::Future;
use std::pin::Pin;

/// The boxed `Send` future of the object-safe traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
