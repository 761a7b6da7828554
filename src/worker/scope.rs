//! Marks the code that a handler runs, so that a shutdown does not wait for its own caller.

use std::sync::Arc;

use crate::bus::Publishing;

tokio::task_local! {
    /// The address of the publish pipeline of the handler's container, which outlives the call. It
    /// costs a call nothing, and each container has one.
    static CONTAINER: usize;
}

/// Runs the future of a handler of a container.
pub(crate) fn of_handler<F: Future>(
    container: &Arc<Publishing>,
    handling: F,
) -> impl Future<Output = F::Output> + use<F> {
    CONTAINER.scope(address(container), handling)
}

/// Whether a handler of this container is the caller. A task that a handler has spawned does not
/// count.
pub(crate) fn is_handler_of(container: &Arc<Publishing>) -> bool {
    CONTAINER.try_with(|caller| *caller == address(container)) == Ok(true)
}

fn address(container: &Arc<Publishing>) -> usize {
    Arc::as_ptr(container).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SubscribeOptions;
    use crate::worker::fixture::Fixture;

    #[tokio::test]
    async fn only_the_future_of_a_handler_is_marked_and_for_its_container_only() {
        let fixture = Fixture::new().await;
        let container = || {
            let (core, _) = fixture.core(SubscribeOptions::new());
            Arc::clone(&core.effects.publishing)
        };
        let (one, other) = (container(), container());
        assert!(!is_handler_of(&one));
        let within = async { (is_handler_of(&one), is_handler_of(&other)) };
        assert_eq!(of_handler(&one, within).await, (true, false));
        let task = Arc::clone(&one);
        let spawned = async { tokio::spawn(async move { is_handler_of(&task) }).await };
        assert!(!of_handler(&one, spawned).await.unwrap());
    }
}
