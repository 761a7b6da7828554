//! Fetched deliveries on their way to the workers.
//!
//! Waking a task costs more than most handlers take, so the queue does not wake a worker for every
//! delivery. A worker that takes a delivery and leaves others behind wakes one more worker, unless
//! the last handlers were all quick. Then one worker is enough; it wakes another one only when its
//! handler waits. A delivery therefore waits behind a handler only if that handler blocks its
//! thread after many quick ones.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant as RealInstant;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::lease::Lease;
use crate::store::Fetched;
use crate::worker::intake::policy::POLICY;

/// A fetched delivery and the state of its lease.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) fetched: Fetched,
    pub(crate) lease: Arc<Lease>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    deliveries: Mutex<VecDeque<Queued>>,
    more: Notify,
    /// How many handlers in a row were quick, up to the streak that counts.
    quick: AtomicU32,
    closed: AtomicBool,
}

impl Queue {
    fn deliveries(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, deliveries: impl Iterator<Item = Queued>) {
        self.deliveries().extend(deliveries);
        self.more.notify_one();
    }

    /// Ends the queue: workers still get the deliveries in it, then `None`.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.more.notify_one();
    }

    /// Waits for the next delivery; `None` when the queue is closed and empty.
    pub(crate) async fn next(&self) -> Option<Queued> {
        loop {
            let next = {
                let mut deliveries = self.deliveries();
                let next = deliveries.pop_front();
                if next.is_some() && !deliveries.is_empty() && !self.are_quick() {
                    self.more.notify_one();
                }
                next
            };
            if next.is_some() {
                return next;
            }
            if self.closed.load(Ordering::Acquire) {
                // Wakes the next worker, so that every worker learns of the end.
                self.more.notify_one();
                return None;
            }
            // `Notify` keeps the permit of a push between the look and the wait.
            self.more.notified().await;
        }
    }

    /// Waits for the next deliveries, up to `most`; an empty list when the queue is closed and empty.
    ///
    /// Cancel safe: a dropped future has removed nothing.
    pub(crate) async fn next_up_to(&self, most: usize) -> Vec<Queued> {
        loop {
            {
                let mut deliveries = self.deliveries();
                if !deliveries.is_empty() {
                    let some = deliveries.len().min(most);
                    return deliveries.drain(..some).collect();
                }
            }
            if self.closed.load(Ordering::Acquire) {
                self.more.notify_one();
                return Vec::new();
            }
            self.more.notified().await;
        }
    }

    /// Removes the deliveries that were handed out before a time, but no only copies.
    pub(crate) fn remove_before(&self, time: Instant) -> Vec<Queued> {
        let stays = |one: &Queued| {
            one.lease.is_only_copy() || one.lease.since().is_none_or(|since| since >= time)
        };
        let mut deliveries = self.deliveries();
        let (stay, old): (VecDeque<_>, VecDeque<_>) = deliveries.drain(..).partition(stays);
        *deliveries = stay;
        old.into()
    }

    /// Whether the last handlers were all quick.
    fn are_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= POLICY.quick_streak
    }

    /// Wakes another worker if deliveries are queued, because this one is about to wait.
    pub(crate) fn pass_on(&self) {
        if !self.deliveries().is_empty() {
            self.more.notify_one();
        }
    }

    /// Runs a handler's future; wakes another worker when the future waits.
    pub(crate) async fn run<T>(&self, handling: impl Future<Output = T>) -> T {
        let mut handling = pin!(handling);
        let began = RealInstant::now();
        let mut first = true;
        poll_fn(|context| {
            let polled = handling.as_mut().poll(context);
            if std::mem::take(&mut first) {
                if began.elapsed() > POLICY.quick_handler {
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

    fn queued(sequence: u64) -> Queued {
        let id = EntryId {
            millis: 1,
            sequence,
        };
        let receipt = DeliveryId {
            lane: Lane::Log,
            id,
        };
        Queued {
            fetched: Fetched {
                source: 0,
                receipt,
                fields: Vec::new(),
                begun: 0,
            },
            lease: Arc::default(),
        }
    }

    #[tokio::test]
    async fn a_closed_queue_empties_and_then_ends_for_every_worker() {
        let queue = Queue::default();
        queue.push((1..=3).map(queued));
        queue.close();
        let sequence = |one: &Queued| one.fetched.receipt.id.sequence;
        assert_eq!(queue.next().await.as_ref().map(sequence), Some(1));
        let rest = queue.next_up_to(5).await;
        assert_eq!(rest.iter().map(sequence).collect::<Vec<_>>(), [2, 3]);
        assert!(queue.next().await.is_none());
        assert!(queue.next_up_to(5).await.is_empty());
        assert!(queue.next().await.is_none());
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
        queue.push((0..16).map(queued));
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
        queue.push((0..2).map(queued));
        queue.close();
        for worker in workers {
            worker.await.unwrap();
        }
    }
}
