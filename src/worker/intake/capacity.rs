//! How many more deliveries this consumer may take, and when the fetcher reads.
//!
//! Invariant. `occupied` counts the deliveries in the queue and with handlers. The capacity is the
//! concurrency plus the prefetch. The fetcher asks for no more than `capacity - occupied`, the
//! reclaimer for at most half the concurrency more. The fetcher sleeps only while less than a
//! worthwhile read is free, and the release that frees the last missing slot wakes it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bus::Pace;
use crate::worker::intake::policy::POLICY;

/// What was known when the prefetch was last adapted.
#[derive(Debug)]
struct Adapted {
    at: Instant,
    /// How many deliveries were finished.
    finished: u64,
    /// The time in which there were deliveries, in microseconds.
    busy: u64,
}

#[derive(Debug)]
pub(crate) struct Capacity {
    concurrency: usize,
    /// Whether the prefetch follows the handlers' pace.
    adaptive: bool,
    prefetch: AtomicUsize,
    /// Whether nothing is read ahead, because queued deliveries had to be given back.
    slow: AtomicBool,
    occupied: AtomicUsize,
    finished: AtomicU64,
    began: Instant,
    /// When the first of the deliveries came, in microseconds after `began`.
    filled: AtomicU64,
    /// The time in which there were deliveries, in microseconds, up to the last time without any.
    busy: AtomicU64,
    /// Of all subscriptions of the container.
    pace: Arc<Pace>,
    freed: Notify,
    adapted: Mutex<Adapted>,
}

impl Capacity {
    pub(crate) fn new(concurrency: usize, prefetch: Option<usize>) -> Self {
        Self {
            concurrency,
            adaptive: prefetch.is_none(),
            prefetch: AtomicUsize::new(prefetch.unwrap_or(concurrency)),
            slow: AtomicBool::new(false),
            occupied: AtomicUsize::new(0),
            finished: AtomicU64::new(0),
            began: Instant::now(),
            filled: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            pace: Arc::default(),
            freed: Notify::new(),
            adapted: Mutex::new(Adapted {
                at: Instant::now(),
                finished: 0,
                busy: 0,
            }),
        }
    }

    /// Counts what it finishes for the container.
    pub(crate) fn join(&mut self, pace: Arc<Pace>) {
        self.pace = pace;
    }

    fn prefetch(&self) -> usize {
        if self.is_slow() {
            return 0;
        }
        self.prefetch.load(Ordering::SeqCst)
    }

