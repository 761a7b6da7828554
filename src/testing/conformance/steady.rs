//! Checks of leases, on a machine that may be busy.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Subject;
use super::support::{SOON, Stage};
use crate::store::Store;

impl<S: Subject> Stage<'_, S> {
    /// Runs a part of a check until it succeeds. A failure counts only if the store and this process were fast
    /// enough meanwhile to keep a lease.
    pub(super) async fn steadily<T>(
        &self,
        lease: Duration,
        what: &str,
        mut part: impl AsyncFnMut() -> Result<T, String>,
    ) -> T {
        self.until(what, async || {
            let (ended, slowest) = timed(&*self.store, part()).await;
            ended
                .map_err(|error| assert!(slowest > lease / 3, "{what}: {error}"))
                .ok()
        })
        .await
    }
}

/// Runs a part of a check, and measures the longest time in which this process and the store did nothing.
async fn timed<T>(store: &dyn Store, part: impl Future<Output = T>) -> (T, Duration) {
    let (mut part, mut slowest) = (pin!(part), Duration::ZERO);
    loop {
        let began = Instant::now();
        let lap = async {
            sleep(SOON).await;
            let _ = store.inspect().ping().await;
        };
        let ended = tokio::select! {
            ended = &mut part => Some(ended),
            () = lap => None,
        };
        slowest = slowest.max(began.elapsed());
        if let Some(ended) = ended {
            return (ended, slowest);
        }
    }
}
