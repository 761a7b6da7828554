//! An adapter driven by labels, which hides the differences between adapters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redstart::store::{
    Commit, Commits, DeliveryId, Disposition, Fate, Fetched, GroupAt, Holder, IdRange, Lane,
    Member, NewEntry, Opening, Partition, Reader, ReclaimCursor, Record, Store, Unmarked,
};
use redstart::{
    Group, Topic,
    dead_letters::{DeadLetterFilter, DeadLetterSummary, Reason},
    envelope::EntryId,
    memory::{ManualClock, MemoryStore},
    topics::{ConsumerName, StartFrom, TopicSettings},
};

use crate::model::{End, Handed, Label};
use crate::support::Server;

const DAY: Duration = Duration::from_secs(86_400);

/// How time is made to pass.
pub(crate) enum Time {
    Memory(ManualClock),
    /// The server's own passes by itself; a day passes by making everything due a day sooner.
    Redis(Arc<Server>),
}

/// One topic of an adapter.
pub(crate) struct System {
    pub(crate) name: &'static str,
    store: Arc<dyn Store>,
    topic: Topic,
    time: Time,
    readers: HashMap<(u8, u8), Box<dyn Reader>>,
    /// Where a label was delivered to a group, and as what it is dead there.
    receipts: HashMap<(u8, Label), DeliveryId>,
    dead_letters: HashMap<(u8, Label), EntryId>,
}

fn group_name(group: u8) -> Group {
    Group::new(format!("g{group}")).unwrap()
}

fn label_of(fetched: &Fetched) -> Label {
    String::from_utf8(fetched.fields[0].1.to_vec()).unwrap()
}

fn record(label: &str) -> Record {
    Record {
        head: DeadLetterSummary::new(Reason::Rejected),
        body: label.to_owned().into(),
    }
}

impl System {
    pub(crate) async fn new(
        name: &'static str,
        store: Arc<dyn Store>,
        topic: Topic,
        settings: TopicSettings,
        time: Time,
    ) -> Self {
        let held = store.topics().ensure_topic(&topic, settings).await.unwrap();
        assert_eq!(held, settings);
        Self {
            name,
            store,
            topic,
            time,
            readers: HashMap::new(),
            receipts: HashMap::new(),
            dead_letters: HashMap::new(),
        }
    }

    pub(crate) async fn in_memory(settings: TopicSettings) -> Self {
        let start = redstart::envelope::Timestamp::from_millis(1_000_000).unwrap();
        let clock = ManualClock::new(start);
        let store = MemoryStore::with_clock(clock.clone()).store(None);
        let topic = Topic::new("t").unwrap();
        Self::new("memory", store, topic, settings, Time::Memory(clock)).await
    }

    fn member(&self, group: u8, consumer: u8) -> Member {
        let consumer = ConsumerName::new(format!("c{consumer}")).unwrap();
        Member::of(&self.topic, &group_name(group), consumer)
    }

    pub(crate) async fn create(&mut self, group: u8, from_the_beginning: bool) {
        let start = if from_the_beginning {
            StartFrom::Beginning
        } else {
            StartFrom::End
        };
        let group = group_name(group);
        let made = self
            .store
            .topics()
            .create_group(&GroupAt::of(&self.topic, &group), start)
            .await;
        made.unwrap();
    }

    pub(crate) async fn publish(&mut self, labels: &[Label]) {
        let draft = |label: &Label| NewEntry {
            id: uuid::Uuid::nil(),
            name: "json",
            value: label.clone().into(),
            slot: None,
        };
        let drafts: Vec<_> = labels.iter().map(draft).collect();
        let at = Partition::of(&self.topic);
        for result in self.store.log().append(&at, &drafts).await.unwrap() {
            result.unwrap();
        }
    }

    fn handed(&mut self, group: u8, fetched: Vec<Fetched>) -> Handed {
        let mut handed = Vec::new();
        for one in fetched {
            let label = label_of(&one);
            self.receipts.insert((group, label.clone()), one.receipt);
            handed.push((one.receipt.lane, label, one.attempts.begun));
        }
        // The log before the redelivery stream, whatever the adapter's order.
        handed.sort_by_key(|(lane, ..)| *lane);
        handed
    }

    pub(crate) async fn fetch(&mut self, group: u8, consumer: u8, max: usize) -> Handed {
        let member = self.member(group, consumer);
        if !self.readers.contains_key(&(group, consumer)) {
            let (reader, _) = self.store.open(&Opening::of(&member)).await.unwrap();
            self.readers.insert((group, consumer), reader);
        }
        let reader = self.readers.get_mut(&(group, consumer)).unwrap();
        let fetched = reader.fetch(max, Duration::ZERO).await.unwrap();
        self.handed(group, fetched)
    }