    /// Whether deliveries were given back and the handlers have not been quick since.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::SeqCst)
    }

    /// Whether queued deliveries go back to the store when the handlers are slow. A fixed prefetch is
    /// the user's choice.
    pub(crate) fn gives_back(&self) -> bool {
        self.adaptive
    }

    /// Frees the slots of `count` queued deliveries that go back to the store, and reads nothing ahead
    /// until the handlers are quick again. Only the fetcher's task calls this.
    pub(crate) fn give_back(&self, count: usize) {
        self.slow.store(true, Ordering::SeqCst);
        self.vacate(count);
        self.freed.notify_waiters();
    }

    fn total(&self) -> usize {
        self.concurrency + self.prefetch()
    }

    fn free(&self) -> usize {
        self.total()
            .saturating_sub(self.occupied.load(Ordering::SeqCst))
    }

    /// The free slots from which a read is worth its command.
    fn worthwhile(&self) -> usize {
        (self.prefetch() / 2).max(2).min(self.total())
    }

    /// How many deliveries the reclaimer may take now.
    ///
    /// Half the concurrency more than is free, so that a backlog cannot keep this consumer too
    /// busy to take over the deliveries of a dead one. With slow handlers only what is free: the
    /// rest would wait here, and an idle process can have it.
    pub(crate) fn reclaimable(&self) -> usize {
        if self.is_slow() {
            return self.free();
        }
        let most = self.total() + (self.concurrency / 2).max(2);
        most.saturating_sub(self.occupied.load(Ordering::SeqCst))
    }

    /// Whether the fetcher pauses at once, after a read that asked for `max` and brought `fetched`.
    pub(crate) fn should_gather(&self, fetched: usize, max: usize) -> bool {
        (1..POLICY.gather_below.min(max)).contains(&fetched) && self.may_gather()
    }

    /// Whether the fetcher pauses after the next ring, if the last read asked for `max` and brought
    /// `fetched`. A full read left more behind, which need not wait. An empty read changes nothing, because a
    /// trim rings too: the answer is then `gathers`, the one before.
    pub(crate) fn should_gather_after_ring(
        &self,
        gathers: bool,
        fetched: usize,
        max: usize,
    ) -> bool {
        let in_bursts = match fetched {
            0 => gathers,
            _ => (POLICY.burst..max).contains(&fetched),
        };
        in_bursts && self.may_gather()
    }

    fn may_gather(&self) -> bool {
        self.adaptive && self.pace.per_second() >= POLICY.gather_pace
    }

    /// Enters `count` deliveries.
    pub(crate) fn occupy(&self, count: usize) {
        let now = self.micros(Instant::now());
        if count > 0 && self.occupied.fetch_add(count, Ordering::SeqCst) == 0 {
            self.filled.store(now, Ordering::Relaxed);
        }
    }

    /// Removes `count` deliveries. Returns how many are left.
    fn vacate(&self, count: usize) -> usize {
        // Before the last slot is free: after that the next delivery changes it.
        let filled = self.filled.load(Ordering::Relaxed);
        let left = self.occupied.fetch_sub(count, Ordering::SeqCst) - count;
        if left == 0 {
            let busy = self.micros(Instant::now()).saturating_sub(filled);
            self.busy.fetch_add(busy, Ordering::Relaxed);
        }
        left
    }

    /// A time in microseconds after `began`.
    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_micros() as u64
    }

    /// Takes the slots of `count` deliveries over. Dropping the guard frees them, also when the
    /// task of a worker ends by a panic.
    pub(crate) fn slots(&self, count: usize) -> Slots<'_> {
        Slots {
            capacity: self,
            count,
        }
    }

    /// Frees the slot of one finished delivery; wakes the fetcher when a read becomes worthwhile.
    ///
    /// Comparing for equality wakes the fetcher once instead of at every release, and misses
    /// nothing: the free slots grow by one at a time, because this is the only place that frees
    /// one, so a release always sees the exact value at which a fetcher has to wake. The prefetch, and
    /// with it that value, changes only on a fetcher's own task, which looks at the free slots before it
    /// sleeps and wakes the fetchers of the other tracks. All of it is sequentially consistent: a release
    /// that still compares with the old value has freed its slot before that look.
    fn release(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
        let occupied = self.vacate(1);
        if self.total().saturating_sub(occupied) == self.worthwhile() {
            self.freed.notify_waiters();
        }
    }

    /// The free slots, where they are worth a read.
    pub(crate) fn worth_reading(&self) -> Option<usize> {
        let free = self.free();
        (free >= self.worthwhile()).then_some(free)
    }

    /// Waits until a read is worthwhile. Returns the free slots. The fetchers of all tracks wait here.
    pub(crate) async fn ready(&self) -> usize {
        loop {
            // Created before the look: it hears every release from now on.
            let freed = self.freed.notified();
            if let Some(free) = self.worth_reading() {
                return free;
            }
            freed.await;
        }
    }

    /// Adapts the prefetch to the handlers' pace: quick handlers get reads of hundreds, slow
    /// handlers keep nothing from other processes. The pace counts the time in which there was something
    /// to handle: a topic whose messages come in bursts is as quick as its handlers. A short time of handling
    /// can raise the prefetch only. Only fetchers call this.
    pub(crate) fn adapt(&self, now: Instant) {
        let mut last = self.adapted.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(last.at);
        let finished = self.finished.load(Ordering::Relaxed);
        let newly = finished - last.finished;
        let known = self.prefetch.load(Ordering::SeqCst);
        // As many as are read ahead tell enough, however soon.
        if passed < POLICY.adapt_every && newly < known as u64 {
            return;
        }
        let mut busy = self.busy.load(Ordering::Relaxed);
        if self.occupied.load(Ordering::SeqCst) > 0 {
            let filled = self.filled.load(Ordering::Relaxed);
            busy += self.micros(now).saturating_sub(filled);
        }
        let handling = Duration::from_micros(busy.saturating_sub(last.busy));
        *last = Adapted {
            at: now,
            finished,
            busy,
        };
        self.pace.add(newly, now);
        if !self.adaptive {
            return;
        }
        let pace = newly as f64 / handling.max(POLICY.adapt_every).as_secs_f64();
        let mut next = next_prefetch(known, pace, self.concurrency);
        if handling < POLICY.adapt_every {
            // The pace is this one at least.
            next = next.max(known);
        }
        self.prefetch.store(next, Ordering::SeqCst);
        if pace >= self.concurrency as f64 / POLICY.quick_again.as_secs_f64() {
            self.slow.store(false, Ordering::SeqCst);
        }
        self.freed.notify_waiters();
    }
}

