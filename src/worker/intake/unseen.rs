//! Deliveries that the store has handed out and whose answer was lost.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether the store may have handed this consumer deliveries whose answer was lost. The fetcher
/// releases them between two reads.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    may_exist: AtomicBool,
    noted: Notify,
}

impl Unseen {
    /// Notes that there may be some.
    pub(crate) fn note(&self) {
        self.may_exist.store(true, Ordering::Release);
        self.noted.notify_one();
    }

    pub(crate) fn may_exist(&self) -> bool {
        self.may_exist.load(Ordering::Acquire)
    }

    /// Whether there may be some, of which nobody is told again.
    pub(crate) fn take(&self) -> bool {
        self.may_exist.swap(false, Ordering::AcqRel)
    }

    /// Waits until there may be some. Cancel safe.
    pub(crate) async fn noted(&self) {
        while !self.may_exist() {
            self.noted.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_note_before_the_wait_is_not_lost_and_is_taken_once() {
        let unseen = Unseen::default();
        assert_eq!(unseen.noted().now_or_never(), None);
        unseen.note();
        unseen.noted().await;
        assert!(unseen.take() && !unseen.take());
        assert_eq!(unseen.noted().now_or_never(), None, "an old permit");
    }
}
