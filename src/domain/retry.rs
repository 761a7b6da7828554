//! When a failed message is tried again.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use backoff::SystemClock;
use backoff::backoff::Backoff as _;
use backoff::exponential::ExponentialBackoff;

use super::panic::discard;

type CustomDelay = dyn Fn(u32) -> Duration + Send + Sync;

/// The delay of a custom policy that panics.
const FALLBACK: Duration = Duration::from_secs(60);

/// How many attempts a message has, and the delay before each retry.
///
/// Failures and crashes count as attempts; a shutdown and a snooze do not.
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryPolicy {
    max_attempts: u32,
    delay: Delay,
}

#[derive(Clone)]
enum Delay {
    Exponential { first: Duration, max: Duration },
    Fixed(Duration),
    Custom(Arc<CustomDelay>),
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exponential { first, max } => write!(f, "exponential {first:?}..{max:?}"),
            Self::Fixed(delay) => write!(f, "fixed {delay:?}"),
            Self::Custom(_) => f.write_str("custom"),
        }
    }
}

/// Five attempts; exponential delays from one second to five minutes.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(300))
    }
}

impl RetryPolicy {
    /// The longest delay that a policy gives: 30 days. [`Outcome::MAX_DELAY`](super::Outcome::MAX_DELAY)
    /// bounds a delay that a handler names.
    pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// Doubles the delay after every failure, from `first` up to `max`.
    ///
    /// Each delay is jittered by up to half in both directions, so that messages that failed
    /// together do not return together.
    pub fn exponential(first: Duration, max: Duration) -> Self {
        Self::with_delay(Delay::Exponential { first, max })
    }

    /// Waits the same time after every failure.
    ///
    /// A message with a short delay waits in its process, as
    /// [`with_hold_back`](crate::SubscribeOptions::with_hold_back) says. With a delay of zero a message
    /// that is not held back goes straight to the end of the group's redelivery stream, which costs
    /// the server half as much as a scheduled retry.
    pub fn fixed(delay: Duration) -> Self {
        Self::with_delay(Delay::Fixed(delay))
    }

    /// Calls a function with the number of failed attempts, 1 after the first. If it panics, the
    /// delay is one minute.
    pub fn custom(delay: impl Fn(u32) -> Duration + Send + Sync + 'static) -> Self {
        Self::with_delay(Delay::Custom(Arc::new(delay)))
    }

    fn with_delay(delay: Delay) -> Self {
        Self {
            max_attempts: 5,
            delay,
        }
    }

    /// Sets how many attempts a message has before it is dead-lettered, at least 1; by default 5.
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// The number of attempts that a message has.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The delay after `failed` failed attempts, or `None` when the message is exhausted.
    ///
    /// `random` is uniform in `0.0..1.0`; passing it in keeps the decision pure.
    #[doc(hidden)]
    #[must_use]
    pub fn delay_after(&self, failed: u32, random: f64) -> Option<Duration> {
        if failed >= self.max_attempts {
            return None;
        }
        let delay = match &self.delay {
            Delay::Fixed(delay) => *delay,
            // A policy that panics must not end its worker.
            Delay::Custom(delay) => catch_unwind(AssertUnwindSafe(|| delay(failed)))
                .unwrap_or_else(|panic| {
                    discard(panic);
                    FALLBACK
                }),
            Delay::Exponential { first, max } => {
                jittered(grown(*first, *max, failed), random).min(*max)
            }
        };
        Some(delay.min(Self::MAX_DELAY))
    }
}

/// The delay before jitter: `first`, doubled with every failure, up to `max`.
///
/// `backoff` 0.4 does not accept a random source, so it only grows the interval here; `jittered`
/// applies the injected number.
fn grown(first: Duration, max: Duration, failed: u32) -> Duration {
    let mut interval = ExponentialBackoff::<SystemClock> {
        current_interval: first.min(max),
        initial_interval: first.min(max),
        randomization_factor: 0.0,
        multiplier: 2.0,
        max_interval: max,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    // 64 doublings exceed every possible maximum.
    (0..failed.clamp(1, 64)).fold(first.min(max), |last, _| {
        interval.next_backoff().unwrap_or(last)
    })
}

/// Jitters a delay by up to half in both directions.
fn jittered(delay: Duration, random: f64) -> Duration {
    delay
        .min(RetryPolicy::MAX_DELAY)
        .mul_f64(0.5 + random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_maximum() {
        let policy = RetryPolicy::exponential(SECOND, 10 * SECOND).with_max_attempts(100);
        // 0.5 is the middle of the jitter: the delay itself.
        let delays: Vec<u64> = (1..=6)
            .map(|n| policy.delay_after(n, 0.5).unwrap().as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn the_last_attempt_has_no_delay_after_it() {
        let policy = RetryPolicy::fixed(SECOND).with_max_attempts(3);
        assert_eq!(policy.delay_after(2, 0.0), Some(SECOND));
        assert_eq!(policy.delay_after(3, 0.0), None);
        assert_eq!(
            RetryPolicy::fixed(SECOND)
                .with_max_attempts(0)
                .max_attempts(),
            1
        );
    }

    #[test]
    fn a_custom_delay_sees_the_failures_and_is_bounded() {
        let policy = RetryPolicy::custom(|failed| if failed == 1 { SECOND } else { Duration::MAX });
        assert_eq!(policy.delay_after(1, 0.0), Some(SECOND));
        assert_eq!(policy.delay_after(2, 0.0), Some(RetryPolicy::MAX_DELAY));
    }

    #[test]
    fn a_custom_delay_that_panics_is_a_minute() {
        let policy = RetryPolicy::custom(|_| panic!("deliberate"));
        assert_eq!(policy.delay_after(1, 0.0), Some(FALLBACK));
    }

    proptest! {
        #[test]
        fn jitter_stays_within_half_and_below_the_maximum(
            first in 0_u64..1_000_000, longest in 0_u64..100_000_000, failed in 1_u32..4_000_000_000, random in 0.0_f64..1.0
        ) {
            let (first, longest) = (Duration::from_millis(first), Duration::from_millis(longest));
            let policy = RetryPolicy::exponential(first, longest).with_max_attempts(u32::MAX);
            let delay = policy.delay_after(failed, random).unwrap();
            prop_assert!(delay <= longest);
            prop_assert!(delay + Duration::from_nanos(1) >= first.min(longest).mul_f64(0.5));
        }

        #[test]
        fn the_middle_never_shrinks(failed in 1_u32..100) {
            let policy = RetryPolicy::default().with_max_attempts(u32::MAX);
            prop_assert!(policy.delay_after(failed, 0.5) <= policy.delay_after(failed + 1, 0.5));
        }
    }
}
