//! Components that live as long as the container.

use std::error::Error as StdError;

use super::Container;
use crate::api::Subscription;
use crate::domain::BoxFuture;

/// A named component that subscribes when the container starts and stops when it shuts down.
///
/// The container starts coordinators in the order in which the builder received them, and stops
/// them in reverse. The example `coordinator` shows one.
pub trait Coordinator: Send + Sync + 'static {
    /// Its name in errors and logs.
    fn name(&self) -> &str;

    /// Starts the component and returns its subscriptions. The container ends them before it calls
    /// [`stop`](Self::stop).
    fn start<'a>(
        &'a self,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, Box<dyn StdError + Send + Sync>>>;

    /// Stops everything else that the component has started; by default nothing.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
