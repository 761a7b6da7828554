//! Components that live as long as the container.

use std::error::Error as StdError;

use super::Container;
use crate::api::Subscription;
use crate::domain::BoxFuture;

/// A named component that subscribes when the container starts and is stopped when it shuts
/// down.
///
/// Coordinators are started in the order in which they were given and stopped in reverse.
pub trait Coordinator: Send + Sync + 'static {
    /// What errors and logs call it.
    fn name(&self) -> &str;

    /// Starts it. The subscriptions that it returns are its own: the container ends them
    /// before it calls [`stop`](Self::stop).
    fn start<'a>(
        &'a self,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, Box<dyn StdError + Send + Sync>>>;

    /// Stops what else it has started; by default nothing.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
