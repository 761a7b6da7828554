//! The pace of a sweep: a rate, reached by a ramp.

use std::time::Duration;

/// The share of the rate with which a ramp begins.
const FIRST_SHARE: f64 = 0.1;

/// A rate per second, and the ramp in which it grows evenly from a tenth to the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: f64,
    ramp: f64,
}

impl Pace {
    /// A rate of zero counts as one a second.
    pub(crate) fn new(per_second: u32, ramp: Duration) -> Self {
        Self {
            rate: f64::from(per_second.max(1)),
            ramp: ramp.as_secs_f64(),
        }
    }

    /// When the next item is due after `done` items, measured from the start.
    pub(crate) fn due(&self, done: u64) -> Duration {
        let done = done as f64;
        let in_ramp = self.rate * self.ramp * f64::midpoint(FIRST_SHARE, 1.0);
        let seconds = if done >= in_ramp {
            self.ramp + (done - in_ramp) / self.rate
        } else {
            // done = rate · (first · t + (1 − first) · t² / 2 ramp), solved for t.
            let grows = (1.0 - FIRST_SHARE) / (2.0 * self.ramp);
            let root = (FIRST_SHARE * FIRST_SHARE + 4.0 * grows * done / self.rate).sqrt();
            (root - FIRST_SHARE) / (2.0 * grows)
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// The size of a portion: about twenty portions a second, none larger than `most`.
    pub(crate) fn portion(&self, most: usize) -> usize {
        ((self.rate / 20.0) as usize).clamp(1, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_ramp_the_rate_holds_from_the_start() {
        let pace = Pace::new(100, Duration::ZERO);
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(50), Duration::from_millis(500));
        assert_eq!(pace.due(1000), Duration::from_secs(10));
    }

    #[test]
    fn a_ramp_begins_with_a_tenth_and_ends_with_the_rate() {
        let pace = Pace::new(100, Duration::from_secs(10));
        // 10 a second at first: the second one after a little less than 0.1 s.
        assert!((0.09..0.1).contains(&pace.due(1).as_secs_f64()));
        let apart = pace.due(10_001) - pace.due(10_000);
        assert!((0.0099..0.0101).contains(&apart.as_secs_f64()));
        // 550 within the ramp: ten seconds at 55 a second on average.
        assert!((9.99..10.01).contains(&pace.due(550).as_secs_f64()));
    }

    #[test]
    fn portions_grow_with_the_rate() {
        let portion = |rate| Pace::new(rate, Duration::ZERO).portion(500);
        assert_eq!((portion(1), portion(0), portion(100)), (1, 1, 5));
        assert_eq!(portion(1_000_000), 500);
    }

    proptest! {
        #[test]
        fn items_are_due_in_their_order(
            rate in any::<u32>(), ramp in 0..100_000_u64, done in 0..10_000_000_u64
        ) {
            let pace = Pace::new(rate, Duration::from_millis(ramp));
            prop_assert!(pace.due(done) <= pace.due(done + 1));
        }
    }
}