    fn receipt(&self, group: u8, label: &str) -> DeliveryId {
        self.receipts[&(group, label.to_owned())]
    }

    /// Commits. For each fenced commit, whether the member had the delivery.
    async fn commit(&self, member: &Member, commits: Commits) -> Vec<bool> {
        let replies = self.store.deliveries().commit(member, &commits).await;
        let fates = replies.unwrap().answered().unwrap().into_iter();
        fates.map(|fate| fate == Fate::Done).collect()
    }

    pub(crate) async fn acknowledge(&mut self, group: u8, consumer: u8, labels: &[&str]) {
        let member = self.member(group, consumer);
        let receipts: Vec<_> = labels.iter().map(|one| self.receipt(group, one)).collect();
        let commits = receipts.into_iter().map(Commit::ack);
        self.commit(&member, commits.collect()).await;
    }

    pub(crate) async fn settle(
        &mut self,
        group: u8,
        consumer: u8,
        ends: &[(Label, End, Label)],
    ) -> Vec<bool> {
        let member = self.member(group, consumer);
        let commits: Commits = ends
            .iter()
            .map(|(label, end, as_what)| {
                let receipt = self.receipt(group, label);
                let later = |delay| Commit::reschedule(receipt, delay, as_what.clone().into());
                match end {
                    End::Now => later(Duration::ZERO),
                    End::Soon => later(Duration::from_millis(1)),
                    End::Tomorrow => later(DAY),
                    End::DeadLetter => Commit::dead_letter(receipt, record(as_what)),
                }
            })
            .collect();
        let settled = self.commit(&member, commits).await;
        // Retries that were due soon are due; later ones are due at another millisecond.
        match &self.time {
            Time::Memory(clock) => clock.advance(Duration::from_millis(1)),
            Time::Redis(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
        settled
    }

    pub(crate) async fn extend(&mut self, group: u8, consumer: u8, labels: &[&str]) -> Vec<bool> {
        let member = self.member(group, consumer);
        let receipts: Vec<_> = labels.iter().map(|one| self.receipt(group, one)).collect();
        let holders = self.store.deliveries().extend(&member, &receipts).await;
        let holders = holders.unwrap().into_iter();
        holders.map(|holder| holder == Holder::Member).collect()
    }

    pub(crate) async fn release(&mut self, group: u8, consumer: u8, labels: &[&str]) -> u64 {
        let member = self.member(group, consumer);
        let receipts: Vec<_> = labels.iter().map(|one| self.receipt(group, one)).collect();
        let commits = receipts.into_iter().map(Commit::release);
        let held = self.commit(&member, commits.collect()).await;
        held.into_iter().filter(|held| *held).count() as u64
    }

    pub(crate) async fn reclaim(&mut self, group: u8, consumer: u8, everything: bool) -> Handed {
        let member = self.member(group, consumer);
        let lease = if everything { Duration::ZERO } else { DAY };
        let (mut cursor, mut all) = (ReclaimCursor::default(), Vec::new());
        let (mut log_done, mut redo_done) = (false, false);
        loop {
            let found = self
                .store
                .deliveries()
                .claim_expired(&member, lease, Unmarked::Begun, cursor, 100)
                .await;
            let found = found.unwrap();
            assert_eq!(found.missing, 0, "{}: data loss", self.name);
            // A lane that reached its end starts over while the other continues.
            all.extend(
                found
                    .taken
                    .into_iter()
                    .filter(|one| match one.receipt.lane {
                        Lane::Log => !log_done,
                        Lane::Redelivery => !redo_done,
                    }),
            );
            cursor = found.cursor;
            log_done |= cursor.log == EntryId::default();
            redo_done |= cursor.redelivery == EntryId::default();
            if log_done && redo_done {
                return self.handed(group, all);
            }
        }
    }

    pub(crate) async fn pending_of(&mut self, group: u8, consumer: u8) -> Vec<(Lane, Label)> {
        let member = self.member(group, consumer);
        let held = self
            .store
            .deliveries()
            .pending_of(&member, 1000)
            .await
            .unwrap();
        let label = |receipt: DeliveryId| {
            let mut known = self.receipts.iter();
            let ((_, label), _) = known
                .find(|((of, _), known)| *of == group && **known == receipt)
                .unwrap();
            (receipt.lane, label.clone())
        };
        held.into_iter().map(label).collect()
    }

    pub(crate) async fn promote(&mut self, group: u8, max: usize) -> u64 {
        let group = group_name(group);
        let promoted = self
            .store
            .schedule()
            .promote(&GroupAt::of(&self.topic, &group), max)
            .await;
        promoted.unwrap().moved
    }

    /// A day passes.
    pub(crate) fn tomorrow(&mut self) {
        let server = match &self.time {
            Time::Memory(clock) => return clock.advance(DAY),
            Time::Redis(server) => server,
        };
        let script = "for _, key in ipairs(KEYS) do
              for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
                redis.call('ZINCRBY', key, -86400000, member)
              end
            end";
        let mut call = redis::Script::new(script);
        let call = call_keys(&mut call, &self.topic);
        call.invoke::<()>(&mut server.raw()).unwrap();
    }

    pub(crate) async fn dead(&mut self, group: u8) -> Vec<Label> {
        let name = group_name(group);
        let dead_letters = self.store.dead_letters();
        let (span, all) = (IdRange::default(), DeadLetterFilter::default());
        let at = GroupAt::of(&self.topic, &name);
        let found = dead_letters.search(&at, span, &all, 1000);
        let ids: Vec<_> = found
            .await
            .unwrap()
            .items
            .iter()
            .map(|(id, _)| *id)
            .collect();
        let records = dead_letters.find(&at, &ids).await;
        let mut labels = Vec::new();
        for (id, record) in records.unwrap() {
            let label = String::from_utf8(record.body.to_vec()).unwrap();
            self.dead_letters.insert((group, label.clone()), id);
            labels.push(label);
        }
        labels
    }

    pub(crate) async fn redrive(&mut self, group: u8, moves: &[(Label, Label)]) -> Vec<bool> {
        let redeliveries: Vec<_> = moves
            .iter()
            .map(|(label, redelivery)| {
                let id = self.dead_letters[&(group, label.clone())];
                (id, Disposition::RequeueAs(redelivery.clone().into()))
            })
            .collect();
        let (store, group) = (&self.store, group_name(group));
        let dead_letters = store.dead_letters();
        let moved = dead_letters
            .move_out(&GroupAt::of(&self.topic, &group), &redeliveries, &[], None)
            .await;
        moved.unwrap()
    }

    pub(crate) async fn take_out(
        &mut self,
        group: u8,
        labels: &[Label],
        disposition: Disposition,
    ) -> Vec<bool> {
        let id = |label: &Label| self.dead_letters[&(group, label.clone())];
        let items: Vec<_> = labels
            .iter()
            .map(|label| (id(label), disposition.clone()))
            .collect();
        let (dead_letters, group) = (self.store.dead_letters(), group_name(group));
        let gone = dead_letters
            .move_out(&GroupAt::of(&self.topic, &group), &items, &[], None)
            .await;
        gone.unwrap()
    }

    pub(crate) async fn trim(&mut self) -> [u64; 3] {
        let found = self
            .store
            .topics()
            .trim(&Partition::of(&self.topic))
            .await
            .unwrap();
        assert!(found.known, "{}", self.name);
        [found.removed, found.length, found.backlog]
    }

    /// Operations that must change nothing visible.
    pub(crate) async fn keep_house(&mut self, group: u8) {
        let (store, topic, group) = (&self.store, &self.topic, group_name(group));
        store
            .topics()
            .trim_redelivery(&GroupAt::of(topic, &group))
            .await
            .unwrap();
        let forgotten = store
            .topics()
            .prune_consumers(&GroupAt::of(topic, &group), Duration::ZERO, None)
            .await;
        forgotten.unwrap();
    }

    /// The log's length, and each group's lag, in-flight, scheduled and dead.
    pub(crate) async fn counts(&mut self) -> (u64, Vec<[u64; 4]>) {
        let status = self
            .store
            .inspect()
            .status(&Partition::of(&self.topic))
            .await
            .unwrap()
            .unwrap();
        let groups = status.groups.iter();
        let counts = groups.map(|one| [one.lag, one.in_flight, one.scheduled, one.dead]);
        (status.entries, counts.collect())
    }
}

/// All groups' retries of a topic.
fn call_keys<'a>(script: &'a mut redis::Script, topic: &Topic) -> redis::ScriptInvocation<'a> {
    let mut call = script.prepare_invoke();
    for group in 0..3 {
        call.key(format!("{{shop:{topic}}}:group:g{group}:retry"));
    }
    call
}
