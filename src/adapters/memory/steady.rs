//! Keeps the store's time from going back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{Clock, Timestamp};

/// A clock that goes on where it was when the clock below it is set back, such as by NTP or because
/// a virtual machine is restored. Without it, retries and times to live would last longer by the
/// time that the clock lost.
#[derive(Debug)]
pub(super) struct Steady {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last time of the clock below.
    last: i64,
    /// How many milliseconds the clock below was set back, in total.
    lost: i64,
}

impl Steady {
    pub(super) fn new(clock: impl Clock + 'static) -> Self {
        Self {
            state: Mutex::new(State {
                last: clock.now().as_millis(),
                lost: 0,
            }),
            clock: Arc::new(clock),
        }
    }
}

impl Clock for Steady {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, or a thread that is late would look like a clock that was set back.
        let time = self.clock.now();
        let millis = time.as_millis();
        state.lost += state.last.saturating_sub(millis).max(0);
        state.last = millis;
        Timestamp::from_millis(millis.saturating_add(state.lost)).unwrap_or(time)
    }

    fn set(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.clock.set()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// A wall clock that anyone can set.
    #[derive(Debug, Default)]
    struct Wall(AtomicI64);

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::SeqCst)).unwrap()
        }
    }

    #[test]
    fn time_goes_on_where_it_was_when_the_clock_is_set_back() {
        let wall = Arc::new(Wall::default());
        let clock = Steady::new(Arc::clone(&wall));
        let shown = |millis| {
            wall.0.store(millis, Ordering::SeqCst);
            clock.now().as_millis()
        };
        assert_eq!(shown(1_000_000), 1_000_000);
        assert_eq!(shown(10), 1_000_000);
        assert_eq!(shown(2_010), 1_002_000);
        assert_eq!(shown(2_000), 1_002_000);
        assert_eq!(shown(2_001), 1_002_001);
    }
}
