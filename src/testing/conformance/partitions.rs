//! Topics with several partitions: keys stay together, and everything works over all partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Subject;
use super::support::{
    DAY, Must as _, Stage, dead_lettered, entry, fields, number, quick, receipts, topic,
};
use crate::api::{Delivery, Payload};
use crate::api::{PublishOptions, SubscribeOptions};
use crate::domain::{
    DeadLetterFilter, Durability, Effects, EntryId, Envelope, ErrorKind, Outcome, Retention,
    ScheduleId, ScheduleOptions, Sweep, Timestamp, TopicSettings, When, crc16,
};
use crate::store::{
    Commit, Fields, IdRange, LaterEntry, LaterPut, NewEntry, NewLater, Partition, ResetTo, Unmarked,
};

const FOUR: u16 = 4;

fn four() -> TopicSettings {
    TopicSettings::default().with_partitions(FOUR)
}

/// A message with a number and one of ten keys.
fn keyed(n: u32) -> Envelope {
    number(n).with_key(format!("k{}", n % 10))
}

/// An entry with a number in the partition of a slot.
fn entry_of(slot: u16, n: u32) -> NewEntry {
    NewEntry {
        slot: Some(slot),
        ..entry(n)
    }
}

impl<S: Subject> Stage<'_, S> {
    /// Appends one entry to each partition, with the partition's number in it.
    async fn append_to_each(&self) -> Vec<EntryId> {
        let entries: Vec<NewEntry> = (0..FOUR).map(|at| entry_of(at, at.into())).collect();
        self.append_entries(&entries).await
    }

    async fn publish_keyed(&self, numbers: std::ops::Range<u32>) -> Vec<EntryId> {
        let all: Vec<Envelope> = numbers.map(keyed).collect();
        let results = self.container.bus().publish_all(&self.topic, &all).await;
        let ids = results.into_iter();
        ids.map(|one| one.must("publishing").id).collect()
    }
}

/// > Creates a topic with all of its partitions, or finds it: an existing topic keeps its settings.
/// > Changes the settings of a topic but the number of its partitions, and returns the earlier ones;
/// > `None` where it does not exist.
/// > The number of a topic's partitions; `None` where it does not exist.
pub async fn the_number_of_partitions_is_fixed<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (topics, store) = (stage.container.topics(), stage.store.topics());
    let count = async || store.partitions(&stage.topic).await.must("counting");
    assert_eq!(count().await, None);
    for bad in [0, 257] {
        let settings = TopicSettings::default().with_partitions(bad);
        let refused = topics.create(&stage.topic, settings).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    }
    topics.create(&stage.topic, four()).await.must("creating");
    assert_eq!(count().await, Some(FOUR));
    topics.create(&stage.topic, four()).await.must("finding");
    for other in [1, 5] {
        let settings = TopicSettings::default().with_partitions(other);
        let refused = topics.create(&stage.topic, settings).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        assert!(refused.to_string().contains("4 partitions"), "{refused}");
        let refused = topics.plan_settings(&stage.topic, settings).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        let kept = store.change_settings(&stage.topic, settings).await;
        assert_eq!(kept.must("changing").must("the topic").partitions(), FOUR);
        assert_eq!(count().await, Some(FOUR));
    }
    // A publish and a subscription with the defaults find the topic as it is.
    let ids = stage.publish_keyed(0..40).await;
    assert!(ids.iter().any(|id| id.partition() > 0), "{ids:?}");
    let status = topics.get(&stage.topic).await.must("asking").must("it");
    assert_eq!((status.entries, status.settings.partitions()), (40, FOUR));
    // The container that has read along goes by the new number, too.
    let removed = store.remove_topic(&stage.topic).await.must("removing");
    assert!(removed.is_some_and(|removal| removal.removed && removal.entries == 40));
    assert_eq!(count().await, None);
    topics
        .create(&stage.topic, TopicSettings::default())
        .await
        .must("creating it again");
    let left = stage.store.log().browse(stage.partition(), None, 100).await;
    assert!(left.must("browsing").is_empty(), "nothing is left");
}

