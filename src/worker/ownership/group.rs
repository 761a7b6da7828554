//! The partitions that this process owns, and the deliveries that come from them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::partition::{OwnedPartition, Rules};
use crate::api::Ownership;
use crate::api::ownership::Tenure;
use crate::domain::{BoxFuture, Error};
use crate::store::{
    Attempts, Begin, Commit, Commits, Deliveries, DeliveryId, Fate, GroupAt, Holder, Member,
    Partition, ReclaimCursor, Reclaimed, Replies, Rings, StartFrom, Store, Unmarked,
};
use crate::wire::Decoder;
use crate::worker::fault::Faults;

/// The last call of effects on a partition. The same call is sent again under the same token, whoever
/// owns the partition then.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastCall {
    pub(super) number: u64,
    pub(super) partition: u16,
    pub(super) token: u64,
}

/// The partitions that this process owns, as the deliveries of the subscription.
///
/// It stands in the place of the store's own [`Deliveries`]: a delivery belongs to this process while
/// it owns the partition, and ends with a step under the partition's token.
pub(crate) struct OwnedGroup {
    pub(super) store: Arc<dyn Store>,
    pub(super) member: Arc<Member>,
    pub(super) rules: Rules,
    /// For how long this process is a member without a renewal.
    pub(super) lease: Duration,
    /// How long a partition that is to be given up waits for its handlers.
    pub(super) handover: Duration,
    partitions: Mutex<BTreeMap<u16, Arc<OwnedPartition>>>,
    /// Counts what may make more messages ready, or a partition idle.
    pub(super) changed: Rings,
    /// Counts acknowledgements that no step has told the store yet.
    pub(super) unwritten: Rings,
    /// The last call of effects on each partition.
    pub(super) effects: Mutex<BTreeMap<u16, LastCall>>,
}

impl fmt::Debug for OwnedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedGroup")
            .field("member", &self.member)
            .field("partitions", &self.partitions().keys())
            .finish_non_exhaustive()
    }
}

/// The member on one partition.
pub(super) fn member_at(member: &Member, number: u16) -> Member {
    Member {
        at: GroupAt {
            partition: Partition::numbered(member.topic(), number),
            group: member.group().clone(),
        },
        consumer: member.consumer.clone(),
    }
}

/// The id as the partition knows it.
pub(super) fn bare(id: DeliveryId) -> DeliveryId {
    DeliveryId::new(id.lane, id.id.in_partition(0))
}

pub(super) fn partition_of(id: DeliveryId) -> u16 {
    id.id.partition()
}

/// The acknowledgements and the other commits of one partition, and the places of these among all.
type Part = (Vec<DeliveryId>, Vec<Commit>, Vec<usize>);

/// How many entries may begin without another step, beyond those that are handed out.
const AHEAD: usize = 250;

/// How often to look while the store does not tell of changes. A look into memory costs nothing.
fn pause_between_looks(store: &dyn Store) -> Duration {
    match store.keeps_time() {
        true => Duration::from_millis(10),
        false => Duration::from_millis(250),
    }
}

