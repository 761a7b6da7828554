//! When readers on the shared connection look although nothing has rung.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often a reader looks although nothing has rung.
const LOOK_EVERY: Duration = Duration::from_secs(50);
/// The bound where a container has very many readers. Consumers that are silent for longer than
/// `Topics::LIVE_WITHIN` count as dead.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(100);
/// The time between the looks of two readers, where they have enough.
const BETWEEN_LOOKS: Duration = Duration::from_millis(9);
/// Looks that are due in the same span of this length are sent together: one wake-up then serves many.
const LOOK_TOGETHER: Duration = Duration::from_millis(250);

/// The readers on the shared connection.
#[derive(Debug)]
pub(super) struct Readers {
    count: AtomicUsize,
    began: Instant,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }
}

/// One of the readers on the shared connection. Dropping it takes it out.
#[derive(Debug)]
pub(in crate::adapters::redis) struct SharedReaders(Arc<Readers>);

impl SharedReaders {
    /// Counts a reader.
    pub(super) fn enter(readers: &Arc<Readers>) -> Self {
        readers.count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(readers))
    }

    /// When a reader looks that has looked, although nothing has rung. The rate of looks is bounded,
    /// however many readers there are.
    pub(in crate::adapters::redis) fn next_look(&self, looked: Instant) -> Instant {
        let readers = self.0.count.load(Ordering::Relaxed);
        let readers = u32::try_from(readers).unwrap_or(u32::MAX);
        let pause = BETWEEN_LOOKS.saturating_mul(readers);
        let pause = pause.clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY);
        // Spread out, because all readers look at the beginning.
        let at = looked + pause.mul_f64(0.75 + fastrand::f64() / 4.0);
        let since = at.saturating_duration_since(self.0.began).as_millis();
        let spans = since.div_ceil(LOOK_TOGETHER.as_millis());
        self.0.began + LOOK_TOGETHER.saturating_mul(u32::try_from(spans).unwrap_or(u32::MAX))
    }
}

impl Drop for SharedReaders {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn looks_of_many_readers_come_together_and_spread_over_the_pause() {
        let readers = Arc::<Readers>::default();
        readers.count.store(10_000, Ordering::Relaxed);
        let one_of = SharedReaders(Arc::clone(&readers));
        let looked = readers.began + Duration::from_secs(7);
        let looks: BTreeSet<Duration> = (0..10_000)
            .map(|_| one_of.next_look(looked) - looked)
            .collect();
        let (first, last) = (looks.first().unwrap(), looks.last().unwrap());
        assert!(*first >= LOOK_EVERY && *last <= LOOK_AT_LEAST_EVERY);
        // 67 to 90 seconds in spans of a quarter of a second.
        assert!(looks.len() <= 101, "{} moments", looks.len());
        assert!(looks.len() > 80, "{} moments", looks.len());
    }
}
