//! Fetched deliveries on their way to the workers.
//!
//! Waking a task costs more than most handlers: a queue that wakes a worker for every delivery
//! spends its time on that. Here one worker at a time is awake to take the next delivery. It
//! wakes another before its handler waits, and before it begins when handlers have lately
//! been busy for long without waiting; so no delivery waits behind a handler.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::held::Lease;
use crate::backend::Fetched;

/// A handler that is busy for longer than this is worth waking another worker for.
const LONG: Duration = Duration::from_micros(50);

/// A fetched delivery.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) fetched: Fetched,
    pub(super) lease: Arc<Lease>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    more: Notify,
    busy: AtomicBool,
    closed: AtomicBool,
}

impl Queue {
    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, jobs: impl Iterator<Item = Job>) {
        self.jobs().extend(jobs);
        self.more.notify_one();
    }

    /// No more will come; what is there is still handed out.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.more.notify_one();
    }

    /// The next job; `None` when the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<Job> {
        loop {
            let next = {
                let mut jobs = self.jobs();
                let next = jobs.pop_front();
                if next.is_some() && !jobs.is_empty() && self.busy.load(Ordering::Relaxed) {
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

    /// Runs a handler's future. Wakes another worker when it waits.
    pub(super) async fn run<T>(&self, handling: impl Future<Output = T>) -> T {
        let mut handling = pin!(handling);
        let began = Instant::now();
        let mut first = true;
        poll_fn(|context| {
            let polled = handling.as_mut().poll(context);
            if std::mem::take(&mut first) {
                let busy = began.elapsed() > LONG;
                if busy != self.busy.load(Ordering::Relaxed) {
                    self.busy.store(busy, Ordering::Relaxed);
                }
                if polled.is_pending() && !self.jobs().is_empty() {
                    self.more.notify_one();
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
    use crate::backend::{Lane, Receipt};
    use crate::domain::EntryId;

    fn job(sequence: u64) -> Job {
        let id = EntryId {
            millis: 1,
            sequence,
        };
        let receipt = Receipt {
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
        queue.busy.store(true, Ordering::Relaxed);
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
