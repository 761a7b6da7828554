//! A store whose calls for a whole topic are split among the topic's partitions.
//!
//! This is the only place that knows that a topic can have several partitions. An adapter keeps single
//! partitions, and the runtime and the operators' tasks speak of topics. The ids of entries tell the two
//! apart: an adapter writes and reads them without a partition, and this store adds it to each answer and
//! takes it out of each call.
//!
//! A topic with one partition costs nothing here: its calls go to the adapter as they are.

mod dead_letters;
mod deliveries;
mod effects;
mod inspect;
mod later;
mod log;
mod merge;
mod reader;
mod schedule;
mod search;
mod topics;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::join_all;

use super::source::{DeliveryId, GroupAt, Member, Opening, Partition};
use super::{
    Bell, Capabilities, DeadLetters, Deliveries, Effect, EffectStore, Inspect, Later, Log, Opened,
    Owners, Schedule, Store, Topics, Values,
};
use crate::domain::{BoxFuture, EntryId, Error, ErrorKind, Timestamp, Topic, crc16};

/// Splits the calls for whole topics among their partitions.
///
/// Calls for a [numbered](Partition::numbered) partition go to that partition. The stores of this crate
/// come with it; put it around a store of your own whose topics have several partitions.
#[derive(Debug)]
pub struct Partitioned {
    inner: Arc<dyn Store>,
    counts: RwLock<HashMap<Topic, u16>>,
}

impl Partitioned {
    /// Puts it around a store that knows single partitions.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            counts: RwLock::default(),
        }
    }

    fn known(&self, topic: &Topic) -> Option<u16> {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(topic).copied()
    }

    /// Remembers the number of a topic's partitions, or that it is gone.
    fn note(&self, topic: &Topic, count: Option<u16>) {
        if self.known(topic) == count {
            return;
        }
        let mut counts = self.counts.write().unwrap_or_else(PoisonError::into_inner);
        match count {
            Some(count) => counts.insert(topic.clone(), count),
            None => counts.remove(topic),
        };
    }

    /// Whether a call goes to one partition with ids as they are.
    fn is_single(&self, at: &Partition) -> bool {
        match at.is_whole() {
            true => self.known(at.topic()) == Some(1),
            false => at.number() == 0,
        }
    }

    /// The number of a topic's partitions; 1 for a topic that does not exist.
    async fn count(&self, topic: &Topic) -> Result<u16, Error> {
        if let Some(count) = self.known(topic) {
            return Ok(count);
        }
        let count = self.inner.topics().partitions(topic).await?;
        self.note(topic, count);
        Ok(count.unwrap_or(1))
    }

    /// The partitions that a call means, in their order.
    async fn partitions_meant(&self, at: &Partition) -> Result<Vec<Partition>, Error> {
        if !at.is_whole() {
            return Ok(vec![at.clone()]);
        }
        let numbers = 0..self.count(at.topic()).await?;
        let numbered = |number| Partition::numbered(at.topic(), number);
        Ok(numbers.map(numbered).collect())
    }

    /// Asks every partition that a call means, all at once. Returns the answers in the order of the
    /// partitions, or the first error once all have answered.
    async fn each<'a, R>(
        &'a self,
        at: &Partition,
        call: impl Fn(&'a dyn Store, Partition) -> BoxFuture<'a, Result<R, Error>> + Send,
    ) -> Result<Vec<(u16, R)>, Error> {
        self.answers(at, call).await?.into_iter().collect()
    }

    /// The same for a call that writes: its error says that the outcome is unknown where a partition may
    /// have done its part.
    async fn write_each<'a, R>(
        &'a self,
        at: &Partition,
        call: impl Fn(&'a dyn Store, Partition) -> BoxFuture<'a, Result<R, Error>> + Send,
    ) -> Result<Vec<(u16, R)>, Error> {
        let (mut done, mut failure) = (Vec::new(), None);
        for answer in self.answers(at, call).await? {
            match answer {
                Ok(answer) => done.push(answer),
                Err(error) => failure = Some(worse(failure, error)),
            }
        }
        match failure {
            Some(error) => Err(half_done(error, !done.is_empty())),
            None => Ok(done),
        }
    }

    /// What every partition that a call means answers, in their order.
    async fn answers<'a, R>(
        &'a self,
        at: &Partition,
        call: impl Fn(&'a dyn Store, Partition) -> BoxFuture<'a, Result<R, Error>> + Send,
    ) -> Result<Vec<Result<(u16, R), Error>>, Error> {
        let calls = self.partitions_meant(at).await?.into_iter().map(|at| {
            let number = at.number();
            let answer = call(&*self.inner, at);
            async move { answer.await.map(|answer| (number, answer)) }
        });
        Ok(join_all(calls).await)
    }

    /// Asks a group on every partition that a call means, as [`each`](Self::each) does.
    async fn each_group<'a, R>(
        &'a self,
        at: &'a GroupAt,
        call: impl Fn(&'a dyn Store, GroupAt) -> BoxFuture<'a, Result<R, Error>> + Send + Sync,
    ) -> Result<Vec<(u16, R)>, Error> {
        self.each(&at.partition, |store, partition| {
            let group = at.group.clone();
            call(store, GroupAt { partition, group })
        })
        .await
    }

    /// Writes to a group on every partition that a call means, as [`write_each`](Self::write_each) does.
    async fn write_each_group<'a, R>(
        &'a self,
        at: &'a GroupAt,
        call: impl Fn(&'a dyn Store, GroupAt) -> BoxFuture<'a, Result<R, Error>> + Send + Sync,
    ) -> Result<Vec<(u16, R)>, Error> {
        self.write_each(&at.partition, |store, partition| {
            let group = at.group.clone();
            call(store, GroupAt { partition, group })
        })
        .await
    }
}

