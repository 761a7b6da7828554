//! Components that live as long as the container.

use std::error::Error as StdError;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::Container;
use crate::api::Subscription;
use crate::domain::{BoxFuture, panic_text_of};

/// A named component that subscribes when the container starts and stops when it shuts down.
///
/// The container starts coordinators in the order in which the builder received them, and stops
/// them in reverse. It catches a panic: one in [`start`](Self::start) counts as an error, and one in
/// [`stop`](Self::stop) keeps no other coordinator from stopping. The example `coordinator` shows one.
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

/// Starts a coordinator. A panic is an error.
pub(super) async fn start(
    coordinator: &dyn Coordinator,
    container: &Container,
) -> Result<Vec<Subscription>, Box<dyn StdError + Send + Sync>> {
    // The call itself may panic too, before there is a future.
    let starting = AssertUnwindSafe(async { coordinator.start(container).await });
    let panicked = |panic| Err(panic_text_of("it", panic).into());
    starting.catch_unwind().await.unwrap_or_else(panicked)
}

/// Stops a coordinator. Returns how it failed.
pub(super) async fn stop(coordinator: &dyn Coordinator, limit: Duration) -> Option<String> {
    let stopping = AssertUnwindSafe(async { coordinator.stop().await });
    let failure = match tokio::time::timeout(limit, stopping.catch_unwind()).await {
        Ok(Ok(())) => return None,
        Ok(Err(panic)) => panic_text_of("it", panic),
        Err(_) => "it did not stop in time".to_owned(),
    };
    tracing::warn!(coordinator = coordinator.name(), failure, "failed to stop");
    Some(format!("coordinator {}: {failure}", coordinator.name()))
}
