//! What can go wrong between a container and its store, on demand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

use crate::domain::BoxFuture;
use crate::domain::{
    Cause, Clock, ConsumerName, CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error,
    ErrorKind, Group, Timestamp, Topic, TopicSettings,
};
use crate::store::{
    Appended, ConsumerStatus, DeadLetterStore, DeliveryId, Disposition, Fetched, Fields, Found,
    GroupRemoval, IdRange, Identified, Interrupt, JournalRow, Member, Opened, Promoted, Reader,
    ReclaimCursor, Reclaimed, Record, Restoring, Schedule, ServerInfo, Settlement, StartFrom,
    Store, TopicStatus, Trimmed,
};

/// What becomes of a message whose publishing fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PublishFault {
    /// It certainly was not published: [`ErrorKind::Unavailable`].
    NotPublished,
    /// It was published, and the reply was lost: [`ErrorKind::OutcomeUnknown`].
    UnknownPublished,
    /// It was not published, and nobody can tell: [`ErrorKind::OutcomeUnknown`].
    UnknownLost,
}

/// A backend that does what the one inside does, until it is told to fail. Clones are the same.
///
/// The key-value store is apart from the backend and does not fail with it.
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
/// bus.faults().fail_publish(1, Fate::UnknownPublished);
/// let order = Envelope::new("order.placed", &1250)?;
/// let error = bus.container().bus().publish(&orders, &order).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
/// assert_eq!(bus.published::<u32>(&orders), [1250]);
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
    fates: BTreeMap<u64, PublishFault>,
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
    /// Stands between a backend and whoever uses it.
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

    /// Lets the publishing of the `nth` message from now fail; 1 is the next one.
    pub fn fail_publish(&self, nth: u64, fate: PublishFault) {
        let mut publishing = lock(&self.plan.publishing);
        let at = publishing.seen.saturating_add(nth);
        publishing.fates.insert(at, fate);
    }

    /// Loses the connection: operations fail with [`ErrorKind::Unavailable`] until
    /// [`reconnect`](Self::reconnect); a read that waits fails at once.
    pub fn disconnect(&self) {
        self.plan.connected.send_replace(false);
    }

    /// Gives the connection back. Subscriptions go on by themselves, in up to five seconds.
    pub fn reconnect(&self) {
        self.plan.connected.send_replace(true);
    }

    /// Makes every operation take this much longer, before it is done; zero ends that.
    pub fn delay(&self, by: Duration) {
        *lock(&self.plan.delay) = by;
    }

    /// Lets an operation through, or not.
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

    /// The fates of the next messages, where any of them has one.
    fn fates(&self, count: usize) -> Option<Vec<Option<PublishFault>>> {
        let mut publishing = lock(&self.plan.publishing);
        let fates: Vec<_> = (0..count)
            .map(|_| {
                publishing.seen += 1;
                let at = publishing.seen;
                publishing.fates.remove(&at)
            })
            .collect();
        fates.iter().any(Option::is_some).then_some(fates)
    }

    async fn append_with(
        &self,
        topic: &Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> Vec<Result<EntryId, Error>> {
        if self.pass("publish").await.is_err() {
            return entries
                .iter()
                .map(|_| Err(unavailable("publish")))
                .collect();
        }
        let Some(fates) = self.fates(entries.len()) else {
            return self.inner.append(topic, entries).await;
        };
        let mut results = Vec::with_capacity(entries.len());
        for (entry, fate) in entries.into_iter().zip(fates) {
            let done = match fate {
                Some(PublishFault::NotPublished) => Some(Err(unavailable("publish"))),
                Some(PublishFault::UnknownLost) => Some(Err(unknown("publish"))),
                Some(PublishFault::UnknownPublished) => {
                    let done = self.inner.append(topic, vec![entry]).await.pop();
                    done.map(|done| done.and(Err(unknown("publish"))))
                }
                None => self.inner.append(topic, vec![entry]).await.pop(),
            };
            results.push(done.unwrap_or_else(|| Err(unavailable("publish"))));
        }
        results
    }
}

impl Faults {
    async fn append_once_with(
        &self,
        topic: &Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> Vec<Result<Appended, Error>> {
        if self.pass("publish").await.is_err() {
            return entries
                .iter()
                .map(|_| Err(unavailable("publish")))
                .collect();
        }
        let Some(fates) = self.fates(entries.len()) else {
            return self.inner.append_once(topic, window, entries).await;
        };
        let mut results: Vec<Result<Appended, Error>> = Vec::with_capacity(entries.len());
        for (entry, fate) in entries.into_iter().zip(fates) {
            // After an error nothing more is appended.
            if results.last().is_some_and(Result::is_err) {
                results.push(Err(unavailable("publish")));
                continue;
            }
            let done = match fate {
                Some(PublishFault::NotPublished) => Some(Err(unavailable("publish"))),
                Some(PublishFault::UnknownLost) => Some(Err(unknown("publish"))),
                Some(PublishFault::UnknownPublished) => {
                    let done = self
                        .inner
                        .append_once(topic, window, vec![entry])
                        .await
                        .pop();
                    done.map(|done| done.and(Err(unknown("publish"))))
                }
                None => self
                    .inner
                    .append_once(topic, window, vec![entry])
                    .await
                    .pop(),
            };
            results.push(done.unwrap_or_else(|| Err(unavailable("publish"))));
        }
        results
    }
}

macro_rules! through {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        $(fn $name<'a>(&'a self, $($argument: $type),*) -> BoxFuture<'a, Result<$output, Error>> {
            Box::pin(async move {
                self.pass(stringify!($name)).await?;
                self.inner.$name($($argument),*).await
            })
        })*
    };
}