impl OwnedGroup {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        member: Arc<Member>,
        options: &Ownership,
        (decoder, marks_attempts): (Decoder, bool),
    ) -> Self {
        Self {
            member,
            rules: Rules {
                decoder,
                lets_pass: options.lets_pass,
                marks_attempts,
                ahead: AHEAD,
                pause: pause_between_looks(&*store),
            },
            store,
            lease: options.lease,
            handover: options.handover,
            partitions: Mutex::default(),
            changed: Rings::default(),
            unwritten: Rings::default(),
            effects: Mutex::default(),
        }
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<OwnedPartition>>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the topic's partitions.
    pub(super) async fn count(&self) -> Result<u16, Error> {
        let count = self.store.topics().partitions(self.member.topic()).await?;
        Ok(count.unwrap_or(1))
    }

    /// Creates the group on every partition, or finds it.
    pub(crate) async fn create(&self, start: StartFrom) -> Result<(), Error> {
        let creates = (0..self.count().await?).map(|number| async move {
            let at = member_at(&self.member, number).at;
            self.store.owners().create(&at, start).await
        });
        join_all(creates).await.into_iter().collect()
    }

    /// Lets the bells of the partitions ring.
    pub(crate) async fn listen(&self) -> Result<(), Error> {
        for number in 0..self.count().await? {
            let at = member_at(&self.member, number).at;
            self.store.owners().listen(&at).await?;
        }
        Ok(())
    }

    pub(super) fn pause_between_looks(&self) -> Duration {
        self.rules.pause
    }

    pub(super) fn all(&self) -> Vec<Arc<OwnedPartition>> {
        self.partitions().values().cloned().collect()
    }

    pub(super) fn get(&self, number: u16) -> Option<Arc<OwnedPartition>> {
        self.partitions().get(&number).cloned()
    }

    pub(super) fn insert(&self, number: u16, partition: OwnedPartition) {
        self.partitions().insert(number, Arc::new(partition));
        self.changed.ring();
    }

    pub(super) fn remove(&self, number: u16) {
        self.partitions().remove(&number);
        self.changed.ring();
    }

    /// The time in which this process owns the partition of a delivery.
    fn tenure_of(&self, id: DeliveryId) -> Option<Arc<Tenure>> {
        let partition = self.get(partition_of(id))?;
        Some(Arc::clone(&partition.tenure))
    }

    /// The time in which this process owns the partition that has handed a delivery out.
    pub(crate) fn handed_out_in(&self, id: DeliveryId) -> Option<Arc<Tenure>> {
        let partition = self.get(partition_of(id))?;
        let is_out = partition.has_out(bare(id));
        is_out.then(|| Arc::clone(&partition.tenure))
    }

    /// Puts deliveries back that no handler began, with the attempts before them.
    pub(crate) fn put_back(&self, all: impl Iterator<Item = (DeliveryId, Attempts)>) {
        for (id, attempts) in all {
            if let Some(partition) = self.get(partition_of(id)) {
                partition.put_back_counted(bare(id), attempts);
            }
        }
        self.changed.ring();
    }

    /// Puts a delivery back that cannot begin before a later time.
    pub(crate) fn put_back_later(&self, id: DeliveryId, delay: Duration) {
        if let Some(partition) = self.get(partition_of(id)) {
            partition.put_back_later(bare(id), delay);
        }
        self.changed.ring();
    }

    /// Puts deliveries back whose attempts may be marked in the store, when the store has these attempts instead.
    pub(crate) fn put_back_marked(&self, all: impl Iterator<Item = (DeliveryId, Attempts)>) {
        for (id, attempts) in all {
            if let Some(partition) = self.get(partition_of(id)) {
                partition.put_back_marked(bare(id), attempts);
            }
        }
        self.unwritten.ring();
        self.changed.ring();
    }

    /// Whether nothing of the partition of a delivery begins, because the store does not answer.
    pub(crate) fn is_silent(&self, id: DeliveryId) -> bool {
        let partition = self.get(partition_of(id));
        partition.is_some_and(|partition| partition.is_silent())
    }

    /// Puts messages back that were taken, and that nobody here knows of.
    pub(crate) fn put_back_unknown(&self, is_known: impl Fn(DeliveryId) -> bool) {
        let all = self.all().into_iter();
        // The handlers of an ended time may still run.
        for partition in all.filter(|one| !one.tenure.is_over()) {
            let unknown = partition.out().into_iter().filter(|id| !is_known(*id));
            partition.put_back(unknown.map(bare));
        }
        self.changed.ring();
    }

    /// The faults of the partitions that this process owns.
    pub(crate) fn faults(&self) -> Vec<Faults> {
        self.all().iter().map(|one| one.faults.clone()).collect()
    }

    /// Leaves the group until a time: the next owners of its partitions continue at once.
    pub(crate) async fn leave(&self, until: Instant) -> Result<(), Error> {
        let (all, now) = (self.all(), Instant::now());
        // Half of the time: the departure needs the other half.
        let half = now + until.saturating_duration_since(now) / 2;
        let letting_go = all.iter().map(|one| timeout_at(half, one.let_go()));
        // After a failure the next owner counts attempts that did not begin.
        let _ = join_all(letting_go).await;
        for partition in all {
            partition.tenure.end();
        }
        self.store.owners().leave(&member_at(&self.member, 0)).await
    }

    /// How many acknowledgements the store does not know.
    pub(crate) fn unwritten_acks(&self) -> u64 {
        self.all().iter().map(|one| one.unwritten()).sum()
    }

    async fn commit_all(&self, commits: &Commits) -> Replies {
        let mut parts: BTreeMap<u16, Part> = BTreeMap::new();
        for id in commits.acks() {
            parts
                .entry(partition_of(*id))
                .or_default()
                .0
                .push(bare(*id));
        }
        for (place, commit) in commits.fenced().iter().enumerate() {
            let id = commit.delivery();
            let (_, commits, places) = parts.entry(partition_of(id)).or_default();
            commits.push(commit.clone().of(bare(id)));
            places.push(place);
        }
        let calls = parts.into_iter().map(|(number, (acks, commits, places))| {
            let partition = self.get(number);
            async move {
                let lost = (Fate::Lost, vec![Fate::Lost; commits.len()], false);
                let has_acks = !acks.is_empty();
                let answer = match partition {
                    Some(partition) => {
                        let answer = partition.commit(acks, commits).await;
                        if partition.is_unwritten() {
                            self.unwritten.ring();
                        }
                        answer
                    }
                    None => Ok(lost),
                };
                (has_acks, places, answer)
            }
        });
        let mut acks = Ok(Fate::Done);
        let mut fenced = vec![Ok(Fate::Lost); commits.fenced().len()];
        for (has_acks, places, answer) in join_all(calls).await {
            let answer = answer.map(|(fate, fates, _)| (fate, fates));
            if has_acks {
                let fate = answer.as_ref().map(|(fate, _)| *fate);
                match (&acks, fate.map_err(Error::clone)) {
                    (Ok(_), Err(error)) => acks = Err(error),
                    (Ok(Fate::Done), Ok(fate)) => acks = Ok(fate),
                    _ => {}
                }
            }
            for (at, place) in places.into_iter().enumerate() {
                fenced[place] = match &answer {
                    Ok((_, fates)) => Ok(fates[at]),
                    Err(error) => Err(error.clone()),
                };
            }
        }
        self.changed.ring();
        Replies { acks, fenced }
    }

    /// The runtime marks attempts of one partition in each call.
    async fn begin_all(&self, begins: &[Begin]) -> Result<Vec<Holder>, Error> {
        let mut holders = vec![Holder::Other; begins.len()];
        let mut parts: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (place, begin) in begins.iter().enumerate() {
            parts
                .entry(partition_of(begin.delivery))
                .or_default()
                .push(place);
        }
        // All at once: a partition that comes back meanwhile has other deliveries.
        let parts: Vec<_> = parts
            .into_iter()
            .filter_map(|(number, places)| Some((self.get(number)?, places)))
            .collect();
        for (partition, places) in parts {
            let begun = places.iter().map(|place| begins[*place]);
            let begun = begun
                .map(|one| (bare(one.delivery), one.attempts))
                .collect();
            let begun = partition.begin(begun).await;
            if begun.is_err() {
                self.unwritten.ring();
            }
            // On failure an earlier step may have made more messages ready.
            if begun.as_ref().map_or(true, |(_, ready)| *ready) {
                self.changed.ring();
            }
            if begun?.0 {
                places
                    .into_iter()
                    .for_each(|place| holders[place] = Holder::Member);
            }
        }
        Ok(holders)
    }
}