/// The partition of a message: by its key, or else by its id.
fn route(count: u16, slot: Option<u16>, id: &[u8]) -> u16 {
    slot.unwrap_or_else(|| crc16(id)) % count.max(1)
}

fn numbered(at: &Partition, number: u16) -> Partition {
    Partition::numbered(at.topic(), number)
}

fn group_at(at: &GroupAt, number: u16) -> GroupAt {
    GroupAt {
        partition: numbered(&at.partition, number),
        group: at.group.clone(),
    }
}

fn member_at(by: &Member, number: u16) -> Member {
    Member {
        at: group_at(&by.at, number),
        consumer: by.consumer.clone(),
    }
}

/// The id as the adapter knows it.
fn bare(id: EntryId) -> EntryId {
    id.in_partition(0)
}

fn bare_delivery(id: DeliveryId) -> DeliveryId {
    DeliveryId::new(id.lane, bare(id.id))
}

fn delivery_in(id: DeliveryId, number: u16) -> DeliveryId {
    DeliveryId::new(id.lane, id.id.in_partition(number))
}

/// Items by their partition, each with its place among all.
fn by_partition<T>(items: impl IntoIterator<Item = (u16, T)>) -> BTreeMap<u16, Vec<(usize, T)>> {
    let mut parts: BTreeMap<u16, Vec<(usize, T)>> = BTreeMap::new();
    for (place, (number, item)) in items.into_iter().enumerate() {
        parts.entry(number).or_default().push((place, item));
    }
    parts
}

/// Sends each item to its partition, and returns the answers in the order of the items. `failed` makes the
/// answers of a partition whose call failed; where it makes none, its error is that of the whole, and says
/// that the outcome is unknown if another partition may have done its part.
async fn scatter<'a, T, R>(
    items: impl IntoIterator<Item = (u16, T)>,
    call: impl Fn(u16, Vec<T>) -> BoxFuture<'a, Result<Vec<R>, Error>>,
    failed: impl Fn(&Error) -> Option<R>,
) -> Result<Vec<R>, Error> {
    let calls = by_partition(items).into_iter().map(|(number, items)| {
        let (places, items): (Vec<usize>, Vec<T>) = items.into_iter().unzip();
        let answer = call(number, items);
        async move { (places, answer.await) }
    });
    let calls: Vec<_> = calls.collect();
    let (mut all, mut failure) = (Vec::new(), None);
    for (places, answer) in join_all(calls).await {
        match answer {
            Ok(answers) => all.extend(places.into_iter().zip(answers)),
            Err(error) => {
                let answers = places
                    .into_iter()
                    .map(|place| Some((place, failed(&error)?)));
                match answers.collect::<Option<Vec<_>>>() {
                    Some(answers) => all.extend(answers),
                    None => failure = Some(worse(failure, error)),
                }
            }
        }
    }
    if let Some(error) = failure {
        return Err(half_done(error, !all.is_empty()));
    }
    all.sort_by_key(|(place, _)| *place);
    Ok(all.into_iter().map(|(_, answer)| answer).collect())
}

