//! Shared by the checks: a topic with a group, readers, and waiting for conditions.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;
use uuid::Uuid;

use super::Subject;
use crate::api::{Delivery, SubscribeOptions, Subscription};
use crate::container::Container;
use crate::domain::{
    ConsumerName, DeadLetter, DeadLetterFilter, DeadLetterSummary, EntryId, Envelope, Group,
    Reason, RetryPolicy, Topic, TopicSettings,
};
use crate::extract::Payload;
use crate::store::{
    Begin, Commit, Commits, DeliveryId, Fate, Fetched, Fields, GroupAt, GroupStatus, Interrupt,
    Member, NewEntry, Opening, Partition, Reader, ReclaimCursor, Record, StartFrom, Store,
    Unmarked,
};

/// Longer than any check takes.
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// A delay after which a retry is due nearly at once.
pub(super) const SOON: Duration = Duration::from_millis(5);

/// Unwraps a well-formed value or an adapter's answer.
pub(super) trait Must<T> {
    fn must(self, what: &str) -> T;
}

impl<T, E: Debug> Must<T> for Result<T, E> {
    fn must(self, what: &str) -> T {
        self.unwrap_or_else(|error| panic!("{what} failed: {error:?}"))
    }
}

impl<T> Must<T> for Option<T> {
    fn must(self, what: &str) -> T {
        self.unwrap_or_else(|| panic!("{what} is missing"))
    }
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::new(name).must("a topic's name")
}

pub(super) fn group(name: &str) -> Group {
    Group::new(name).must("a group's name")
}

/// An entry as a producer of another language may write it.
pub(super) fn entry(n: u32) -> NewEntry {
    let text = format!(r#"{{"type":"n","payload":{n}}}"#);
    NewEntry {
        id: Uuid::from_u128(u128::from(n) << 64),
        ..new_entry("json", Bytes::from(text))
    }
}

/// An entry with any bytes.
pub(super) fn new_entry(name: &'static str, value: impl Into<Bytes>) -> NewEntry {
    NewEntry {
        id: Uuid::nil(),
        name,
        value: value.into(),
        slot: None,
    }
}

/// The fields that an entry has in the log.
pub(super) fn fields(entry: NewEntry) -> Fields {
    vec![(Bytes::from_static(entry.name.as_bytes()), entry.value)]
}

/// A message with a number.
pub(super) fn number(n: u32) -> Envelope {
    Envelope::new("n", &n).must("an envelope")
}

/// The number in an entry of [`entry`].
pub(super) fn number_in(fetched: &Fetched) -> u32 {
    let (_, value) = fetched.fields.first().must("the entry's field");
    let text = std::str::from_utf8(value).must("reading the entry");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().must("the number of the entry")
}

pub(super) fn numbers(fetched: &[Fetched]) -> Vec<u32> {
    fetched.iter().map(number_in).collect()
}

pub(super) fn receipts(fetched: &[Fetched]) -> Vec<DeliveryId> {
    fetched.iter().map(|one| one.receipt).collect()
}

/// The beginning of the same attempt at each.
pub(super) fn begins(deliveries: &[DeliveryId], attempts: u32) -> Vec<Begin> {
    let begin = |delivery: &DeliveryId| Begin {
        delivery: *delivery,
        attempts: attempts.into(),
    };
    deliveries.iter().map(begin).collect()
}

pub(super) fn later(receipt: DeliveryId, delay: Duration, redelivery: &str) -> Commit {
    Commit::reschedule(receipt, delay, Bytes::from(redelivery.to_owned()))
}

pub(super) fn record(body: &str) -> Record {
    Record {
        head: head("no user 7"),
        body: Bytes::from(body.to_owned()),
    }
}

pub(super) fn head(error: &str) -> DeadLetterSummary {
    DeadLetterSummary {
        reason: Reason::Rejected,
        fingerprint: crate::domain::fingerprint(error),
        message_type: "n".to_owned(),
        tenant: Some("t-1".to_owned()),
        correlation: None,
        message_id: Some(Uuid::from_u128(7)),
        error: error.to_owned(),
        attempts: 3,
        redriven: 0,
        redriven_by: None,
        imported_from: None,
    }
}

pub(super) fn dead_lettered(receipt: DeliveryId, body: &str) -> Commit {
    Commit::dead_letter(receipt, record(body))
}

/// Tries again soon, this many attempts in all.
pub(super) fn quick(attempts: u32) -> SubscribeOptions {
    SubscribeOptions::new().with_retry(RetryPolicy::fixed(SOON).with_max_attempts(attempts))
}

/// The same, where the store schedules every retry.
pub(super) fn through_the_store(attempts: u32) -> SubscribeOptions {
    quick(attempts).with_hold_back(Duration::ZERO)
}

/// A reader of one consumer.
pub(super) struct Hand {
    pub(super) member: Member,
    pub(super) reader: Box<dyn Reader>,
    pub(super) interrupt: Box<dyn Interrupt>,
}

/// A container of service `billing`, its backend, topic `orders` and group `billing`.
pub(super) struct Stage<'a, S> {
    pub(super) subject: &'a S,
    pub(super) container: Container,
    pub(super) store: Arc<dyn Store>,
    pub(super) topic: Topic,
    pub(super) group: Group,
    /// The group on the topic's only partition.
    pub(super) at: GroupAt,
}

