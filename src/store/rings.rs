//! A count that many tasks can wait on, and that costs its writer almost nothing while none waits.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts events, and wakes the tasks that wait for the next one.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    count: AtomicU64,
    waiting: AtomicUsize,
    rung: Notify,
}

impl Rings {
    /// Counts an event.
    pub(crate) fn ring(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        // A task that begins to wait adds itself before it reads the count. So either it sees the new
        // count or this sees the task.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.rung.notify_waiters();
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until the count is another one. Cancel safe.
    pub(crate) async fn since(&self, seen: u64) {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let mut rung = pin!(self.rung.notified());
            rung.as_mut().enable();
            if self.count() != seen {
                return;
            }
            rung.await;
        }
    }
}

/// Counts a task that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_ring_before_the_wait_is_seen_and_a_dropped_wait_leaves_nothing_behind() {
        let rings = Rings::default();
        let seen = rings.count();
        assert_eq!(rings.since(seen).now_or_never(), None);
        assert_eq!(rings.waiting.load(Ordering::SeqCst), 0);
        rings.ring();
        rings.since(seen).await;
    }

    #[tokio::test]
    async fn a_ring_wakes_every_waiting_task() {
        let rings = Arc::<Rings>::default();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let rings = Arc::clone(&rings);
                tokio::spawn(async move { rings.since(0).await })
            })
            .collect();
        while rings.waiting.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        rings.ring();
        for one in waiting {
            one.await.unwrap();
        }
    }
}