/// Messages of one key go to one partition in their order; those without a key take turns, and a repeat
/// meets its id.
pub async fn messages_of_one_key_stay_together<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    let mut places: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
    for n in (0..200).step_by(20) {
        for (n, id) in (n..).zip(stage.publish_keyed(n..n + 20).await) {
            places.entry(n % 10).or_default().insert(id.partition());
        }
    }
    assert!(places.values().all(|one| one.len() == 1), "{places:?}");
    let used: BTreeSet<u16> = places.into_values().flatten().collect();
    assert!(used.len() > 1, "{used:?}");

    let bus = stage.container.bus();
    let mut turns = BTreeSet::new();
    for n in 0..4 {
        let call: Vec<Envelope> = (n..n + 5).map(number).collect();
        let ids = bus.publish_all(&stage.topic, &call).await.into_iter();
        let used: BTreeSet<u16> = ids
            .map(|one| one.must("publishing").id.partition())
            .collect();
        assert_eq!(used.len(), 1, "a call stays together");
        turns.extend(used);
    }
    assert!(turns.len() > 1, "{turns:?}");
    if stage.store.capabilities().append_once {
        let options = PublishOptions::new().with_deduplication(DAY);
        for envelope in [number(1), keyed(1)] {
            let mut ids = BTreeSet::new();
            for repeat in 0..5 {
                let done = bus.publish_with(&stage.topic, &envelope, options).await;
                let done = done.must("publishing");
                assert_eq!(done.duplicate, repeat > 0);
                ids.insert(done.id);
            }
            assert_eq!(ids.len(), 1, "{ids:?}");
        }
    }
}

/// One handler at a time sees the messages of each key in their order, and every message once.
pub async fn a_key_keeps_its_order<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    stage.publish_keyed(0..150).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_concurrency(1);
    let _subscription = stage.subscribe(options, sender).await;
    stage.publish_keyed(150..300).await;
    let seen = stage.some(&mut received, 300).await;
    for key in 0..10 {
        let of_key: Vec<u32> = seen.iter().copied().filter(|n| n % 10 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 300);
    stage.drained().await;
    stage.finish().await;
}

/// Pages over all partitions are in the order of their ids and miss nothing.
pub async fn a_topic_is_read_as_one_log<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.extend(stage.append_to_each().await);
    }
    ids.sort_unstable();
    let (log, at) = (stage.store.log(), stage.partition());
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    loop {
        let after: Option<EntryId> = forth.last().copied();
        let page = log.browse(at, after, 5).await.must("browsing");
        if page.is_empty() {
            break;
        }
        forth.extend(page.into_iter().map(|(id, _)| id));
    }
    loop {
        let before: Option<EntryId> = back.last().copied();
        let page = log.browse_back(at, before, 5).await.must("browsing back");
        if page.is_empty() {
            break;
        }
        back.extend(page.into_iter().map(|(id, _)| id));
    }
    back.reverse();
    assert_eq!((&forth, &back), (&ids, &ids));
    let latest = log.latest(at, 3).await.must("reading the latest");
    let latest: Vec<EntryId> = latest.into_iter().map(|(id, _)| id).collect();
    assert_eq!(latest, ids[ids.len() - 3..]);
    assert_eq!(log.newest(at).await.must("asking"), ids.last().copied());
    // One partition alone.
    let third = Partition::numbered(&stage.topic, 3);
    let alone = log.browse(&third, None, 100).await.must("browsing");
    assert_eq!(alone.len(), 6);
    assert!(alone.iter().all(|(id, _)| id.partition() == 3));
}

/// Deliveries of all partitions are settled, extended, listed and taken over, and the log is trimmed.
pub async fn deliveries_return_to_their_partition<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    for _ in 0..5 {
        stage.append_to_each().await;
    }
    let mut one = stage.hand("one").await;
    let fetched = stage.fetch(&mut one, 20).await;
    assert!(fetched.iter().all(|got| got.source == 0));
    let held = receipts(&fetched);
    let deliveries = stage.store.deliveries();
    let pending = deliveries.pending_of(&one.member, 100).await;
    let pending: BTreeSet<_> = pending.must("listing").into_iter().collect();
    assert_eq!(pending, held.iter().copied().collect());
    let extended = deliveries.extend(&one.member, &held).await;
    assert_eq!(extended.must("extending").len(), 20);
    assert_eq!(stage.counts().await, [0, 20, 0, 0]);

    let other = stage.hand("two").await;
    let taken = stage
        .claim(&other.member, Duration::ZERO, Unmarked::Begun)
        .await;
    let taken: BTreeSet<_> = receipts(&taken).into_iter().collect();
    assert_eq!(taken, pending);
    let left = deliveries.pending_of(&one.member, 100).await;
    assert!(left.must("listing").is_empty());
    stage.acknowledge(&other.member, &held).await;
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);

    let topics = stage.store.topics();
    let mut removed = 0;
    stage
        .until("settled entries to be removed", async || {
            let trimmed = topics.trim(stage.partition()).await.must("trimming");
            removed += trimmed.removed;
            // A server removes whole nodes of a stream.
            (trimmed.backlog == 0 && trimmed.known).then_some(())
        })
        .await;
    let consumers = stage.store.inspect().consumers(&stage.at).await;
    assert_eq!(consumers.must("listing").len(), 2);
}