impl<'a, S: Subject> Stage<'a, S> {
    /// Topic and group exist.
    pub(super) async fn new(subject: &'a S) -> Self {
        Self::with(subject, TopicSettings::default()).await
    }

    /// Topic and group exist, the topic with these settings.
    pub(super) async fn with(subject: &'a S, settings: TopicSettings) -> Self {
        let stage = Self::bare(subject).await;
        let made = stage
            .store
            .topics()
            .ensure_topic(&stage.topic, settings)
            .await;
        // A store under test may split every topic.
        let made = made.must("creating the topic");
        assert_eq!(made.with_partitions(settings.partitions()), settings);
        stage.create(&stage.group).await;
        stage
    }

    /// Nothing exists yet.
    pub(super) async fn bare(subject: &'a S) -> Self {
        let container = subject.container("billing").await;
        let (topic, group) = (topic("orders"), group("billing"));
        Self {
            subject,
            store: container.store(),
            container,
            at: GroupAt::of(&topic, &group),
            topic,
            group,
        }
    }

    /// Continues with another topic.
    pub(super) fn move_to(&mut self, topic: Topic) {
        self.at = GroupAt::of(&topic, &self.group);
        self.topic = topic;
    }

    /// The topic's only partition.
    pub(super) fn partition(&self) -> &Partition {
        &self.at.partition
    }

    pub(super) async fn create(&self, group: &Group) {
        let start = StartFrom::Beginning;
        let made = self
            .store
            .topics()
            .create_group(&GroupAt::of(&self.topic, group), start)
            .await;
        made.must("creating the group");
    }

    /// Waits until a condition holds.
    pub(super) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + self.subject.patience();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < deadline, "timed out waiting for {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for one value that a handler sends.
    pub(super) async fn next<T>(&self, received: &mut UnboundedReceiver<T>) -> T {
        tokio::time::timeout(self.subject.patience(), received.recv())
            .await
            .must("waiting for a handler")
            .must("the sender")
    }