/// The error that says more about what may have been done.
fn worse(one: Option<Error>, other: Error) -> Error {
    one.filter(Error::is_outcome_unknown).unwrap_or(other)
}

/// The error of a call of which some partitions are done.
fn half_done(error: Error, some_done: bool) -> Error {
    if !some_done || error.is_outcome_unknown() {
        return error;
    }
    let rule = "one partition was written and another was not";
    let subject = error.subject().map(str::to_owned);
    let whole = Error::new(ErrorKind::OutcomeUnknown, "write", rule).because(error);
    match subject {
        Some(subject) => whole.on(subject),
        None => whole,
    }
}

impl Store for Partitioned {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn keeps_time(&self) -> bool {
        self.inner.keeps_time()
    }

    fn clock_set(&self) -> BoxFuture<'_, ()> {
        self.inner.clock_set()
    }

    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(self.open_spread(opening))
    }

    fn single(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::clone(&self.inner))
    }

    /// The lane of the first effect's topic or value; its other partitions share it.
    fn lane_of(&self, effects: &[Effect]) -> u16 {
        self.inner.lane_of(effects)
    }

    fn bell(&self, at: &GroupAt) -> Option<Arc<Bell>> {
        let count = match at.partition.is_whole() {
            true => self.known(at.topic())?,
            false => 1,
        };
        if count == 1 {
            return self.inner.bell(at);
        }
        let parts = (0..count).map(|number| self.inner.bell(&group_at(at, number)));
        Some(Bell::over(parts.collect::<Option<Vec<_>>>()?))
    }

    fn topics(&self) -> &dyn Topics {
        self
    }

    fn log(&self) -> &dyn Log {
        self
    }

    fn deliveries(&self) -> &dyn Deliveries {
        self
    }

    fn schedule(&self) -> &dyn Schedule {
        self
    }

    fn later(&self) -> &dyn Later {
        self
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn inspect(&self) -> &dyn Inspect {
        self
    }

    fn values(&self) -> &dyn Values {
        self.inner.values()
    }

    fn effects(&self) -> &dyn EffectStore {
        self
    }

    /// The runtime names one partition in each call of this role.
    fn owners(&self) -> &dyn Owners {
        self.inner.owners()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use uuid::Uuid;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::{ConsumerName, Group, TopicSettings};
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::store::{
        DeadLettersOp, DeliveriesOp, LaterOp, NewEntry, ScheduleOp, StartFrom, TopicsOp,
    };

    /// Lets the calls to one partition fail.
    #[derive(Clone, Debug, Default)]
    struct Away(Arc<Mutex<Option<(u16, ErrorKind)>>>);

    impl Decorator for Away {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            let away = *self.0.lock().unwrap();
            Box::pin(async move {
                match away.filter(|(number, _)| place_of(&op) == Some(*number)) {
                    Some((_, kind)) => Err(Error::new(kind, op.name(), "by order of a test")),
                    None => next.run(op).await,
                }
            })
        }
    }

    fn place_of(op: &Op<'_>) -> Option<u16> {
        use DeliveriesOp::{Begin, ClaimExpired, Commit, Extend, PendingOf};
        use TopicsOp::{CreateGroup, RemoveGroup, ResetGroup, SetLease};

        Some(match op {
            Op::Deliveries(
                Begin { by, .. }
                | ClaimExpired { by, .. }
                | Commit { by, .. }
                | Extend { by, .. }
                | PendingOf { by, .. },
            )
            | Op::Topics(SetLease { by, .. }) => by.at.partition.number(),
            Op::Topics(CreateGroup { at, .. } | RemoveGroup { at, .. } | ResetGroup { at, .. })
            | Op::DeadLetters(DeadLettersOp::BeginOperation { at, .. })
            | Op::Schedule(ScheduleOp::List { at, .. }) => at.partition.number(),
            Op::Later(
                LaterOp::Cancel { at, .. }
                | LaterOp::List { at, .. }
                | LaterOp::Put { at, .. }
                | LaterOp::Reschedule { at, .. },
            ) => at.number(),
            _ => return None,
        })
    }

    /// A topic with four partitions, and a group of it.
    pub(super) struct Four {
        pub(super) store: Partitioned,
        pub(super) at: GroupAt,
        away: Away,
    }

    impl Four {
        pub(super) async fn new() -> Self {
            let (orders, billing) = (
                Topic::new("orders").unwrap(),
                Group::new("billing").unwrap(),
            );
            let away = Away::default();
            let single = MemoryStore::new().single();
            let store = Partitioned::new(Arc::new(Decorated::new(Arc::new(away.clone()), single)));
            let settings = TopicSettings::default().with_partitions(4);
            store
                .topics()
                .ensure_topic(&orders, settings)
                .await
                .unwrap();
            let at = GroupAt::of(&orders, &billing);
            let start = StartFrom::Beginning;
            store.topics().create_group(&at, start).await.unwrap();
            Self { store, at, away }
        }

        /// From now on calls to a partition fail.
        pub(super) fn take_away(&self, number: u16, kind: ErrorKind) {
            *self.away.0.lock().unwrap() = Some((number, kind));
        }

        pub(super) fn bring_back(&self) {
            *self.away.0.lock().unwrap() = None;
        }

        pub(super) fn member(&self, name: &str) -> Member {
            Member {
                at: self.at.clone(),
                consumer: ConsumerName::new(name).unwrap(),
            }
        }

        /// Appends `count` entries to each partition.
        pub(super) async fn append(&self, count: u16) {
            let entry = |slot| NewEntry {
                id: Uuid::nil(),
                name: "json",
                value: bytes::Bytes::from_static(b"{}"),
                slot: Some(slot),
            };
            let entries: Vec<NewEntry> = (0..4 * count).map(|n| entry(n % 4)).collect();
            let appended = self.store.log().append(&self.at.partition, &entries).await;
            assert!(appended.unwrap().iter().all(Result::is_ok));
        }

        /// Takes all entries of the partitions that a member is named on.
        pub(super) async fn fetch(&self, by: &Member) -> Vec<DeliveryId> {
            let (mut reader, _) = self.store.open(&Opening::of(by)).await.unwrap();
            let fetched = reader.fetch(1000, std::time::Duration::ZERO).await.unwrap();
            fetched.into_iter().map(|one| one.receipt).collect()
        }
    }

    /// Sends an item to each of two partitions, which end as given.
    async fn sent(ends: [Result<(), ErrorKind>; 2]) -> Result<usize, ErrorKind> {
        let call = |number: u16, items: Vec<()>| -> BoxFuture<'static, Result<Vec<()>, Error>> {
            let end = ends[usize::from(number)];
            let end = end.map_err(|kind| Error::new(kind, "put", "no").on("orders"));
            Box::pin(async move { end.map(|()| items) })
        };
        let items = [(0, ()), (1, ()), (0, ())];
        let answers = scatter(items, call, |_| None).await;
        answers.map(|all| all.len()).map_err(|error| {
            assert_eq!(error.subject(), Some("orders"));
            error.kind()
        })
    }

    #[tokio::test]
    async fn a_call_that_one_partition_has_done_certainly_is_not_certainly_undone() {
        use ErrorKind::{OutcomeUnknown, Refused, Unavailable};

        assert_eq!(sent([Ok(()), Ok(())]).await, Ok(3));
        assert_eq!(sent([Ok(()), Err(Unavailable)]).await, Err(OutcomeUnknown));
        assert_eq!(sent([Err(Refused), Ok(())]).await, Err(OutcomeUnknown));
        let ends = [Err(OutcomeUnknown), Err(Unavailable)];
        assert_eq!(sent(ends).await, Err(OutcomeUnknown));
        let ends = [Err(Unavailable), Err(Unavailable)];
        assert_eq!(sent(ends).await, Err(Unavailable));
    }
}