/// Trimming a topic trims every partition.
pub async fn trimming_reaches_every_partition<S: Subject>(subject: &S) {
    const EACH: u32 = 250;

    let stage = Stage::bare(subject).await;
    let (topics, settings) = (
        stage.store.topics(),
        four().with_retention(Retention::Count(40)),
    );
    let made = topics.ensure_topic(&stage.topic, settings).await;
    made.must("creating the topic");
    for at in 0..FOUR {
        let entries: Vec<NewEntry> = (0..EACH).map(|n| entry_of(at, n)).collect();
        stage.append_entries(&entries).await;
    }
    let trimmed = topics.trim(stage.partition()).await.must("trimming");
    assert!(trimmed.removed > 0);
    let mut left = Vec::new();
    for number in 0..FOUR {
        let at = Partition::numbered(&stage.topic, number);
        let status = stage.store.inspect().status(&at).await.must("asking");
        left.push(status.must("the partition").entries);
    }
    // A server removes whole nodes of a stream.
    let shrank = |entries: &u64| (10..u64::from(EACH)).contains(entries);
    assert!(left.iter().all(shrank), "{left:?}");
    // Each partition keeps its newest entries.
    for (number, left) in (0..FOUR).zip(left) {
        let at = Partition::numbered(&stage.topic, number);
        let kept = stage.store.log().browse(&at, None, 1_000).await;
        let kept: Vec<Fields> = kept.must("browsing").into_iter().map(|one| one.1).collect();
        let newest = (EACH - left as u32..EACH).map(|n| fields(entry_of(number, n)));
        assert_eq!(kept, newest.collect::<Vec<_>>(), "{number}");
    }
}

/// Each partition keeps an equal part of a topic's limit of messages for later, and the error says so.
pub async fn messages_for_later_are_bounded_by_partition<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four().with_backlog_limit(7)).await;
    if !stage.store.capabilities().later {
        return;
    }
    let (bus, day) = (stage.container.bus(), When::After(DAY));
    let same_key: Vec<Envelope> = (0..3).map(|n| number(n).with_key("k")).collect();
    let options = ScheduleOptions::new();
    let done = bus
        .publish_later(&stage.topic, &same_key, day, options)
        .await;
    assert!(done[..2].iter().all(Result::is_ok), "{done:?}");
    let refused = done[2].as_ref().expect_err("the third is too many");
    assert_eq!(refused.kind(), ErrorKind::BacklogFull);
    let text = refused.to_string();
    assert!(
        text.contains("of 4 keeps 2 messages for later, its equal part"),
        "{text}"
    );
    if stage.store.capabilities().effects {
        let one_more = number(9).with_key("k");
        let mut effects = Effects::new();
        effects.publish_after(DAY, &stage.topic, one_more);
        let refused = stage.container.commit(effects).await;
        let refused = refused.expect_err("one more is too many");
        assert_eq!(refused.kind(), ErrorKind::BacklogFull);
        let full = crc16(b"k") % FOUR;
        let named = format!("partition {full} keeps as many messages for later as its equal part");
        assert!(refused.to_string().contains(&named), "{refused}");
    }
    // The other partitions have room, and the topic keeps all in all a little more than its limit.
    let later = stage.store.later();
    let messages = (0..3 * FOUR).map(|n| NewLater {
        id: ScheduleId::new(format!("m{n}")).must("an id"),
        due: day,
        keeps: false,
        name: "json",
        value: "1".into(),
        slot: Some(n % FOUR),
    });
    let messages: Vec<NewLater> = messages.collect();
    let put = later
        .put(stage.partition(), Durability::Accepted, &messages)
        .await
        .must("putting");
    for (message, put) in messages.iter().zip(put) {
        if let LaterPut::Full {
            partition,
            partitions,
            most,
        } = put
        {
            assert_eq!((Some(partition), partitions, most), (message.slot, FOUR, 2));
        }
    }
    let status = stage.container.topics().get(&stage.topic).await;
    assert_eq!(status.must("asking").must("the topic").later, 8);
}

