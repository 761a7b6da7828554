//! Supervision of background tasks: a task that panics starts again, and health says which one died.
//!
//! A background task must not panic, but code of others runs in it: the adapter of a store, a
//! subscriber of `tracing`, a recorder of `metrics`. `tracing_subscriber::fmt` panics when it cannot
//! write to stderr.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{sleep, timeout};

use crate::domain::{RetryPolicy, discard, panic_text_of};

/// A task that has run for this long after its restart works again. Longer than the longest wait of
/// any task, so that a task which dies at each round is reported all the time.
const STEADY: Duration = Duration::from_secs(6);

/// How long to wait after `failures` failures in a row: from 100 milliseconds to 5 seconds, jittered.
///
/// Background work neither spins nor gives up.
pub(crate) fn back_off(failures: u32) -> Duration {
    RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(5))
        .with_max_attempts(u32::MAX)
        .delay_after(failures.max(1), fastrand::f64())
        .unwrap_or(Duration::from_secs(5))
}

/// Writes a log line where a panic of the subscriber must not end the work.
pub(crate) fn log(write: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(write)) {
        discard(panic);
    }
}

/// Watches a set of background tasks. Clones watch the same set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    /// The tasks that died, each with its panic, until they work again.
    died: Mutex<BTreeMap<&'static str, String>>,
    /// A task was dropped before its end: the runtime that drove it has ended.
    dropped: AtomicBool,
}

impl Watch {
    fn died(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.died.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the tasks that died and do not work again yet.
    pub(crate) fn problem(&self) -> Option<String> {
        let died = self.died();
        let each: Vec<&str> = died.values().map(String::as_str).collect();
        (!each.is_empty()).then(|| each.join("; "))
    }

    /// Whether a task was dropped before its end.
    pub(crate) fn has_lost_its_runtime(&self) -> bool {
        self.0.dropped.load(Ordering::Acquire)
    }

    /// Runs a task to its end. A task that panics is started again, under back-off.
    ///
    /// `start` makes the task's future; it is told whether an earlier one has panicked.
    pub(crate) fn supervise<F, S>(
        &self,
        name: &'static str,
        mut start: S,
    ) -> impl Future<Output = ()> + use<F, S>
    where
        F: Future<Output = ()>,
        S: FnMut(bool) -> F,
    {
        // Made here and not in the future, which a runtime that ends may drop unpolled.
        let end = End {
            watch: self.clone(),
            reached: false,
        };
        async move {
            let (mut end, mut failures) = (end, 0);
            while let Err(panic) = end.watch.run(name, &mut failures, &mut start).await {
                failures += 1;
                let text = panic_text_of(name, panic);
                log(|| tracing::error!(task = name, text, "a background task starts again"));
                end.watch.died().insert(name, text);
                sleep(back_off(failures)).await;
            }
            end.watch.died().remove(name);
            end.reached = true;
        }
    }

    /// Runs the task once. Forgets its failures when it has run for a while.
    async fn run<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        failures: &mut u32,
        start: &mut impl FnMut(bool) -> F,
    ) -> Result<(), Box<dyn std::any::Any + Send>> {
        let again = *failures > 0;
        let started = catch_unwind(AssertUnwindSafe(|| start(again)))?;
        let mut running = pin!(AssertUnwindSafe(started).catch_unwind());
        if again {
            match timeout(STEADY, running.as_mut()).await {
                Ok(ended) => return ended,
                Err(_) => {
                    *failures = 0;
                    self.died().remove(name);
                }
            }
        }
        running.await
    }
}

/// Notices that a task is dropped before its end.
struct End {
    watch: Watch,
    reached: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.reached {
            self.watch.0.dropped.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bounds() {
        for failures in [0, 1, 2, 50, u32::MAX] {
            let wait = back_off(failures);
            assert!((Duration::from_millis(50)..=Duration::from_secs(5)).contains(&wait));
        }
        assert!(back_off(50) >= Duration::from_millis(2500));
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let waiting = async {
            while !is_so() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(10 * STEADY, waiting).await;
        waited.unwrap_or_else(|_| panic!("timed out waiting for {what}"));
    }

    #[tokio::test]
    async fn a_task_that_panics_starts_again_and_is_named_until_it_works() {
        let (watch, starts) = (Watch::default(), Arc::<Mutex<Vec<bool>>>::default());
        let seen = Arc::clone(&starts);
        let task = tokio::spawn(watch.supervise("the reader", move |again| {
            seen.lock().unwrap().push(again);
            let panics = seen.lock().unwrap().len() < 3;
            async move {
                assert!(!panics, "no paper");
                std::future::pending().await
            }
        }));
        let problem = || watch.problem();
        until("the panic", || problem().is_some()).await;
        assert_eq!(problem().unwrap(), "the reader panicked: no paper");
        until("the restart", || starts.lock().unwrap().len() == 3).await;
        assert!(problem().is_some(), "it has not worked yet");
        until("health", || problem().is_none()).await;
        assert_eq!(*starts.lock().unwrap(), [false, true, true]);
        assert!(!watch.has_lost_its_runtime());
        task.abort();
    }

    #[test]
    fn a_task_that_its_runtime_drops_is_noticed() {
        let (driven, undriven) = (Watch::default(), Watch::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(driven.supervise("a", |_| std::future::ready(())));
        drop(runtime.spawn(undriven.supervise("b", |_| std::future::pending())));
        assert!(!undriven.has_lost_its_runtime());
        drop(runtime);
        assert!(undriven.has_lost_its_runtime());
        assert!(!driven.has_lost_its_runtime());
    }

    #[test]
    fn a_log_line_that_panics_ends_nothing() {
        log(|| panic!("no paper"));
    }
}
