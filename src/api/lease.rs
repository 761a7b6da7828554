//! The state of one delivery's lease.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The state of one delivery's lease, shared by the table, the worker and the user's code.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The handler was called.
    begun: AtomicBool,
    /// The handler has returned; only the store does not know yet.
    finished: AtomicBool,
    /// Another consumer holds the delivery.
    lost: AtomicBool,
    /// The handler's result is no longer wanted.
    cancelled: AtomicBool,
    told: Notify,
}

impl Lease {
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Whether the handler was called and has not returned.
    pub(crate) fn is_running(&self) -> bool {
        self.begun.load(Ordering::Acquire) && !self.is_finished()
    }

    /// Another consumer holds the delivery: the handler is told.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.cancel();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) async fn cancelled(&self) {
        // Made before the look, so that it is told of what happens after it.
        let told = self.told.notified();
        if !self.is_cancelled() {
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_told_and_who_comes_later_too() {
        let lease = Arc::new(Lease::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let lease = Arc::clone(&lease);
                tokio::spawn(async move { lease.cancelled().await })
            })
            .collect();
        tokio::task::yield_now().await;
        lease.cancel();
        for one in waiting {
            one.await.unwrap();
        }
        lease.cancelled().await;
    }
}
