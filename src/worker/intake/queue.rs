//! Fetched deliveries on their way to the workers.
//!
//! Waking a task costs more than most handlers take, so the queue does not wake a worker for every
//! delivery. A worker that takes a delivery and leaves others behind wakes one more worker, unless two
//! are coming already. After many quick handlers in a row it wakes none: one worker is enough, and it
//! wakes another one when its handler waits. A delivery therefore waits behind a handler only if that handler blocks its
//! thread after many quick ones.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant as RealInstant;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::lease::Lease;
use crate::store::{DeliveryId, Fetched};
use crate::worker::hold_back::again::Again;
use crate::worker::intake::crew::Crew;
use crate::worker::intake::policy::POLICY;

/// How many workers may be coming for the deliveries that other workers left behind. The runtime keeps the
/// worker that a thread woke last on that thread until the thread is free, so one alone might come late.
const MOST_COMING: usize = 2;

/// A fetched delivery and the state of its lease.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) fetched: Fetched,
    pub(crate) lease: Arc<Lease>,
    /// The last attempt, where this process tries the message again from memory.
    pub(crate) again: Option<Box<Again>>,
}

impl Queued {
    /// Whether it waits here since before a time. A message that is tried again waits since it was
    /// due.
    fn waits_since_before(&self, time: Instant) -> bool {
        let since = match &self.again {
            Some(again) => again.queued,
            None => Some(self.lease.since()),
        };
        since.is_some_and(|since| since < time)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    deliveries: Mutex<VecDeque<Queued>>,
    more: Notify,
    /// How many workers wait for a delivery.
    waiting: AtomicUsize,
    /// How often workers have woken another one since a worker last came.
    coming: AtomicUsize,
    /// The workers that begin when none waits.
    crew: Crew,
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
        let is_empty = {
            let mut queue = self.deliveries();
            queue.reserve(deliveries.size_hint().1.unwrap_or(0));
            queue.extend(deliveries);
            queue.is_empty()
        };
        if !is_empty {
            self.wake();
        }
    }

    /// Lets up to `most` workers begin, each by a call of `begin`. One begins at once if deliveries came
    /// before: their push found no worker to wake.
    pub(crate) fn hire(&self, most: usize, begin: impl Fn(&mut JoinSet<()>) + Send + 'static) {
        self.crew.hire(most, begin);
        self.pass_on();
    }

    /// Gives the workers away. No more begin.
    pub(crate) fn dismiss(&self) -> JoinSet<()> {
        self.crew.dismiss()
    }

