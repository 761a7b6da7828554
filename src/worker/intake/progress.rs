//! How long deliveries have been in this process: handlers that hang show here.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::lease::Lease;
use crate::store::DeliveryId;

/// How long every handler may run before the subscription counts as unwell.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

/// How long a handler without a time limit may run before that.
const WITHOUT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The deliveries in flight at one time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Progress {
    /// How many handlers have not returned.
    running: usize,
    /// The delivery that is with its handler for the longest time, and that time.
    longest: Option<(DeliveryId, Duration)>,
    /// The time since the oldest delivery was handed out.
    pub(crate) oldest: Duration,
}

impl Progress {
    /// Adds a delivery.
    pub(super) fn add(&mut self, id: DeliveryId, lease: &Lease, now: Instant) {
        let since = lease.since();
        let age = now.saturating_duration_since(since);
        self.oldest = self.oldest.max(age);
        if lease.is_running() {
            self.running += 1;
            if self.longest.is_none_or(|(_, longest)| age > longest) {
                self.longest = Some((id, age));
            }
        }
    }

    /// Why handlers seem to hang: one has run for more than half of the time that it may take, given
    /// the longest time limit of the subscription's handlers.
    pub(crate) fn problem(self, limit: Option<Duration>) -> Option<String> {
        let (id, longest) = self.longest?;
        let patience = limit.map_or(WITHOUT_LIMIT, |limit| SHORTEST.max(limit / 2));
        if longest < patience {
            return None;
        }
        let limit = match limit {
            Some(limit) => format!("the time limit is {} s", limit.as_secs()),
            None => "it has no time limit".to_owned(),
        };
        Some(format!(
            "a handler hangs or is slow: entry {id} has been with it for {} s, {limit}; handlers that \
             have not returned: {}",
            longest.as_secs(),
            self.running,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntryId;
    use crate::store::Lane;

    const MINUTE: Duration = Duration::from_secs(60);

    fn id(sequence: u64) -> DeliveryId {
        DeliveryId::new(Lane::Log, EntryId::new(7, sequence))
    }

    /// Deliveries whose handlers have run for so many minutes.
    fn running(minutes: &[u32]) -> Progress {
        let start = Instant::now();
        let now = start + 1000 * MINUTE;
        let mut progress = Progress::default();
        for (minutes, seq) in minutes.iter().zip(1..) {
            let lease = Lease::new(1, 0, false, now - *minutes * MINUTE);
            lease.begin();
            progress.add(id(seq), &lease, now);
        }
        progress
    }

    #[test]
    fn the_longest_run_is_a_problem_after_half_of_the_time_limit() {
        let limit = Some(60 * MINUTE);
        assert_eq!(running(&[]).problem(limit), None);
        assert_eq!(running(&[1, 29]).problem(limit), None);
        assert_eq!(
            running(&[1, 30]).problem(limit).as_deref(),
            Some(
                "a handler hangs or is slow: entry 7-2 has been with it for 1800 s, the time limit is \
                 3600 s; handlers that have not returned: 2"
            )
        );
    }

    #[test]
    fn a_short_limit_that_has_no_effect_is_a_problem_after_ten_minutes() {
        let limit = Some(MINUTE);
        assert_eq!(running(&[9]).problem(limit), None);
        assert!(running(&[10]).problem(limit).is_some());
    }

    #[test]
    fn a_run_without_a_limit_is_a_problem_after_half_an_hour() {
        assert_eq!(running(&[29]).problem(None), None);
        let problem = running(&[30]).problem(None).unwrap();
        assert!(problem.contains("no time limit"), "{problem}");
    }

    #[test]
    fn a_delivery_without_a_running_handler_is_no_problem() {
        let now = Instant::now() + 100 * MINUTE;
        let lease = || Lease::new(1, 0, false, now - 50 * MINUTE);
        let returned = lease();
        returned.begin();
        returned.end_call();
        let mut progress = Progress::default();
        for lease in [lease(), returned] {
            progress.add(id(1), &lease, now);
        }
        assert_eq!(progress.oldest, 50 * MINUTE);
        assert_eq!(progress.problem(None), None);
    }
}
