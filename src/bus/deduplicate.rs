//! Publishing with deduplication: a message whose outcome is unknown is safely tried again.

use std::time::Duration;

use metrics::counter;
use tokio::time::{Instant, sleep, timeout_at};

use super::draft::{Draft, alike, copy_entries, note_try};
use super::publish::Publishing;
use crate::domain::{Durability, Error, ErrorKind, RetryPolicy};
use crate::store::{Appended, NewEntry, Partition};

/// The delay before the second try. It doubles before each further try.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(1);
/// The number of tries, the first one included.
const TRIES: u32 = 5;

impl Publishing {
    /// Appends the open drafts, and tries again while the outcome of any is unknown.
    pub(super) async fn append_once(
        &self,
        at: &Partition,
        (window, level): (Duration, Durability),
        drafts: &mut [Draft],
    ) {
        let began = Instant::now();
        for tries in 1.. {
            let entries = copy_entries(drafts);
            let trying = self.try_once(at, (window, level), &entries);
            let results = if tries == 1 {
                trying.await
            } else {
                // The store repeats a try that was certainly not done, and a connection takes its
                // time: dropped, the try does not reach the store later.
                let answered = timeout_at(began + window / 2, trying).await;
                answered.unwrap_or_else(|_| alike(&too_late(), entries.len()))
            };
            note_try(drafts, results);
            if !drafts.iter().any(Draft::is_unknown) {
                return;
            }
            let delay = delay_before_next(tries, began.elapsed(), window, fastrand::f64());
            let Some(delay) = delay else { return };
            sleep(delay).await;
            counter!("redstart_publish_retries_total", "topic" => at.topic().to_string())
                .increment(1);
        }
    }

    async fn try_once(
        &self,
        at: &Partition,
        (window, level): (Duration, Durability),
        entries: &[NewEntry],
    ) -> Vec<Result<Appended, Error>> {
        let log = self.store.log();
        let appended = match level {
            Durability::Accepted => log.append_once(at, window, entries).await,
            level => log.append_durably(at, level, Some(window), entries).await,
        };
        let appended = appended.unwrap_or_else(|error| alike(&error, entries.len()));
        let duplicates = appended.iter().flatten().filter(|done| done.duplicate);
        let duplicates = duplicates.count() as u64;
        if duplicates > 0 {
            counter!("redstart_publish_duplicates_total", "topic" => at.topic().to_string())
                .increment(duplicates);
        }
        appended
    }
}

/// The error of a try that half of the window has ended.
fn too_late() -> Error {
    let rule = "half of the deduplication window has ended without an answer";
    Error::new(ErrorKind::OutcomeUnknown, "publish", rule)
}

/// The delay before the next try, given the number of `tries` so far. `None` ends the tries.
///
/// A try in the second half of the window is not safe: the window could end before the try arrives,
/// and the store would append the message a second time.
fn delay_before_next(
    tries: u32,
    elapsed: Duration,
    window: Duration,
    random: f64,
) -> Option<Duration> {
    let policy = RetryPolicy::exponential(FIRST_DELAY, MAX_DELAY).with_max_attempts(TRIES);
    let delay = policy.delay_after(tries, random)?;
    (elapsed + delay < window / 2).then_some(delay)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use uuid::Uuid;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::api::{PublishHooks, PublishOptions};
    use crate::domain::{BoxFuture, Codec, Envelope, Topic};
    use crate::store::LogOp;
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::wire::Limits;

    /// Loses every reply of a publish, and counts the tries of each message.
    #[derive(Debug, Default)]
    struct Deaf(Mutex<HashMap<Uuid, u32>>);

    impl Decorator for Deaf {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut to: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            Box::pin(async move {
                let done = to.run(op).await?;
                let Op::Log(LogOp::AppendOnce { entries, .. }) = op else {
                    return Ok(done);
                };
                for entry in entries {
                    *self.0.lock().unwrap().entry(entry.id).or_default() += 1;
                }
                Err(Error::new(ErrorKind::OutcomeUnknown, "publish", "cut"))
            })
        }
    }

    #[tokio::test]
    async fn the_window_counts_from_the_first_try() {
        let topic = Topic::new("orders").unwrap();
        let deaf = Arc::new(Deaf::default());
        let decorator: Arc<dyn Decorator> = deaf.clone();
        let store = Arc::new(Decorated::new(decorator, MemoryStore::new().store(None)));
        let (limits, hooks) = (Limits::default(), PublishHooks::default());
        let bus = Publishing::new(store, Codec::Json, limits, None, hooks);
        // The first pause lasts 50 to 150 milliseconds, the second 100 to 300: both together never
        // end in the first half of this window, and the second alone does once in four.
        let options = PublishOptions::new().with_deduplication(Duration::from_millis(300));
        let messages: Vec<_> = (0..60).map(|n| Envelope::new("n", &n).unwrap()).collect();
        let publishing = messages
            .iter()
            .map(|one| bus.publish_one(&topic, one, options));
        for published in futures_util::future::join_all(publishing).await {
            assert_eq!(published.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        }
        let tries = deaf.0.lock().unwrap();
        assert_eq!(tries.len(), messages.len());
        assert!(tries.values().all(|tries| *tries <= 2), "{tries:?}");
    }

    #[test]
    fn tries_double_their_delay_and_end_with_the_fifth() {
        let minute = Duration::from_secs(60);
        let delay = |tries| delay_before_next(tries, Duration::ZERO, minute, 0.5);
        let millis: Vec<_> = (1..=5)
            .map(|tries| delay(tries).map(|it| it.as_millis()))
            .collect();
        assert_eq!(millis, [Some(100), Some(200), Some(400), Some(800), None]);
    }

    #[test]
    fn no_try_begins_in_the_second_half_of_the_window() {
        let second = Duration::from_secs(1);
        let after = |millis| delay_before_next(1, Duration::from_millis(millis), second, 0.5);
        assert_eq!(after(399), Some(FIRST_DELAY));
        assert_eq!(after(400), None);
    }
}
