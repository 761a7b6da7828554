//! The state of one delivery's lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::ownership::Tenure;
use crate::store::Attempts;

/// The state of one delivery's lease. The in-flight table, the worker and the handler share it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Tells this hand-out of the entry from every other one in this process.
    token: u64,
    /// The attempts at the entry before this one.
    before: Attempts,
    /// Another hand-out of the entry, or another attempt at it, came before.
    taken_over: bool,
    /// A time before the store began the lease.
    since: Instant,
    /// The store may end the lease early: a call may still release it.
    may_end_early: bool,
    /// The store lost its record of the delivery, and no other consumer can get the message.
    only_copy: AtomicBool,
    /// The store has a mark of this hand-out's attempt.
    marked: AtomicBool,
    /// The handler was called.
    begun: AtomicBool,
    /// The handler has returned.
    returned: AtomicBool,
    /// How the delivery ends is decided; only the store does not know yet.
    finished: AtomicBool,
    /// Another consumer holds the delivery.
    lost: AtomicBool,
    /// The same, of a finished delivery: its ending is sent all the same.
    expired: AtomicBool,
    /// The result will be discarded.
    cancelled: AtomicBool,
    /// The handler was dropped at its time limit.
    timed_out: AtomicBool,
    /// Set in an owned group: nothing begins after it has ended.
    tenure: OnceLock<Arc<Tenure>>,
    notify: Notify,
}

impl Lease {
    pub(crate) fn new(
        token: u64,
        before: impl Into<Attempts>,
        taken_over: bool,
        since: Instant,
    ) -> Self {
        Self {
            token,
            before: before.into(),
            taken_over,
            since,
            may_end_early: false,
            only_copy: AtomicBool::default(),
            marked: AtomicBool::default(),
            begun: AtomicBool::default(),
            returned: AtomicBool::default(),
            finished: AtomicBool::default(),
            lost: AtomicBool::default(),
            expired: AtomicBool::default(),
            cancelled: AtomicBool::default(),
            timed_out: AtomicBool::default(),
            tenure: OnceLock::new(),
            notify: Notify::default(),
        }
    }

    /// The attempts at the entry before this one.
    pub(crate) fn before(&self) -> Attempts {
        self.before
    }

    pub(crate) fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Says whether the store may end the lease early.
    pub(crate) fn with_early_end(mut self, may_end_early: bool) -> Self {
        self.may_end_early = may_end_early;
        self
    }

    pub(crate) fn may_end_early(&self) -> bool {
        self.may_end_early
    }

    /// A time before the store began the lease.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Something other than Redstart removed the store's record of the delivery: the message goes on
    /// from memory.
    pub(crate) fn keep_only_copy(&self) {
        self.only_copy.store(true, Ordering::Release);
    }

    pub(crate) fn is_only_copy(&self) -> bool {
        self.only_copy.load(Ordering::Acquire)
    }

    pub(crate) fn mark(&self) {
        self.marked.store(true, Ordering::Release);
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::Acquire)
    }

    /// Whether the next claim of the entry counts this hand-out as a begun attempt.
    pub(crate) fn counts(&self) -> bool {
        !self.taken_over || self.marked.load(Ordering::Acquire)
    }

    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    /// The handler runs again, because the store did not take its result.
    pub(crate) fn resume(&self) {
        self.returned.store(false, Ordering::Release);
        self.finished.store(false, Ordering::Release);
        // Another consumer has the message by now.
        if self.expired.load(Ordering::Acquire) {
            self.lose();
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    pub(crate) fn end_call(&self) {
        self.returned.store(true, Ordering::Release);
    }

    pub(crate) fn note_timeout(&self) {
        self.timed_out.store(true, Ordering::Release);
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Acquire)
    }

    /// Whether the handler was called.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether the handler was called and has not returned.
    pub(crate) fn is_running(&self) -> bool {
        self.is_begun() && !self.returned.load(Ordering::Acquire)
    }

    /// Another consumer holds the delivery: notifies the handler.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.cancel();
    }

    pub(crate) fn expire(&self) {
        self.expired.store(true, Ordering::Release);
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.is_over()
    }

    /// Ties the delivery to the time in which this process owns its partition.
    pub(crate) fn bind(&self, tenure: Arc<Tenure>) {
        let _ = self.tenure.set(tenure);
    }

    pub(crate) fn tenure(&self) -> Option<&Tenure> {
        self.tenure.get().map(|tenure| &**tenure)
    }

    /// Whether this process has lost the partition of the delivery since it got the delivery. It may own the
    /// partition again.
    pub(crate) fn is_over(&self) -> bool {
        self.tenure().is_some_and(Tenure::is_over)
    }

    pub(crate) async fn cancelled(&self) {
        // Created before the check, so that it also completes for a cancellation after it.
        let notified = self.notify.notified();
        if !self.is_cancelled() {
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancellation_reaches_every_waiter_and_later_ones() {
        let lease = Arc::new(Lease::new(1, 0, false, Instant::now()));
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