/// The slots of deliveries that a worker handles.
#[derive(Debug)]
pub(crate) struct Slots<'a> {
    capacity: &'a Capacity,
    count: usize,
}

impl Drop for Slots<'_> {
    fn drop(&mut self) {
        for _ in 0..self.count {
            self.capacity.release();
        }
    }
}

/// The prefetch for a pace of finished deliveries a second. At most four times or half the current
/// one: a single quick moment says little, and a short burst has few of them.
fn next_prefetch(current: usize, pace: f64, concurrency: usize) -> usize {
    let least = concurrency.min(POLICY.max_prefetch);
    let wanted = (pace * POLICY.lookahead.as_secs_f64()) as usize;
    wanted
        .clamp(least, POLICY.max_prefetch)
        .clamp(current / 2, current * 4)
        .max(1)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Wake, Waker};

    use proptest::prelude::*;

    use super::*;

    fn after(capacity: &Capacity, start: Instant, step: u32, finished: u64) -> usize {
        capacity.finished.fetch_add(finished, Ordering::Relaxed);
        capacity.adapt(start + POLICY.adapt_every * step);
        capacity.prefetch()
    }

    #[tokio::test]
    async fn the_prefetch_follows_the_pace_within_its_bounds() {
        let capacity = Capacity::new(16, None);
        let start = capacity.adapted.lock().unwrap().at;
        // 100,000 a second are 5,000 in 50 milliseconds: four times as many, up to the maximum.
        let grown: Vec<usize> = (1..=4)
            .map(|step| after(&capacity, start, step, 1000))
            .collect();
        assert_eq!(grown, [64, 256, 1024, 1024]);
        // Then no handler finishes: halved down to the concurrency.
        capacity.occupy(1);
        let shrunk: Vec<usize> = (5..=12)
            .map(|step| after(&capacity, start, step, 0))
            .collect();
        assert_eq!(shrunk, [512, 256, 128, 64, 32, 16, 16, 16]);
    }

    #[tokio::test]
    async fn a_time_without_deliveries_leaves_the_prefetch_as_it_is() {
        let capacity = Capacity::new(16, None);
        let start = capacity.adapted.lock().unwrap().at;
        let grown = [1, 2, 3].map(|step| after(&capacity, start, step, 1000));
        assert_eq!(grown, [64, 256, 1024]);
        // Reads that bring nothing, and then the next burst.
        let idle = [4, 40, 400].map(|step| after(&capacity, start, step, 0));
        capacity.occupy(500);
        let came = (POLICY.adapt_every * 500).as_micros() as u64 - 1000;
        capacity.filled.store(came, Ordering::Relaxed);
        assert_eq!((idle, after(&capacity, start, 500, 0)), ([1024; 3], 1024));
        let slow = [501, 502, 503].map(|step| after(&capacity, start, step, 0));
        assert_eq!(slow, [512, 256, 128], "nothing is finished");
    }

    #[tokio::test]
    async fn a_retry_between_two_bursts_leaves_the_prefetch_as_it_is() {
        let capacity = Capacity::new(16, None);
        let start = capacity.adapted.lock().unwrap().at;
        let grown = [1, 2, 3].map(|step| after(&capacity, start, step, 1000));
        assert_eq!(grown, [64, 256, 1024]);
        // It came long after the last read, and was handled at once.
        capacity.busy.fetch_add(100, Ordering::Relaxed);
        assert_eq!(after(&capacity, start, 100, 1), 1024);
    }

    #[tokio::test]
    async fn one_slow_handler_reads_one_ahead_and_a_fixed_prefetch_stays() {
        let slow = Capacity::new(1, None);
        let start = slow.adapted.lock().unwrap().at;
        slow.busy.store(1_000_000, Ordering::Relaxed);
        assert_eq!(after(&slow, start, 100, 1), 1);
        let fixed = Capacity::new(4, Some(6));
        let start = fixed.adapted.lock().unwrap().at;
        assert_eq!(after(&fixed, start, 1, 1_000_000), 6);
        assert_eq!(fixed.ready().await, 10);
    }

    #[tokio::test]
    async fn slow_handlers_read_nothing_ahead_until_they_are_quick_again() {
        let capacity = Capacity::new(1, None);
        let start = capacity.adapted.lock().unwrap().at;
        capacity.occupy(2);
        capacity.give_back(1);
        assert_eq!(capacity.free(), 0, "the one that runs");
        capacity.release();
        assert_eq!(capacity.ready().await, 1, "no more than can run");
        let after_seconds = |seconds: u64, finished| {
            capacity.finished.fetch_add(finished, Ordering::Relaxed);
            capacity.busy.store(seconds * 1_000_000, Ordering::Relaxed);
            capacity.adapt(start + Duration::from_secs(seconds));
            capacity.total()
        };
        assert_eq!(after_seconds(10, 1), 1, "one in ten seconds");
        assert_eq!(after_seconds(11, 2), 2, "two in a second");
    }

    #[tokio::test]
    async fn time_without_anything_to_handle_does_not_count() {
        let capacity = Capacity::new(16, None);
        let start = capacity.adapted.lock().unwrap().at;
        // Each second so many deliveries come at once, and are handled within so many microseconds.
        let after_seconds = |second: u32, count, micros: u64| {
            capacity.finished.fetch_add(count, Ordering::Relaxed);
            capacity.busy.fetch_add(micros, Ordering::Relaxed);
            capacity.adapt(start + Duration::from_secs(1) * second);
            capacity.prefetch()
        };
        let alone = [1, 2, 3].map(|second| after_seconds(second, 1, 30));
        assert_eq!(alone, [16, 16, 16], "one quick handler says little");
        let bursts = [4, 5, 6].map(|second| after_seconds(second, 500, 20_000));
        assert_eq!(bursts, [64, 256, 1024]);
        let ends = [7, 8, 9].map(|second| after_seconds(second, 20, 600));
        assert_eq!(ends, [1024; 3], "20 in 600 µs");
        let slow = [10, 11, 12].map(|second| after_seconds(second, 16, 900_000));
        assert_eq!(slow, [512, 256, 128]);
    }

    #[tokio::test]
    async fn the_fetcher_pauses_at_a_high_pace_only() {
        let capacity = Capacity::new(16, None);
        let start = capacity.adapted.lock().unwrap().at;
        after(&capacity, start, 5, 1000);
        assert!(!capacity.should_gather(100, 512), "20,000 a second are few");
        after(&capacity, start, 10, 4000);
        assert!(capacity.should_gather(100, 512));
        for (fetched, max) in [(0, 512), (400, 512), (100, 100)] {
            assert!(!capacity.should_gather(fetched, max), "{fetched} of {max}");
        }
        for (gathered, fetched, max, gathers) in [
            (false, 0, 512, false),
            (true, 0, 512, true),
            (true, 31, 512, false),
            (false, 32, 512, true),
            (false, 511, 512, true),
            (true, 512, 512, false),
        ] {
            let found = capacity.should_gather_after_ring(gathered, fetched, max);
            assert_eq!(found, gathers, "{fetched} of {max}, after {gathered}");
        }
        after(&capacity, start, 15, 0);
        assert!(!capacity.should_gather(100, 512));
        for fetched in [0, 100] {
            assert!(!capacity.should_gather_after_ring(true, fetched, 512));
        }
        let fixed = Capacity::new(4, Some(6));
        let start = fixed.adapted.lock().unwrap().at;
        after(&fixed, start, 5, 1_000_000);
        assert!(
            !fixed.should_gather(1, 5),
            "a set prefetch rules out pauses"
        );
        // Its own pace says nothing where many other topics are busy.
        let mut quiet = Capacity::new(16, None);
        quiet.join(Arc::clone(&fixed.pace));
        assert!(quiet.should_gather(1, 16));
    }

    /// Counts how often a sleeping fetcher is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A handler finishes.
        Release,
        /// The reclaimer takes this many of the deliveries that it may take.
        Reclaim(usize),
        /// The fetcher, where it is awake, reads this many of the deliveries that it may take, and
        /// then adapts the prefetch after this many milliseconds.
        Read(usize, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Release),
            1 => (0_usize..64).prop_map(Step::Reclaim),
            3 => (0_usize..64, 0_u32..200).prop_map(|(read, millis)| Step::Read(read, millis)),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// The model is two numbers, `occupied` and `prefetch`, and a fetcher that polls only when
        /// it is woken, as an executor does.
        #[test]
        fn the_fetcher_is_awake_exactly_while_a_read_is_worthwhile(
            concurrency in 1_usize..20, set in prop::option::of(1_usize..20), steps in steps()
        ) {
            let capacity = Capacity::new(concurrency, set);
            let (mut occupied, mut prefetch) = (0_usize, set.unwrap_or(concurrency));
            let mut now = capacity.adapted.lock().unwrap().at;
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let mut context = Context::from_waker(&waker);
            let mut ready: Pin<Box<dyn Future<Output = usize> + '_>> = Box::pin(capacity.ready());
            let (mut polled_at, mut awake) = (None, None);
            for step in steps {
                if awake.is_none() && polled_at != Some(wakes.0.load(Ordering::SeqCst)) {
                    polled_at = Some(wakes.0.load(Ordering::SeqCst));
                    if let Poll::Ready(free) = pin!(&mut ready).poll(&mut context) {
                        awake = Some(free);
                    }
                }
                let free = (concurrency + prefetch).saturating_sub(occupied);
                let worthwhile = free >= (prefetch / 2).max(2);
                // Once awake the fetcher reads, whatever the reclaimer takes meanwhile.
                prop_assert!(awake.is_some() || !worthwhile, "asleep with {} free", free);
                match step {
                    Step::Release if occupied > 0 => {
                        capacity.release();
                        occupied -= 1;
                    }
                    Step::Release => {}
                    Step::Reclaim(some) => {
                        let most = (concurrency + prefetch + (concurrency / 2).max(2)).saturating_sub(occupied);
                        prop_assert_eq!(capacity.reclaimable(), most);
                        capacity.occupy(some.min(most));
                        occupied += some.min(most);
                    }
                    Step::Read(some, millis) => {
                        let Some(slots) = awake.take() else { continue };
                        prop_assert!(slots >= 2 && slots <= concurrency + prefetch);
                        capacity.occupy(some.min(slots));
                        occupied += some.min(slots);
                        now += std::time::Duration::from_millis(u64::from(millis));
                        capacity.adapt(now);
                        prefetch = capacity.prefetch();
                        prop_assert!(set.is_none_or(|set| set == prefetch));
                        ready = Box::pin(capacity.ready());
                        polled_at = None;
                    }
                }
            }
        }

        #[test]
        fn the_prefetch_stays_within_its_bounds(
            current in 1_usize..=1024, pace in 0.0_f64..1e9, concurrency in 1_usize..10_000
        ) {
            let next = next_prefetch(current, pace, concurrency);
            prop_assert!(next >= 1 && next <= POLICY.max_prefetch.max(current));
            prop_assert!(next <= current * 4 && next >= (current / 2).max(1));
        }
    }

    #[tokio::test]
    async fn a_sleeping_fetcher_wakes_when_a_read_is_worthwhile() {
        let capacity = Arc::new(Capacity::new(4, Some(4)));
        capacity.occupy(8);
        let waiting = tokio::spawn({
            let capacity = Arc::clone(&capacity);
            async move { capacity.ready().await }
        });
        tokio::task::yield_now().await;
        capacity.release();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "one slot is not worth a command");
        capacity.release();
        assert_eq!(waiting.await.unwrap(), 2);
    }
}