impl Store for Faults {
    fn append<'a>(
        &'a self,
        topic: &'a Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> BoxFuture<'a, Vec<Result<EntryId, Error>>> {
        Box::pin(self.append_with(topic, entries))
    }

    fn append_once<'a>(
        &'a self,
        topic: &'a Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> BoxFuture<'a, Vec<Result<Appended, Error>>> {
        Box::pin(self.append_once_with(topic, window, entries))
    }

    fn open<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(async move {
            self.pass("open").await?;
            let (inner, interrupt) = self.inner.open(member).await?;
            let faults = self.clone();
            let reader: Box<dyn Reader> = Box::new(FaultyReader { inner, faults });
            Ok((reader, interrupt as Box<dyn Interrupt>))
        })
    }

    through! {
        ping() -> ();
        ensure_topic(topic: &'a Topic, settings: TopicSettings) -> TopicSettings;
        create_group(topic: &'a Topic, group: &'a Group, start: StartFrom) -> ();
        acknowledge(member: &'a Member, receipts: &'a [DeliveryId]) -> ();
        settle(member: &'a Member, settlements: &'a [Settlement]) -> Vec<bool>;
        extend(member: &'a Member, receipts: &'a [DeliveryId]) -> Vec<bool>;
        release(member: &'a Member, receipts: &'a [DeliveryId]) -> u64;
        pending_of(member: &'a Member, max: usize) -> Vec<DeliveryId>;
        reclaim(
            member: &'a Member, lease: Duration, cursor: ReclaimCursor, max: usize
        ) -> Reclaimed;
        promote(topic: &'a Topic, group: &'a Group, max: usize) -> Promoted;
        trim(topic: &'a Topic) -> Trimmed;
        trim_redelivery(topic: &'a Topic, group: &'a Group) -> ();
        prune_consumers(
            topic: &'a Topic, group: &'a Group, idle: Duration, only: Option<&'a ConsumerName>
        ) -> u64;
        scheduled(
            topic: &'a Topic, group: &'a Group, after: Option<(Timestamp, DeliveryId)>, max: usize
        ) -> Schedule;
        run_now(topic: &'a Topic, group: &'a Group, receipts: &'a [DeliveryId]) -> Vec<bool>;
        cancel(topic: &'a Topic, group: &'a Group, receipts: &'a [DeliveryId]) -> Vec<bool>;
        consumers(topic: &'a Topic, group: &'a Group) -> Vec<ConsumerStatus>;
        remove_group(
            topic: &'a Topic, group: &'a Group, quiet: Duration, force: bool
        ) -> Option<GroupRemoval>;
        server() -> Option<ServerInfo>;
        topics() -> Vec<Topic>;
        status(topic: &'a Topic) -> Option<TopicStatus>;
        browse(topic: &'a Topic, after: Option<EntryId>, max: usize) -> Vec<(EntryId, Fields)>;
        newest(topic: &'a Topic) -> Option<EntryId>;
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn clock(&self) -> &dyn Clock {
        self.inner.clock()
    }

    fn clock_set(&self) -> BoxFuture<'_, ()> {
        self.inner.clock_set()
    }

    fn dead_letters(&self) -> &dyn DeadLetterStore {
        self
    }
}

macro_rules! through_graves {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        $(fn $name<'a>(
            &'a self, topic: &'a Topic, group: &'a Group, $($argument: $type),*
        ) -> BoxFuture<'a, Result<$output, Error>> {
            Box::pin(async move {
                self.pass(stringify!($name)).await?;
                self.inner.dead_letters().$name(topic, group, $($argument),*).await
            })
        })*
    };
}

impl DeadLetterStore for Faults {
    through_graves! {
        search(span: IdRange, filter: &'a DeadLetterFilter, max: usize) -> Found;
        find(ids: &'a [EntryId]) -> Vec<(EntryId, Record)>;
        newest() -> Option<EntryId>;
        move_out(
            items: &'a [(EntryId, Disposition)], known: &'a [(EntryId, DeadLetterSummary)],
            operation: Option<Uuid>
        ) -> Vec<bool>;
        restore(records: &'a [Restoring], again: bool) -> Vec<Option<EntryId>>;
        causes() -> Vec<Cause>;
        counts(by: CountBy) -> Vec<(String, u64)>;
        begin_operation(operation: Uuid, order: String) -> ();
        end_operation(operation: Uuid, result: String) -> ();
        journal() -> Vec<JournalRow>;
    }
}

#[derive(Debug)]
struct FaultyReader {
    inner: Box<dyn Reader>,
    faults: Faults,
}

impl Reader for FaultyReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(async move {
            self.faults.pass("read").await?;
            let mut connected = self.faults.plan.connected.subscribe();
            // What a read that is cut off has taken stays with the member, unseen: as it is with
            // a connection that breaks.
            tokio::select! {
                biased;
                fetched = self.inner.fetch(max, wait) => fetched,
                _ = connected.wait_for(|connected| !connected) => Err(unknown("read")),
            }
        })
    }
}