/// Retries and dead letters stay in the partition of their message; lists, counts, sweeps and the journal
/// cover all partitions.
pub async fn dead_letters_stay_in_their_partition<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    let ids = stage.publish_keyed(0..40).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let works = Arc::new(AtomicBool::new(false));
    let does_work = Arc::clone(&works);
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let works = does_work.load(Ordering::SeqCst);
        if works {
            let _ = sender.send(n);
        }
        std::future::ready(if works {
            Outcome::Ack
        } else {
            Outcome::retry("not yet")
        })
    };
    let bus = stage.container.bus();
    let options = quick(2).with_hold_back(Duration::ZERO);
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    let status = stage
        .until("all to be dead", async || {
            let status = stage.status().await;
            (status.dead == 40).then_some(status)
        })
        .await;
    assert_eq!((status.lag, status.scheduled), (0, 0));
    let (dead, all) = (stage.container.dead_letters(), DeadLetterFilter::default());
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = dead.list(&stage.topic, &stage.group, &all, after, 7).await;
        let page = page.must("listing");
        listed.extend(page.items.iter().map(|(id, _)| *id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(listed.is_sorted(), "{listed:?}");
    assert_eq!(listed.len(), 40);
    let letters = stage.letters().await;
    let mut origins = BTreeSet::new();
    for letter in &letters {
        assert_eq!(letter.id.partition(), letter.history.origin.partition());
        origins.insert(letter.history.origin);
    }
    assert_eq!(origins, ids.iter().copied().collect());
    let causes = stage.store.dead_letters().causes(&stage.at).await;
    let counts: Vec<u64> = causes
        .must("asking")
        .items
        .iter()
        .map(|one| one.count)
        .collect();
    assert_eq!(counts, [40]);

    works.store(true, Ordering::SeqCst);
    let report = stage.sweep(Sweep::redrive(all)).await;
    assert_eq!(report.progress.taken, 40);
    let mut seen = stage.some(&mut received, 40).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    stage.drained().await;
    let journal = dead
        .journal(&stage.topic, &stage.group)
        .await
        .must("reading");
    assert_eq!(journal.len(), 1);
    assert_eq!(stage.status().await.dead, 0);
    stage.finish().await;
}

/// Partitions give out the same ids, and a place between two of them belongs to one.
pub async fn a_place_lies_between_partitions<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.extend(stage.append_to_each().await);
    }
    ids.sort_unstable();
    let topics = stage.container.topics();
    for (place, id) in ids.iter().enumerate() {
        let from = topics.entries_from(&stage.topic, *id, 1).await;
        assert_eq!(from.must("browsing")[0].id, *id);
        let (topic, to) = (&stage.topic, ResetTo::Entry(*id));
        let plan = topics.plan_group_reset(topic, &stage.group, to).await;
        let next = plan.must("planning").preview().next;
        assert_eq!(next, (ids.len() - place) as u64, "{id}");
    }

    let mut hand = stage.hand("one").await;
    let held = receipts(&stage.fetch(&mut hand, 40).await);
    let buried: Vec<Commit> = held.iter().map(|id| dead_lettered(*id, "body")).collect();
    let done = stage.settle(&hand.member, &buried).await;
    assert!(done.iter().all(|done| *done));
    let letters = stage.listed(IdRange::default()).await;
    assert_eq!(letters.len(), 40);
    let (dead, all) = (stage.container.dead_letters(), DeadLetterFilter::default());
    for size in [1, 3, 7] {
        let (mut forth, mut after) = (Vec::new(), None);
        loop {
            let page = dead.list(&stage.topic, &stage.group, &all, after, size);
            let page = page.await.must("listing");
            forth.extend(page.items.into_iter().map(|(id, _)| id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(forth, letters);
        let (mut back, mut before) = (Vec::new(), None);
        loop {
            let page = dead.list_newest(&stage.topic, &stage.group, &all, before, size);
            let page = page.await.must("listing");
            back.extend(page.items.into_iter().map(|(id, _)| id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        back.reverse();
        assert_eq!(back, letters);
        let newest = IdRange {
            newest_first: true,
            ..IdRange::default()
        };
        let (mut back, mut rest) = (Vec::new(), Some(newest));
        while let Some(range) = rest {
            let found = stage.dead_letters().search(&stage.at, range, &all, size);
            let found = found.await.must("searching");
            rest = found.next().and_then(|id| range.beyond(id));
            back.extend(found.items.into_iter().map(|(id, _)| id));
        }
        back.reverse();
        assert_eq!(back, letters);
    }
    for id in letters {
        let sweep = Sweep::purge(vec![id]);
        let preview = dead.preview(&stage.topic, &stage.group, &sweep).await;
        let preview = preview.must("previewing");
        assert_eq!((preview.matching, preview.missing), (1, 0));
        assert_eq!(preview.oldest, Some(id));
    }
}

/// A message for later waits in the partition of its key, and is found by its id.
pub async fn messages_for_later_follow_their_key<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    if !stage.store.capabilities().later {
        return;
    }
    let ids = stage.publish_keyed(0..10).await;
    let all: Vec<Envelope> = (0..10).map(keyed).collect();
    let bus = stage.container.bus();
    let options = ScheduleOptions::new();
    let day = When::After(DAY);
    let scheduled = bus.publish_later(&stage.topic, &all, day, options).await;
    let scheduled: Vec<_> = scheduled
        .into_iter()
        .map(|one| one.must("scheduling").id)
        .collect();
    let status = stage.container.topics().get(&stage.topic).await;
    assert_eq!(status.must("asking").must("the topic").later, 10);
    assert!(
        bus.cancel(&stage.topic, &scheduled[3])
            .await
            .must("cancelling")
    );
    assert!(
        !bus.cancel(&stage.topic, &scheduled[3])
            .await
            .must("cancelling")
    );
    let past = When::After(Duration::ZERO);
    for id in &scheduled {
        let moved = bus.reschedule(&stage.topic, id, past).await;
        assert_eq!(moved.must("rescheduling").is_some(), *id != scheduled[3]);
    }
    let entries = stage
        .until("the messages to be published", async || {
            let later = stage.store.later();
            later
                .promote(stage.partition(), 100)
                .await
                .must("promoting");
            let topics = stage.container.topics();
            let entries = topics.entries_after(&stage.topic, None, 100).await;
            let entries = entries.must("browsing");
            (entries.len() == 19).then_some(entries)
        })
        .await;
    for entry in entries {
        let n: u32 = entry
            .envelope
            .must("the message")
            .payload()
            .must("a number");
        assert_eq!(entry.id.partition(), ids[n as usize].partition(), "{n}");
    }
    stage.finish().await;
}

/// An id names a message in each partition: a list shows all of them, and a call means all of them or
/// those of one partition.
pub async fn an_id_names_a_message_in_each_partition<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    if !stage.store.capabilities().later {
        return;
    }
    let id = |text: &str| ScheduleId::new(text).must("an id");
    let (a, b, none) = (id("a"), id("b"), id("none"));
    let later = stage.store.later();
    let time = |millis| Timestamp::from_millis(millis).must("a time");
    let dues = [time(4_000_000_000_000), Timestamp::MAX];
    let mut wanted = Vec::new();
    for (due, id) in [(dues[0], &a), (dues[1], &b)] {
        let messages = (0..FOUR).map(|slot| NewLater {
            id: id.clone(),
            due: When::At(due),
            keeps: false,
            name: "json",
            value: slot.to_string().into(),
            slot: Some(slot),
        });
        let messages: Vec<NewLater> = messages.collect();
        for put in later
            .put(stage.partition(), Durability::Accepted, &messages)
            .await
            .must("putting")
        {
            assert!(matches!(
                put,
                LaterPut::Scheduled {
                    replaced: false,
                    ..
                }
            ));
        }
        wanted.extend((0..FOUR).map(|slot| (due, slot, id.clone())));
    }
    for size in 1..=9 {
        let mut seen: Vec<LaterEntry> = Vec::new();
        loop {
            let after = seen.last().map(LaterEntry::place);
            let page = later.list(stage.partition(), after, size).await;
            let page = page.must("listing").entries;
            assert_eq!(page.len(), size.min(wanted.len() - seen.len()));
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        let places = seen
            .iter()
            .map(|one| (one.due, one.partition, one.id.clone()));
        assert_eq!(places.collect::<Vec<_>>(), wanted, "pages of {size}");
    }
    let (schedules, topic) = (stage.container.schedules(), &stage.topic);
    let third = stage.container.schedules().in_partition(2);
    let listed = third.list(topic, None, 9).await.must("listing");
    let listed: Vec<_> = listed.iter().map(|one| (&one.id, one.partition)).collect();
    assert_eq!(listed, [(&a, 2), (&b, 2)]);
    let moved = third
        .reschedule(topic, &a, When::After(DAY))
        .await
        .must("rescheduling");
    assert_eq!(moved.len(), 1);
    let gone = third
        .cancel(topic, std::slice::from_ref(&a))
        .await
        .must("cancelling");
    assert_eq!((gone.moved, gone.missing), (vec![a.clone()], vec![]));
    let moved = schedules.reschedule(topic, &a, When::At(dues[1])).await;
    assert_eq!(moved.must("rescheduling"), [dues[1]; 3]);
    let ids = [a.clone(), none.clone(), b.clone()];
    let gone = schedules.cancel(topic, &ids).await.must("cancelling");
    let all: Vec<_> = std::iter::repeat_n(a, 3)
        .chain(std::iter::repeat_n(b, 4))
        .collect();
    assert_eq!((gone.moved, gone.missing), (all, vec![none]));
    assert_eq!(
        schedules.list(topic, None, 9).await.must("listing").len(),
        0
    );
}

/// The limits of a topic hold for all of its partitions together.
pub async fn limits_hold_for_all_partitions_together<S: Subject>(subject: &S) {
    let settings = four()
        .with_backlog_limit(20)
        .with_retention(Retention::Count(8));
    let stage = Stage::with(subject, settings).await;
    let bus = stage.container.bus();
    let mut published = 0;
    for n in 0..21 {
        match bus.publish(&stage.topic, &keyed(n)).await {
            Ok(_) => published += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::BacklogFull, "{error}"),
        }
    }
    assert_eq!(published, 20);
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    stage.some(&mut received, 20).await;
    stage.drained().await;
    stage
        .until("the topic to take messages again", async || {
            bus.publish(&stage.topic, &keyed(21)).await.ok()
        })
        .await;
    stage.finish().await;
}

/// A group is kept while one of its partitions needs it, and removed from all of them.
pub async fn a_group_is_removed_from_all_partitions<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    stage.append_entries(&[entry_of(2, 1)]).await;
    let topics = stage.store.topics();
    let remove = async |force| {
        let removal = topics.remove_group(&stage.at, Duration::ZERO, force).await;
        removal.must("removing").must("the group").removed
    };
    assert!(!remove(false).await);
    for number in 0..FOUR {
        let status = stage
            .store
            .inspect()
            .status(&Partition::numbered(&stage.topic, number))
            .await;
        assert_eq!(status.must("asking").must("it").groups.len(), 1, "{number}");
    }
    let kept = topics.remove_topic(&stage.topic).await.must("removing");
    assert!(!kept.must("the topic").removed);
    assert!(remove(true).await);
    let status = stage.store.inspect().status(stage.partition()).await;
    assert_eq!(status.must("asking").must("it").groups, []);
    let removed = topics.remove_topic(&stage.topic).await.must("removing");
    assert!(removed.must("the topic").removed);
    assert!(topics.list().await.must("listing").is_empty());
}

/// A handler's messages to a topic with partitions go to the partitions of their keys.
pub async fn effects_go_to_the_partition_of_their_key<S: Subject>(subject: &S) {
    use crate::store::{Effect, EffectFate, Session};

    let stage = Stage::with(subject, four()).await;
    let capabilities = stage.store.capabilities();
    if !capabilities.effects || !capabilities.effects_anywhere {
        return;
    }
    let bills = topic("bills");
    let made = stage.store.topics().ensure_topic(&bills, four()).await;
    made.must("creating");
    let effects: Vec<Effect> = (0..FOUR)
        .map(|slot| Effect::Publish {
            at: Partition::of(&bills),
            entry: entry_of(slot, slot.into()),
            window: None,
        })
        .collect();
    let session = Session {
        id: uuid::Uuid::now_v7(),
        number: 1,
    };
    let fates = stage.store.effects().apply(session, &[effects]).await;
    let fates = fates.must("applying");
    let [EffectFate::Done(appended)] = &fates[..] else {
        panic!("{fates:?}");
    };
    let places: Vec<u16> = appended.iter().map(|one| one.id.partition()).collect();
    assert_eq!(places, [0, 1, 2, 3]);
}
