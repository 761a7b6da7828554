//! Faults between a container and its store, on demand.

use std::collections::BTreeMap;
use std::fmt;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{BoxFuture, Error, ErrorKind};
use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use crate::store::{Appended, LogAnswer, LogOp, NewEntry, Store};

/// How publishing a message fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PublishFault {
    /// It certainly was not published: [`ErrorKind::Unavailable`].
    NotPublished,
    /// It was published, and the reply was lost: [`ErrorKind::OutcomeUnknown`].
    UnknownPublished,
    /// It was not published, and the error does not say so: [`ErrorKind::OutcomeUnknown`].
    UnknownLost,
}

/// Stands before a store and lets its operations fail on demand. Clones are the same.
///
/// A lost connection and a delay concern every operation, those of the key-value store included.
///
/// # Example
///
/// ```
/// use redstart::testing::{PublishFault, TestBus};
/// use redstart::{Envelope, ErrorKind, Topic, ports::MessageBus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), redstart::Error> {
/// let bus = TestBus::start("billing").await;
/// let orders = Topic::new("orders")?;
/// bus.faults().fail_publish(1, PublishFault::UnknownPublished);
/// let order = Envelope::new("order.placed", &1250)?;
/// let error = bus.container().bus().publish(&orders, &order).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
/// assert_eq!(bus.published(&orders).payloads::<u32>(), [1250]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Faults {
    inner: Arc<dyn Store>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    publishing: Mutex<Publishing>,
    delay: Mutex<Duration>,
    connected: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Publishing {
    seen: u64,
    faults: BTreeMap<u64, PublishFault>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(operation: &'static str) -> Error {
    let rule = "no connection to the store, by order of a test";
    Error::new(ErrorKind::Unavailable, operation, rule)
}

fn unknown(operation: &'static str) -> Error {
    let rule = "the connection broke after sending, by order of a test";
    Error::new(ErrorKind::OutcomeUnknown, operation, rule)
}

impl Faults {
    /// Prepares faults of a store; [`store`](Self::store) is the one that has them.
    #[must_use]
    pub fn on(inner: Arc<dyn Store>) -> Self {
        let plan = Plan {
            publishing: Mutex::default(),
            delay: Mutex::default(),
            connected: watch::Sender::new(true),
        };
        Self {
            inner,
            plan: Arc::new(plan),
        }
    }

    /// The store with the faults, for
    /// [`with_store`](crate::container::ContainerBuilder::with_store).
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        let decorator = Arc::new(self.clone());
        Arc::new(Decorated::new(decorator, Arc::clone(&self.inner)))
    }

    /// Another store with the same faults.
    pub(super) fn also_on(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        let plan = Arc::clone(&self.plan);
        Self { inner, plan }.store()
    }

    /// Makes publishing the `nth` message from now fail; 1 is the next one. Messages of
    /// [`Effects`](crate::Effects) do not count: the store writes them with the acknowledgement.
    pub fn fail_publish(&self, nth: u64, fault: PublishFault) {
        let mut publishing = lock(&self.plan.publishing);
        let at = publishing.seen.saturating_add(nth);
        publishing.faults.insert(at, fault);
    }

    /// Cuts the connection: operations fail with [`ErrorKind::Unavailable`] until
    /// [`reconnect`](Self::reconnect); a waiting read fails at once.
    pub fn disconnect(&self) {
        self.plan.connected.send_replace(false);
    }

    /// Restores the connection. Subscriptions continue by themselves, within five seconds.
    pub fn reconnect(&self) {
        self.plan.connected.send_replace(true);
    }

    /// Delays every operation by this much before it starts; zero ends the delay.
    pub fn delay(&self, by: Duration) {
        *lock(&self.plan.delay) = by;
    }

    /// Waits as long as the delay says, and fails while the connection is cut.
    async fn pass(&self, operation: &'static str) -> Result<(), Error> {
        let delay = *lock(&self.plan.delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if *self.plan.connected.borrow() {
            return Ok(());
        }
        Err(unavailable(operation))
    }

    /// The faults of the next messages, where any of them has one.
    fn faults_of_next(&self, count: usize) -> Option<Vec<Option<PublishFault>>> {
        let mut publishing = lock(&self.plan.publishing);
        let faults: Vec<_> = (0..count)
            .map(|_| {
                publishing.seen += 1;
                let at = publishing.seen;
                publishing.faults.remove(&at)
            })
            .collect();
        faults.iter().any(Option::is_some).then_some(faults)
    }

    /// Appends messages one by one, each with its fault. `ordered`: an error ends the appending.
    async fn append_each<'a, F>(
        entries: &'a [NewEntry],
        faults: Vec<Option<PublishFault>>,
        ordered: bool,
        append: impl Fn(&'a [NewEntry]) -> F,
    ) -> Vec<Result<Appended, Error>>
    where
        F: Future<Output = Result<Vec<Result<Appended, Error>>, Error>>,
    {
        let mut results: Vec<Result<Appended, Error>> = Vec::with_capacity(entries.len());
        for (draft, fault) in entries.iter().zip(faults) {
            let failed = results.last().is_some_and(Result::is_err);
            if ordered && failed || fault == Some(PublishFault::NotPublished) {
                results.push(Err(unavailable(PUBLISH)));
                continue;
            }
            if fault == Some(PublishFault::UnknownLost) {
                results.push(Err(unknown(PUBLISH)));
                continue;
            }
            let appended = append(slice::from_ref(draft)).await;
            let one = appended.and_then(|mut one| {
                let none = || Err(unavailable(PUBLISH));
                one.pop().unwrap_or_else(none)
            });
            results.push(match fault {
                Some(_) => one.and(Err(unknown(PUBLISH))),
                None => one,
            });
        }
        results
    }
}

const PUBLISH: &str = "publish";

impl Decorator for Faults {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let log = next.store.log();
            match op {
                Op::Log(LogOp::Append { at, entries }) => {
                    self.pass(PUBLISH).await?;
                    let Some(faults) = self.faults_of_next(entries.len()) else {
                        return next.run(op).await;
                    };
                    let append = |draft| log.append(at, draft);
                    let results = Self::append_each(entries, faults, false, append).await;
                    Ok(Answer::Log(LogAnswer::Append(results)))
                }
                Op::Log(LogOp::AppendOnce {
                    at,
                    window,
                    entries,
                }) => {
                    self.pass(PUBLISH).await?;
                    let Some(faults) = self.faults_of_next(entries.len()) else {
                        return next.run(op).await;
                    };
                    let append = |draft| log.append_once(at, window, draft);
                    let results = Self::append_each(entries, faults, true, append).await;
                    Ok(Answer::Log(LogAnswer::AppendOnce(results)))
                }
                Op::Log(LogOp::AppendDurably {
                    at,
                    level,
                    window,
                    entries,
                }) => {
                    self.pass(PUBLISH).await?;
                    let Some(faults) = self.faults_of_next(entries.len()) else {
                        return next.run(op).await;
                    };
                    let append = |draft| log.append_durably(at, level, window, draft);
                    let ordered = window.is_some();
                    let results = Self::append_each(entries, faults, ordered, append).await;
                    Ok(Answer::Log(LogAnswer::AppendDurably(results)))
                }
                Op::Fetch { .. } => {
                    self.pass("read").await?;
                    let mut connected = self.plan.connected.subscribe();
                    // The member keeps the entries that an interrupted read has taken, unseen: the
                    // same happens when a real connection breaks.
                    tokio::select! {
                        biased;
                        fetched = next.run(op) => fetched,
                        _ = connected.wait_for(|connected| !connected) => Err(unknown("read")),
                    }
                }
                _ => {
                    self.pass(op.name()).await?;
                    next.run(op).await
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::{Durability, Topic, TopicSettings};
    use crate::store::Partition;

    #[tokio::test]
    async fn a_publish_of_any_durability_fails_on_demand() {
        let faults = Faults::on(MemoryStore::new().store(None));
        let (store, topic) = (faults.store(), Topic::from_static("orders"));
        let (topics, at) = (store.topics(), Partition::of(&topic));
        let created = topics.ensure_topic(&topic, TopicSettings::default()).await;
        created.unwrap();
        let entry = |id| NewEntry {
            id: Uuid::from_u128(id),
            name: "json",
            value: Bytes::new(),
            slot: None,
        };
        let entries: Vec<NewEntry> = (1..=3).map(entry).collect();
        for window in [None, Some(Duration::from_secs(60))] {
            faults.fail_publish(2, PublishFault::NotPublished);
            let level = Durability::Accepted;
            let appending = store.log().append_durably(&at, level, window, &entries);
            let results = appending.await.unwrap();
            assert!(results[0].is_ok());
            let error = results[1].as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            // With a window the first error ends the appending.
            assert_eq!(results[2].is_ok(), window.is_none());
        }
    }
}
