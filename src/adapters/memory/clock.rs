//! A clock that is set by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::{Clock, Timestamp, whole_millis};

/// The last whole second that a [`Timestamp`] can hold, in the year 9999.
const LATEST: i64 = 253_402_207_200_000;

/// A clock that stands still until it is set forward. Clones are the same clock.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use redstart::{envelope::Timestamp, memory::{Clock, ManualClock}};
///
/// let clock = ManualClock::new("2025-11-12T14:20:00Z".parse()?);
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().to_string(), "2025-11-12T15:20:00.000Z");
/// # Ok::<(), redstart::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    now: Mutex<Timestamp>,
    set: Notify,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        let inner = Inner {
            now: Mutex::new(start),
            set: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sets the clock forward, by whole milliseconds, rounded up; at most to the end of the
    /// year 9999. What has come due by that is promoted at once.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(whole_millis(by)).unwrap_or(i64::MAX);
        {
            let mut now = self
                .inner
                .now
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let then = now.as_millis().saturating_add(by).min(LATEST);
            *now = Timestamp::from_millis(then).unwrap_or(*now);
        }
        self.inner.set.notify_waiters();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self
            .inner
            .now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Made here and not when it is first polled: it hears of everything from now on.
        Box::pin(self.inner.set.notified())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asked_before_it_was_set_is_told() {
        let clock = ManualClock::new(Timestamp::from_millis(5).unwrap());
        let asked = clock.set();
        clock.clone().advance(Duration::from_micros(1));
        asked.await;
        assert_eq!(clock.now().as_millis(), 6);
    }

    #[test]
    fn it_stops_at_the_end_of_time() {
        let clock = ManualClock::new(Timestamp::from_millis(0).unwrap());
        clock.advance(Duration::MAX);
        assert_eq!(clock.now().as_millis(), LATEST);
    }
}
