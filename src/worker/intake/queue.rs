//! Fetched deliveries on their way to the workers.
//!
//! Waking a task costs more than most handlers: a queue that wakes a worker for every delivery
//! spends its time on that. Here a worker that takes a delivery and leaves others behind wakes one
//! more, unless handlers have lately been quick, every one of them; then one worker is enough,
//! and wakes another only when its handler waits. A delivery so waits behind a handler only
//! where that one blocks its thread after many quick ones.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::lease::Lease;
use crate::store::Fetched;

/// A handler that is busy for longer than this is worth waking another worker for.
const LONG: Duration = Duration::from_micros(50);
/// After so many quick handlers in a row the next one is expected to be quick, too.
const STREAK: u32 = 64;

/// A fetched delivery.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) fetched: Fetched,
    pub(crate) lease: Arc<Lease>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    more: Notify,
    /// How many handlers in a row were quick.
    quick: AtomicU32,
    closed: AtomicBool,
}

impl Queue {
    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, jobs: impl Iterator<Item = Job>) {
        self.jobs().extend(jobs);
        self.more.notify_one();
    }

    /// No more will come; what is there is still handed out.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.more.notify_one();
    }

    /// The next job; `None` when the queue is closed and empty.
    pub(crate) async fn next(&self) -> Option<Job> {
        loop {
            let next = {
                let mut jobs = self.jobs();
                let next = jobs.pop_front();
                if next.is_some() && !jobs.is_empty() && !self.are_quick() {
                    self.more.notify_one();
                }
                next
            };
            if next.is_some() {
                return next;
            }
            if self.closed.load(Ordering::Acquire) {
                // The next worker finds the same.
                self.more.notify_one();
                return None;
            }
            // A push between the look and the wait leaves its permit.
            self.more.notified().await;
        }
    }

    /// The next jobs, up to `most`; none when the queue is closed and empty.
    ///
    /// Cancel safe: nothing is taken before it is returned.
    pub(crate) async fn next_some(&self, most: usize) -> Vec<Job> {
        loop {
            {
                let mut jobs = self.jobs();
                if !jobs.is_empty() {
                    let some = jobs.len().min(most);
                    return jobs.drain(..some).collect();
                }
            }
            if self.closed.load(Ordering::Acquire) {
                self.more.notify_one();
                return Vec::new();
            }
            self.more.notified().await;
        }
    }

    /// Whether handlers have lately been quick, every one of them.
    fn are_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= STREAK
    }

    /// Lets another worker go on, because this one is about to wait.
    pub(crate) fn pass_on(&self) {
        if !self.jobs().is_empty() {
            self.more.notify_one();
        }
    }

    /// Runs a handler's future. Wakes another worker when it waits.
    pub(crate) async fn run<T>(&self, handling: impl Future<Output = T>) -> T {
        let mut handling = pin!(handling);
        let began = Instant::now();
        let mut first = true;
        poll_fn(|context| {
            let polled = handling.as_mut().poll(context);
            if std::mem::take(&mut first) {
                if began.elapsed() > LONG {
                    self.quick.store(0, Ordering::Relaxed);
                } else if !self.are_quick() {
                    self.quick.fetch_add(1, Ordering::Relaxed);
                }
                if polled.is_pending() {
                    self.pass_on();
                }
            }
            match polled {
                Poll::Ready(value) => Poll::Ready(value),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntryId;
    use crate::store::{DeliveryId, Lane};

    fn job(sequence: u64) -> Job {
        let id = EntryId {
            millis: 1,
            sequence,
        };
        let receipt = DeliveryId {
            lane: Lane::Log,
            id,
        };
        Job {
            fetched: Fetched {
                receipt,
                fields: Vec::new(),
                deliveries: 1,
            },
            lease: Arc::default(),
        }
    }

    #[tokio::test]
    async fn handlers_that_wait_do_not_hold_up_the_others() {
        let queue = Arc::new(Queue::default());
        let all = Arc::new(tokio::sync::Barrier::new(8));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (queue, all) = (Arc::clone(&queue), Arc::clone(&all));
                tokio::spawn(async move {
                    while queue.next().await.is_some() {
                        // Only eight at once get past it.
                        queue.run(all.wait()).await;
                    }
                })
            })
            .collect();
        queue.push((0..16).map(job));
        queue.close();
        for worker in workers {
            worker.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn handlers_that_are_busy_are_spread_over_threads() {
        let queue = Arc::new(Queue::default());
        let both = Arc::new(std::sync::Barrier::new(2));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (queue, both) = (Arc::clone(&queue), Arc::clone(&both));
                tokio::spawn(async move {
                    while queue.next().await.is_some() {
                        // Blocks its thread until the other thread is here, too.
                        queue.run(async { both.wait() }).await;
                    }
                })
            })
            .collect();
        queue.push((0..2).map(job));
        queue.close();
        for worker in workers {
            worker.await.unwrap();
        }
    }
}
