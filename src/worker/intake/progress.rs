//! How long deliveries have been in this process: handlers that hang show here.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::lease::Lease;

/// How long a delivery may wait for a handler before the subscription counts as unwell.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// The deliveries in flight at one time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Progress {
    /// How many handlers have not returned.
    running: usize,
    longest_run: Duration,
    /// How many deliveries wait for a handler.
    waiting: usize,
    longest_wait: Duration,
    /// The time since the oldest delivery was handed out.
    pub(crate) oldest: Duration,
}

impl Progress {
    /// Adds a delivery.
    pub(super) fn add(&mut self, lease: &Lease, now: Instant) {
        let since = lease.since().unwrap_or(now);
        let age = now.saturating_duration_since(since);
        self.oldest = self.oldest.max(age);
        if lease.is_running() {
            self.running += 1;
            self.longest_run = self.longest_run.max(age);
        } else if !lease.is_begun() && !lease.is_cancelled() {
            self.waiting += 1;
            self.longest_wait = self.longest_wait.max(age);
        }
    }

    /// Why the subscription makes no progress, if it makes none: a delivery has waited too long for a
    /// handler.
    pub(crate) fn problem(self) -> Option<String> {
        if self.longest_wait < LONGEST_WAIT {
            return None;
        }
        Some(format!(
            "handlers hang or are too slow: {} deliveries wait for one, the oldest for {} s; {} are with \
             handlers, the oldest for {} s",
            self.waiting,
            self.longest_wait.as_secs(),
            self.running,
            self.longest_run.as_secs(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_delivery_that_waits_too_long_is_a_problem_and_a_long_run_alone_is_not() {
        let start = Instant::now();
        let lease = |age: u32| Lease::new(1, 0, false, start + (1000 - age) * SECOND);
        let now = start + 1000 * SECOND;
        let running = lease(900);
        running.begin();
        let returned = lease(990);
        returned.begin();
        returned.end_call();
        let cancelled = lease(800);
        cancelled.cancel();
        let mut progress = Progress::default();
        assert_eq!(progress.problem(), None);
        for lease in [&running, &returned, &cancelled, &lease(599)] {
            progress.add(lease, now);
        }
        assert_eq!(progress.oldest, 990 * SECOND);
        assert_eq!(progress.problem(), None);
        progress.add(&lease(600), now);
        let problem = "handlers hang or are too slow: 2 deliveries wait for one, the oldest for 600 s; 1 are \
                       with handlers, the oldest for 900 s";
        assert_eq!(progress.problem().as_deref(), Some(problem));
    }
}
