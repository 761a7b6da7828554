//! The boxed future that object-safe traits return.

use std::future::Future;
use std::pin::Pin;

/// A boxed `Send` future, as the object-safe traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
