//! Publishing once: what may have been appended is safely tried again.

use std::time::Duration;

use metrics::counter;
use tokio::time::{Instant, sleep};

use super::StoreBus;
use crate::api::Published;
use crate::domain::{Error, ErrorKind, RetryPolicy, Topic};
use crate::store::Identified;

/// How long to wait before the first repeat; each further wait is twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// How often it is tried, the first time included.
const TRIES: u32 = 5;

impl StoreBus {
    /// Appends messages, and tries again while the fate of any is unknown.
    pub(super) async fn append_once(
        &self,
        topic: &Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> Vec<Result<Published, Error>> {
        let policy =
            RetryPolicy::exponential(FIRST_DELAY, Duration::from_secs(1)).with_max_attempts(TRIES);
        let began = Instant::now();
        let mut results = self.try_append(topic, window, entries.clone()).await;
        for failed in 1.. {
            let unknown = |result: &Result<_, Error>| {
                let kind = result.as_ref().err().map(Error::kind);
                kind == Some(ErrorKind::OutcomeUnknown)
            };
            if !results.iter().any(unknown) {
                break;
            }
            let Some(delay) = policy.delay_after(failed, fastrand::f64()) else {
                break;
            };
            // Later the window could end before a repeat arrives, and that would be appended.
            if began.elapsed() + delay >= window / 2 {
                break;
            }
            sleep(delay).await;
            counter!("redstart_publish_retries_total", "topic" => topic.to_string()).increment(1);
            // Also those that wait behind an unknown one, so that the order is kept.
            let open =
                |result: &Result<_, Error>| result.as_ref().err().is_some_and(Error::is_retryable);
            let again = entries
                .iter()
                .zip(&results)
                .filter(|(_, result)| open(result));
            let again = again.map(|(entry, _)| entry.clone()).collect();
            let mut again = self.try_append(topic, window, again).await.into_iter();
            for result in results.iter_mut().filter(|result| open(result)) {
                match again.next() {
                    // It may have been appended before, whatever this try says of itself.
                    Some(Err(_)) if unknown(result) => {}
                    Some(now) => *result = now,
                    None => break,
                }
            }
        }
        results
    }

    async fn try_append(
        &self,
        topic: &Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> Vec<Result<Published, Error>> {
        let appended = self.store.append_once(topic, window, entries).await;
        let mut duplicates = 0;
        let published = appended
            .into_iter()
            .map(|result| {
                result.map(|done| {
                    duplicates += u64::from(done.duplicate);
                    Published {
                        id: done.id,
                        duplicate: done.duplicate,
                    }
                })
            })
            .collect();
        if duplicates > 0 {
            counter!("redstart_publish_duplicates_total", "topic" => topic.to_string())
                .increment(duplicates);
        }
        published
    }
}
