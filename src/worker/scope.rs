//! Marks the code that a handler runs, so that a shutdown does not wait for its own caller.

tokio::task_local! {
    static HANDLER: ();
}

/// Runs the future of a handler.
pub(crate) fn of_handler<F: Future>(handling: F) -> impl Future<Output = F::Output> {
    HANDLER.scope((), handling)
}

/// Whether a handler is the caller. A task that a handler has spawned does not count.
pub(crate) fn is_handler() -> bool {
    HANDLER.try_with(|()| ()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_future_of_a_handler_is_marked() {
        assert!(!is_handler());
        assert!(of_handler(async { is_handler() }).await);
        let spawned = of_handler(async { tokio::spawn(async { is_handler() }).await });
        assert!(!spawned.await.unwrap());
    }
}
