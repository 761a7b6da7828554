//! How many more deliveries this consumer may take.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What waits for a handler should not wait for longer than this.
const AHEAD: Duration = Duration::from_millis(50);
/// Reading further ahead than this brings nothing.
const FARTHEST: usize = 1024;
/// So many a second are many.
const FAST: u64 = 60_000;
/// A read that brings so many is as good as a larger one.
const GATHERED: usize = 400;
/// How often the prefetch is adapted, at most.
const ADAPT: Duration = Duration::from_millis(10);

/// The deliveries that are handled or wait for a handler, and how many there may be.
#[derive(Debug)]
pub(crate) struct Capacity {
    concurrency: usize,
    /// Whether the prefetch follows the handlers' pace.
    adaptive: bool,
    prefetch: AtomicUsize,
    taken: AtomicUsize,
    given: AtomicU64,
    /// How many were given lately, a second.
    pace: AtomicU64,
    freed: Notify,
    last: Mutex<(Instant, u64)>,
}

impl Capacity {
    pub(crate) fn new(concurrency: usize, prefetch: Option<usize>) -> Self {
        Self {
            concurrency,
            adaptive: prefetch.is_none(),
            prefetch: AtomicUsize::new(prefetch.unwrap_or(concurrency)),
            taken: AtomicUsize::new(0),
            given: AtomicU64::new(0),
            pace: AtomicU64::new(0),
            freed: Notify::new(),
            last: Mutex::new((Instant::now(), 0)),
        }
    }

    fn prefetch(&self) -> usize {
        self.prefetch.load(Ordering::SeqCst)
    }

    /// Reading for less than this is not worth a command.
    fn enough(&self) -> usize {
        (self.prefetch() / 2).max(2)
    }

    fn free(&self) -> usize {
        self.capacity()
            .saturating_sub(self.taken.load(Ordering::SeqCst))
    }

    fn capacity(&self) -> usize {
        self.concurrency + self.prefetch()
    }

    /// How many may be reclaimed now: somewhat more than there is room for, so that a backlog
    /// cannot keep a consumer too busy to ever take over what another one has left.
    pub(crate) fn reclaimable(&self) -> usize {
        let most = self.capacity() + (self.concurrency / 2).max(2);
        most.saturating_sub(self.taken.load(Ordering::SeqCst))
    }

    /// Whether to let messages gather before the next read, after one that was asked for `max` and
    /// brought `fetched`: where many come, a read costs the server as much as ten messages.
    pub(crate) fn gathers(&self, fetched: usize, max: usize) -> bool {
        let few = (1..GATHERED.min(max)).contains(&fetched);
        few && self.adaptive && self.pace.load(Ordering::Relaxed) >= FAST
    }

    pub(crate) fn take(&self, count: usize) {
        self.taken.fetch_add(count, Ordering::SeqCst);
    }

    /// A delivery's handler has returned.
    pub(crate) fn give(&self) {
        self.given.fetch_add(1, Ordering::Relaxed);
        let left = self.taken.fetch_sub(1, Ordering::SeqCst) - 1;
        // Only who crosses the line has to tell the fetcher. Sequential consistency: either
        // the fetcher sees this one gone when it looks, or this sees the line that it has set.
        if self.capacity().saturating_sub(left) == self.enough() {
            self.freed.notify_one();
        }
    }

    /// Waits until there is room that is worth reading for.
    pub(crate) async fn wait(&self) -> usize {
        loop {
            let free = self.free();
            if free >= self.enough() {
                return free;
            }
            // A notification between the look and the wait is kept.
            self.freed.notified().await;
        }
    }

    /// Lets the prefetch follow what the handlers have lately finished: reading in hundreds
    /// where they are quick, and not taking from other processes where they are slow.
    pub(crate) fn adapt(&self, now: Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(last.0);
        if !self.adaptive || passed < ADAPT {
            return;
        }
        let given = self.given.load(Ordering::Relaxed);
        let pace = (given - last.1) as f64 / passed.as_secs_f64();
        *last = (now, given);
        self.pace.store(pace as u64, Ordering::Relaxed);
        let least = self.concurrency.min(FARTHEST);
        let wanted = ((pace * AHEAD.as_secs_f64()) as usize).clamp(least, FARTHEST);
        // By no more than half or double at once: one quick moment says little.
        let current = self.prefetch();
        let next = wanted.clamp(current / 2, current * 2).max(1);
        self.prefetch.store(next, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(room: &Capacity, start: Instant, step: u32, finished: u64) -> usize {
        room.given.fetch_add(finished, Ordering::Relaxed);
        room.adapt(start + ADAPT * step);
        room.prefetch()
    }

    #[tokio::test]
    async fn the_prefetch_follows_the_pace_within_its_bounds() {
        let room = Capacity::new(16, None);
        let start = room.last.lock().unwrap().0;
        // 100,000 a second are 5,000 in 50 milliseconds: doubled until the farthest.
        let grown: Vec<usize> = (1..=8)
            .map(|step| after(&room, start, step, 1000))
            .collect();
        assert_eq!(grown, [32, 64, 128, 256, 512, 1024, 1024, 1024]);
        // Then nothing is finished any more: halved until what is handled at once.
        let shrunk: Vec<usize> = (9..=16).map(|step| after(&room, start, step, 0)).collect();
        assert_eq!(shrunk, [512, 256, 128, 64, 32, 16, 16, 16]);
    }

    #[tokio::test]
    async fn one_slow_handler_reads_one_ahead_and_a_fixed_prefetch_stays() {
        let room = Capacity::new(1, None);
        let start = room.last.lock().unwrap().0;
        assert_eq!(after(&room, start, 100, 1), 1);
        let fixed = Capacity::new(4, Some(6));
        let start = fixed.last.lock().unwrap().0;
        assert_eq!(after(&fixed, start, 1, 1_000_000), 6);
        assert_eq!(fixed.wait().await, 10);
    }

    #[tokio::test]
    async fn messages_gather_where_many_come_and_no_more_are_there() {
        let room = Capacity::new(16, None);
        let start = room.last.lock().unwrap().0;
        after(&room, start, 1, 200);
        assert!(!room.gathers(100, 512), "20,000 a second are few");
        after(&room, start, 2, 800);
        assert!(room.gathers(100, 512));
        for (fetched, max) in [(0, 512), (400, 512), (100, 100)] {
            assert!(!room.gathers(fetched, max), "{fetched} of {max}");
        }
        after(&room, start, 3, 0);
        assert!(!room.gathers(100, 512));
        let fixed = Capacity::new(4, Some(6));
        let start = fixed.last.lock().unwrap().0;
        after(&fixed, start, 1, 1_000_000);
        assert!(!fixed.gathers(1, 5), "a set prefetch says how much to read");
    }

    #[tokio::test]
    async fn who_waits_is_told_when_enough_is_free() {
        let room = std::sync::Arc::new(Capacity::new(4, Some(4)));
        room.take(8);
        let waiting = tokio::spawn({
            let room = std::sync::Arc::clone(&room);
            async move { room.wait().await }
        });
        tokio::task::yield_now().await;
        room.give();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "one is not worth a command");
        room.give();
        assert_eq!(waiting.await.unwrap(), 2);
    }
}
