//! How many deliveries a second all subscriptions of a container finish together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time over which the pace is measured.
const WINDOW: Duration = Duration::from_millis(50);

/// The pace of a container.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: AtomicU64,
    /// When the last measurement ended, and the deliveries that were finished since.
    since: Mutex<(Instant, u64)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            per_second: AtomicU64::new(0),
            since: Mutex::new((Instant::now(), 0)),
        }
    }
}

impl Pace {
    /// Counts deliveries that a subscription has finished up to now.
    pub(crate) fn add(&self, finished: u64, now: Instant) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.1 += finished;
        let passed = now.saturating_duration_since(since.0);
        if passed >= WINDOW {
            let pace = since.1 as f64 / passed.as_secs_f64();
            self.per_second.store(pace as u64, Ordering::Relaxed);
            *since = (now, 0);
        }
    }

    /// Finished deliveries a second, as measured last.
    pub(crate) fn per_second(&self) -> u64 {
        self.per_second.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pace_is_that_of_all_subscriptions_in_the_last_window() {
        let pace = Pace::default();
        let start = pace.since.lock().unwrap().0;
        pace.add(3000, start + WINDOW / 2);
        assert_eq!(pace.per_second(), 0, "not measured yet");
        pace.add(2000, start + WINDOW);
        assert_eq!(pace.per_second(), 100_000);
        pace.add(10, start + WINDOW + Duration::from_secs(1));
        assert_eq!(pace.per_second(), 10);
    }
}
