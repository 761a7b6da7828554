//! Whether a server's clock was set forward. Leases then end early, and another consumer may have taken
//! a delivery over, and ended it, while this process still counts on its lease.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much further a server's clock may come than this machine's within one interval.
const SLACK: Duration = Duration::from_millis(50);
/// The part of an interval by which it may come further: clocks are slewed, and drift.
const DRIFT: f64 = 0.001;
/// How long no lease is counted on after a clock was set forward. Consumers extend their leases at
/// once, except for the longest ones.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The clocks of the servers, by slot: each may have one of its own.
#[derive(Debug, Default)]
pub(super) struct Clocks(Mutex<HashMap<u16, Clock>>);

#[derive(Clone, Copy, Debug)]
struct Clock {
    /// A time before the server read its clock.
    before: Instant,
    /// What it read, in milliseconds.
    read: u64,
    set_forward: Option<Instant>,
}

impl Clocks {
    /// Notes what a server's clock says in an answer to a call that was sent at `before`. Returns whether
    /// it was set forward in the last hour, as far as anybody noticed.
    pub(super) fn note(&self, slot: u16, before: Instant, read: u64, now: Instant) -> bool {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Clock {
            before,
            read,
            set_forward: None,
        };
        let clock = clocks.entry(slot).or_insert(new);
        let passed = now.saturating_duration_since(clock.before);
        let most = passed + SLACK + passed.mul_f64(DRIFT);
        if u128::from(read.saturating_sub(clock.read)) > most.as_millis() {
            clock.set_forward = Some(now);
        }
        (clock.before, clock.read) = (before, read);
        let recent = |at: Instant| now.saturating_duration_since(at) < REMEMBERED;
        clock.set_forward.is_some_and(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_comes_further_than_time_passed_was_set_forward() {
        let (clocks, start) = (Clocks::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!clocks.note(0, at(0), 1_000_000, at(10)), "the first");
        assert!(!clocks.note(0, at(500), 1_000_530, at(520)));
        // An answer that takes long says little.
        assert!(!clocks.note(0, at(600), 1_030_500, at(30_600)));
        assert!(!clocks.note(0, at(30_600), 1_020_000, at(30_610)), "back");
        assert!(clocks.note(0, at(31_000), 1_021_000, at(31_010)), "and on");
        assert!(clocks.note(0, at(32_000), 1_022_000, at(32_010)), "later");
        assert!(!clocks.note(1, at(32_000), 9_000_000, at(32_010)));
        let hour = 3_600_000;
        let late = clocks.note(0, at(hour + 32_000), 1_022_000 + hour, at(hour + 32_010));
        assert!(!late, "an hour later");
    }
}