impl Deliveries for OwnedGroup {
    fn commit<'a>(
        &'a self,
        _by: &'a Member,
        commits: &'a Commits,
    ) -> BoxFuture<'a, Result<Replies, Error>> {
        Box::pin(async { Ok(self.commit_all(commits).await) })
    }

    fn begin<'a>(
        &'a self,
        _by: &'a Member,
        begins: &'a [Begin],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        Box::pin(self.begin_all(begins))
    }

    /// Membership is renewed for all partitions at once, so this only answers.
    fn extend<'a>(
        &'a self,
        _by: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<Holder>, Error>> {
        Box::pin(async {
            let holder = |id: &DeliveryId| {
                let tenure = self.tenure_of(*id);
                match tenure.is_some_and(|tenure| !tenure.is_over()) {
                    true => Holder::Member,
                    false => Holder::Other,
                }
            };
            Ok(receipts.iter().map(holder).collect())
        })
    }

    fn pending_of<'a>(
        &'a self,
        _by: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>> {
        Box::pin(async move {
            let mut out: Vec<_> = self.all().iter().flat_map(|one| one.out()).collect();
            out.sort_unstable();
            out.truncate(max);
            Ok(out)
        })
    }

    /// The next owner of a partition takes over its messages with the cursor, so none expires here.
    fn claim_expired<'a>(
        &'a self,
        _by: &'a Member,
        lease: Duration,
        _unmarked: Unmarked,
        _cursor: ReclaimCursor,
        _max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        Box::pin(async move {
            Ok(Reclaimed {
                lease,
                ..Reclaimed::default()
            })
        })
    }
}