    /// Wakes a worker, or lets one begin where none waits.
    fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            self.crew.grow();
        }
        // The one that began to wait last: its memory may still be in a cache.
        self.more.notify_last();
    }

    /// Wakes another worker for the deliveries that a worker leaves behind, unless enough are coming.
    fn wake_another(&self) {
        if self.coming.load(Ordering::SeqCst) < MOST_COMING {
            self.coming.fetch_add(1, Ordering::SeqCst);
            self.wake();
        }
    }

    /// Notes that a worker comes to look at the queue.
    pub(crate) fn note_arrival(&self) {
        self.coming.store(0, Ordering::SeqCst);
    }

    /// Waits until a worker is woken.
    async fn woken(&self) {
        let _waiting = Waiting::new(&self.waiting);
        // `Notify` keeps the permit of a push between the look and the wait.
        self.more.notified().await;
        self.note_arrival();
    }

    /// Puts deliveries before all others.
    pub(crate) fn push_first(&self, first: Vec<Queued>) {
        if first.is_empty() {
            return;
        }
        {
            let mut deliveries = self.deliveries();
            for one in first.into_iter().rev() {
                deliveries.push_front(one);
            }
        }
        self.wake();
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
                give_back_memory(&mut deliveries);
                (next, !deliveries.is_empty())
            };
            if let (Some(next), more) = next {
                if more && !self.are_quick() {
                    self.wake_another();
                }
                return Some(next);
            }
            if self.closed.load(Ordering::Acquire) {
                // Wakes the next worker, so that every worker learns of the end.
                self.more.notify_one();
                return None;
            }
            self.woken().await;
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
                    let next = deliveries.drain(..some).collect();
                    give_back_memory(&mut deliveries);
                    return next;
                }
            }
            if self.closed.load(Ordering::Acquire) {
                self.more.notify_one();
                return Vec::new();
            }
            self.woken().await;
        }
    }

    /// Removes those of some deliveries that were handed out before a time, but no only copies.
    pub(crate) fn remove_before(
        &self,
        time: Instant,
        of: impl Fn(DeliveryId) -> bool,
    ) -> Vec<Queued> {
        self.remove_if(|one| {
            of(one.fetched.receipt) && !one.lease.is_only_copy() && one.waits_since_before(time)
        })
    }

    /// Removes the deliveries for which a condition holds.
    pub(crate) fn remove_if(&self, goes: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let mut deliveries = self.deliveries();
        let (gone, stay): (VecDeque<_>, VecDeque<_>) =
            deliveries.drain(..).partition(|one| goes(one));
        *deliveries = stay;
        gone.into()
    }

    /// Whether the last handlers were all quick.
    fn are_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed) >= POLICY.quick_streak
    }

    /// Wakes another worker if deliveries are queued, because this one is about to wait.
    pub(crate) fn pass_on(&self) {
        let is_empty = self.deliveries().is_empty();
        if !is_empty {
            self.wake();
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
                    // Those that were coming had the time of a handler. Busy threads may keep them.
                    self.coming.store(0, Ordering::SeqCst);
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

/// Frees the memory of a burst when the queue is empty.
fn give_back_memory(deliveries: &mut VecDeque<Queued>) {
    if deliveries.is_empty() && deliveries.capacity() > POLICY.keep_memory_for {
        *deliveries = VecDeque::new();
    }
}

/// Counts a worker that waits, until it is dropped.
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
    use super::*;
    use crate::domain::EntryId;
    use crate::store::{Attempts, DeliveryId, Kind, Lane};

    fn queued(sequence: u64) -> Queued {
        let id = EntryId::new(1, sequence);
        let receipt = DeliveryId {
            lane: Lane::Log,
            id,
        };
        Queued {
            fetched: Fetched {
                source: 0,
                receipt,
                fields: Vec::new(),
                attempts: Attempts::default(),
                kind: Kind::Fresh,
            },
            lease: Arc::new(Lease::new(0, 0, false, Instant::now())),
            again: None,
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
    async fn an_empty_queue_gives_the_memory_of_a_burst_back() {
        let queue = Queue::default();
        let memory = || queue.deliveries().capacity();
        for at_once in [1, 500] {
            queue.push((0..500).map(queued));
            assert!(memory() >= 500);
            let mut taken = 0;
            while taken < 500 {
                taken += match at_once {
                    1 => usize::from(queue.next().await.is_some()),
                    _ => queue.next_up_to(at_once).await.len(),
                };
            }
            assert!(memory() <= POLICY.keep_memory_for, "{at_once} at once");
        }
    }

    /// Hires workers that run until the queue is closed, and counts those that begin.
    fn hire(queue: &Arc<Queue>, most: usize, all: Arc<tokio::sync::Barrier>) -> Arc<AtomicUsize> {
        let begun = Arc::<AtomicUsize>::default();
        let (count, own) = (Arc::clone(&begun), Arc::downgrade(queue));
        queue.hire(most, move |workers| {
            count.fetch_add(1, Ordering::SeqCst);
            let (queue, all) = (own.upgrade().unwrap(), Arc::clone(&all));
            workers.spawn(async move {
                while queue.next().await.is_some() {
                    queue.run(all.wait()).await;
                }
            });
        });
        begun
    }

    #[tokio::test]
    async fn workers_begin_as_far_as_handlers_wait_and_serve_the_later_deliveries() {
        let queue = Arc::new(Queue::default());
        let all = Arc::new(tokio::sync::Barrier::new(3));
        let begun = hire(&queue, 64, all);
        let begun = || begun.load(Ordering::SeqCst);
        assert_eq!(begun(), 0);
        for _ in 0..2 {
            queue.push((0..3).map(queued));
            while !queue.deliveries().is_empty() || queue.waiting.load(Ordering::SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
            // One that has begun and does not wait yet may let another one begin.
            assert!((3..10).contains(&begun()), "{} have begun", begun());
        }
        queue.close();
        let mut workers = queue.dismiss();
        assert_eq!(workers.len(), begun());
        while let Some(worker) = workers.join_next().await {
            worker.unwrap();
        }
        let before = begun();
        queue.crew.grow();
        assert_eq!(begun(), before, "a dismissed crew does not grow");
    }

    #[tokio::test]
    async fn a_worker_begins_for_deliveries_that_came_before_the_crew() {
        let queue = Arc::new(Queue::default());
        queue.push((0..1).map(queued));
        let begun = hire(&queue, 64, Arc::new(tokio::sync::Barrier::new(1)));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn no_more_workers_begin_than_were_hired() {
        let queue = Arc::new(Queue::default());
        let begun = hire(&queue, 2, Arc::new(tokio::sync::Barrier::new(2)));
        queue.push((0..10).map(queued));
        while queue.waiting.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        assert!(queue.deliveries().is_empty());
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        queue.close();
        let mut workers = queue.dismiss();
        while let Some(worker) = workers.join_next().await {
            worker.unwrap();
        }
    }

    /// Counts the deliveries that each worker takes; the handlers of the first `first` wait for each other.
    fn hire_counting(queue: &Arc<Queue>, first: usize) -> Arc<Mutex<Vec<usize>>> {
        let taken = Arc::<Mutex<Vec<usize>>>::default();
        let all = Arc::new(tokio::sync::Barrier::new(first));
        let (own, counts) = (Arc::downgrade(queue), Arc::clone(&taken));
        queue.hire(64, move |workers| {
            let number = counts.lock().unwrap().len();
            counts.lock().unwrap().push(0);
            let (queue, all, counts) = (own.upgrade().unwrap(), all.clone(), counts.clone());
            workers.spawn(async move {
                queue.note_arrival();
                while let Some(next) = queue.next().await {
                    counts.lock().unwrap()[number] += 1;
                    let is_first = next.fetched.receipt.id.sequence < first as u64;
                    queue
                        .run(async {
                            if is_first {
                                let _ = all.wait().await;
                            }
                        })
                        .await;
                }
            });
        });
        taken
    }

    async fn until_empty(queue: &Queue) {
        while !queue.deliveries().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn quick_handlers_let_few_workers_begin() {
        let queue = Arc::new(Queue::default());
        let taken = hire_counting(&queue, 0);
        queue.push((0..500).map(queued));
        until_empty(&queue).await;
        let taken = taken.lock().unwrap();
        // One more for each handler that a busy machine makes slow.
        assert!(taken.len() < 32, "{taken:?}");
        assert_eq!(taken.iter().sum::<usize>(), 500);
    }

    #[tokio::test]
    async fn a_slow_handler_lets_workers_be_woken_again() {
        let queue = Queue::default();
        queue.coming.store(MOST_COMING, Ordering::SeqCst);
        queue
            .run(async { std::thread::sleep(POLICY.quick_handler * 2) })
            .await;
        assert_eq!(queue.coming.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn the_worker_that_began_to_wait_last_takes_the_next_delivery() {
        let queue = Arc::new(Queue::default());
        let taken = hire_counting(&queue, 8);
        queue.push((0..8).map(queued));
        until_empty(&queue).await;
        let all_wait = || queue.waiting.load(Ordering::SeqCst) == taken.lock().unwrap().len();
        while !all_wait() {
            tokio::task::yield_now().await;
        }
        let before = taken.lock().unwrap().clone();
        for number in 100..120 {
            queue.push((number..=number).map(queued));
            until_empty(&queue).await;
            while !all_wait() {
                tokio::task::yield_now().await;
            }
        }
        let after = taken.lock().unwrap();
        let busy = after
            .iter()
            .zip(&before)
            .filter(|(after, before)| after > before);
        assert_eq!(busy.count(), 1, "{before:?} {after:?}");
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