    /// Waits for several values that a handler sends, in their order.
    pub(super) async fn some<T>(
        &self,
        received: &mut UnboundedReceiver<T>,
        count: usize,
    ) -> Vec<T> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.next(received).await);
        }
        all
    }

    pub(super) fn member(&self, consumer: &str) -> Member {
        self.member_of(&self.group, consumer)
    }

    pub(super) fn member_of(&self, group: &Group, consumer: &str) -> Member {
        let consumer = ConsumerName::new(consumer).must("a consumer's name");
        Member::of(&self.topic, group, consumer)
    }

    /// The member that holds deliveries.
    pub(super) async fn holder(&self) -> Member {
        let consumers = self.store.inspect().consumers(&self.at).await;
        let consumers = consumers.must("listing");
        let holder = consumers.iter().find(|one| one.in_flight > 0);
        self.member(holder.must("the holder").consumer.as_str())
    }

    pub(super) async fn hand(&self, consumer: &str) -> Hand {
        self.hand_of(&self.group, consumer).await
    }

    pub(super) async fn hand_of(&self, group: &Group, consumer: &str) -> Hand {
        let member = self.member_of(group, consumer);
        let (reader, interrupt) = self
            .store
            .open(&Opening::of(&member))
            .await
            .must("opening a reader");
        Hand {
            member,
            reader,
            interrupt,
        }
    }

    pub(super) async fn append(&self, numbers: std::ops::Range<u32>) -> Vec<EntryId> {
        let entries: Vec<NewEntry> = numbers.map(entry).collect();
        self.append_entries(&entries).await
    }

    /// Appends entries, each of which must succeed.
    pub(super) async fn append_entries(&self, entries: &[NewEntry]) -> Vec<EntryId> {
        let log = self.store.log();
        let results = log.append(self.partition(), entries).await;
        let results = results.must("appending").into_iter();
        results.map(|result| result.must("appending").id).collect()
    }

    /// Fetches `count` entries, from both lanes together.
    pub(super) async fn fetch(&self, hand: &mut Hand, count: usize) -> Vec<Fetched> {
        let deadline = Instant::now() + self.subject.patience();
        let mut all = Vec::new();
        while all.len() < count {
            assert!(Instant::now() < deadline, "timed out waiting for entries");
            let max = count - all.len();
            let wait = Duration::from_millis(50);
            all.extend(hand.reader.fetch(max, wait).await.must("fetching"));
        }
        assert_eq!(all.len(), count, "more came than there should be");
        all
    }

    /// Fetches until some entries come. A topic with several partitions may give more than `max`.
    pub(super) async fn fetch_some(&self, hand: &mut Hand, max: usize) -> Vec<Fetched> {
        self.until("entries", async || {
            let wait = Duration::from_millis(50);
            let fetched = hand.reader.fetch(max, wait).await.must("fetching");
            Some(fetched).filter(|fetched| !fetched.is_empty())
        })
        .await
    }

    /// Fetches and expects no entry.
    pub(super) async fn nothing(&self, hand: &mut Hand) {
        let wait = Duration::from_millis(1);
        let fetched = hand.reader.fetch(100, wait).await.must("fetching");
        assert!(fetched.is_empty(), "there should be nothing: {fetched:?}");
    }

    /// Commits, and expects an answer to each.
    pub(super) async fn commit(&self, member: &Member, commits: Commits) -> Vec<Fate> {
        let replies = self.store.deliveries().commit(member, &commits).await;
        let replies = replies.must("committing");
        assert_eq!(replies.fenced.len(), commits.fenced().len());
        replies.answered().must("committing")
    }

    /// Settles. For each, whether the member held it.
    pub(super) async fn settle(&self, member: &Member, commits: &[Commit]) -> Vec<bool> {
        let fates = self.commit(member, commits.iter().cloned().collect());
        let fates = fates.await.into_iter();
        fates.map(|fate| fate == Fate::Done).collect()
    }

    pub(super) async fn acknowledge(&self, member: &Member, receipts: &[DeliveryId]) {
        let commits = receipts.iter().copied().map(Commit::ack);
        self.commit(member, commits.collect()).await;
    }

    /// Gives back. Returns how many the member held.
    pub(super) async fn release(&self, member: &Member, receipts: &[DeliveryId]) -> u64 {
        let commits = receipts.iter().copied().map(Commit::release);
        let fates = self.commit(member, commits.collect()).await.into_iter();
        fates.filter(|fate| *fate == Fate::Done).count() as u64
    }

    /// Gives all that a running subscription holds back in its consumer's name, until another member
    /// has it: the subscription may be the first to claim it again.
    pub(super) async fn take_over(&self, owner: &Member, thief: &Member) -> Vec<DeliveryId> {
        let taken = self.until("another member to take over", async || {
            let held = self.store.deliveries().pending_of(owner, 10).await;
            self.release(owner, &held.must("asking")).await;
            Some(self.reclaim(thief, DAY).await).filter(|taken| !taken.is_empty())
        });
        receipts(&taken.await)
    }

    /// Reclaims every delivery older than a lease, in one round.
    pub(super) async fn reclaim(&self, member: &Member, lease: Duration) -> Vec<Fetched> {
        self.claim(member, lease, Unmarked::Begun).await
    }

    /// The same, with unmarked hand-outs counted so.
    pub(super) async fn claim(
        &self,
        member: &Member,
        lease: Duration,
        unmarked: Unmarked,
    ) -> Vec<Fetched> {
        let mut cursor = ReclaimCursor::default();
        let mut all = Vec::new();
        loop {
            let found = self
                .store
                .deliveries()
                .claim_expired(member, lease, unmarked, cursor, 100)
                .await;
            let found = found.must("reclaiming");
            assert_eq!(found.missing, 0, "data loss");
            all.extend(found.taken);
            cursor = found.cursor;
            if cursor == ReclaimCursor::default() {
                return all;
            }
        }
    }

    /// Promotes due retries until `count` were moved.
    pub(super) async fn promote(&self, count: u64) {
        let mut moved = 0;
        self.until("retries to be promoted", async || {
            let promoted = self.store.schedule().promote(&self.at, 100).await;
            moved += promoted.must("promoting").moved;
            (moved >= count).then_some(())
        })
        .await;
        assert_eq!(moved, count);
    }

    pub(super) async fn status(&self) -> GroupStatus {
        self.status_of(&self.group).await
    }

    pub(super) async fn status_of(&self, group: &Group) -> GroupStatus {
        let status = self
            .store
            .inspect()
            .status(self.partition())
            .await
            .must("asking");
        let groups = status.must("the topic").groups.into_iter();
        let mut found = groups.filter(|status| status.group == *group);
        found.next().must("the group")
    }

    /// Lag, in-flight, scheduled, dead.
    pub(super) async fn counts(&self) -> [u64; 4] {
        let status = self.status().await;
        [status.lag, status.in_flight, status.scheduled, status.dead]
    }

    pub(super) async fn length(&self) -> u64 {
        let status = self
            .store
            .inspect()
            .status(self.partition())
            .await
            .must("asking");
        status.must("the topic").entries
    }

    pub(super) async fn publish(&self, numbers: std::ops::Range<u32>) {
        let all: Vec<Envelope> = numbers.map(number).collect();
        let results = self.container.bus().publish_all(&self.topic, &all).await;
        for result in results {
            result.must("publishing");
        }
    }

    /// Waits until the group has no lag, no in-flight and no scheduled messages.
    pub(super) async fn drained(&self) -> GroupStatus {
        self.drained_of(&self.group).await
    }

    pub(super) async fn drained_of(&self, group: &Group) -> GroupStatus {
        self.until("the group to drain", async || {
            let status = self.status_of(group).await;
            (status.lag + status.in_flight + status.scheduled == 0).then_some(status)
        })
        .await
    }

    /// Subscribes a handler that sends each message to the check.
    pub(super) async fn subscribe(
        &self,
        options: SubscribeOptions,
        sender: UnboundedSender<u32>,
    ) -> Subscription {
        let bus = self.container.bus();
        let handler = move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            std::future::ready(())
        };
        let made = bus.subscribe_with(&self.topic, options, handler).await;
        made.must("subscribing")
    }

    /// The group's dead letters.
    pub(super) async fn letters(&self) -> Vec<DeadLetter> {
        self.letters_of(&self.group).await
    }

    pub(super) async fn letters_of(&self, group: &Group) -> Vec<DeadLetter> {
        let dead = self.container.dead_letters();
        let all = DeadLetterFilter::default();
        let page = dead.list(&self.topic, group, &all, None, 1000).await;
        let letters = page.must("listing").items;
        let ids: Vec<EntryId> = letters.iter().map(|(id, _)| *id).collect();
        dead.get(&self.topic, group, &ids).await.must("reading")
    }

    /// Shuts a container down and expects a clean report.
    pub(super) async fn finish(&self) {
        self.end(&self.container).await;
    }

    pub(super) async fn end(&self, container: &Container) {
        let report = container.shutdown(self.subject.patience()).await;
        assert!(report.is_clean(), "{report:?}");
    }
}
