//! Messages for later: at their time, once, by their id.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Subject;
use super::support::{DAY, Must as _, SOON, Stage, fields, group, new_entry, number, quick};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::{
    Durability, Effects, EntryId, ErrorKind, ScheduleId, Timestamp, TopicSettings, When,
};
use crate::extract::Payload;
use crate::schedules::ScheduleOptions;
use crate::store::{Bell, Fields, LaterEntry, LaterPut, NewLater, Opening, Promoted, Ring};
use crate::topics::Reading;

fn id(text: &str) -> ScheduleId {
    ScheduleId::new(text).must("an id")
}

/// A message for later whose value is its id.
fn message(text: &str, due: When) -> NewLater {
    NewLater {
        id: id(text),
        due,
        keeps: false,
        name: "json",
        value: Bytes::from(text.to_owned()),
        slot: None,
    }
}

/// Days after 1970, long past.
fn past(days: i64) -> When {
    When::At(Timestamp::from_millis(days * 86_400_000).must("a time"))
}

fn value(fields: &Fields) -> String {
    let value = fields.first().map(|(_, value)| value.to_vec());
    String::from_utf8(value.must("the entry's field")).must("reading the entry")
}

const SECOND: Duration = Duration::from_secs(1);

impl<S: Subject> Stage<'_, S> {
    /// Waits until a bell has rung since a count of its rings for due messages.
    async fn rung(&self, bell: &Bell, seen: u64) {
        let rung = bell.rung_since(Ring::Due, seen);
        let rung = tokio::time::timeout(self.subject.patience(), rung).await;
        assert!(rung.is_ok(), "no ring");
    }

    async fn put(&self, messages: &[NewLater]) -> Vec<LaterPut> {
        let put = self
            .store
            .later()
            .put(self.partition(), Durability::Accepted, messages)
            .await;
        put.must("scheduling")
    }

    /// Each scheduled id and its due time, in the order of the list.
    async fn waiting(&self) -> Vec<(String, Timestamp)> {
        let page = self.store.later().list(self.partition(), None, 100).await;
        let entries = page.must("listing").entries.into_iter();
        entries.map(|one| (one.id.to_string(), one.due)).collect()
    }

    async fn ids(&self) -> Vec<String> {
        let listed = self.waiting().await.into_iter();
        listed.map(|(id, _)| id).collect()
    }

    async fn promote_messages(&self, max: usize) -> Promoted {
        let promoted = self.store.later().promote(self.partition(), max).await;
        promoted.must("promoting")
    }

    /// The values of the log's entries.
    async fn log(&self) -> Vec<String> {
        let entries = self.store.log().browse(self.partition(), None, 1000).await;
        let entries = entries.must("browsing").into_iter();
        entries.map(|(_, fields)| value(&fields)).collect()
    }
}

/// > Schedules messages, each in one atomic step. A message replaces a scheduled one with the
/// > same id, or leaves it as it is.
/// > After an error some messages may be scheduled; a repeated call replaces them.
pub async fn an_id_names_one_message<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let put = stage.put(&[message("a", When::After(DAY))]).await;
    let [
        LaterPut::Scheduled {
            due,
            due_in,
            replaced: false,
        },
    ] = put[..]
    else {
        panic!("{put:?}")
    };
    assert_eq!(due_in, DAY);
    assert_eq!(stage.waiting().await, [("a".to_owned(), due)]);

    let other = NewLater {
        keeps: true,
        value: Bytes::from_static(b"other"),
        ..message("a", past(1))
    };
    let kept = stage.put(std::slice::from_ref(&other)).await;
    assert!(
        matches!(kept[..], [LaterPut::Kept { due: kept, .. }] if kept == due),
        "{kept:?}"
    );
    assert_eq!(stage.promote_messages(10).await.published, 0);

    let replacing = NewLater {
        keeps: false,
        ..other
    };
    for _ in 0..2 {
        let put = stage.put(std::slice::from_ref(&replacing)).await;
        let replaced = matches!(put[..], [LaterPut::Scheduled { replaced: true, .. }]);
        assert!(replaced, "{put:?}");
    }
    assert_eq!(stage.promote_messages(10).await.published, 1);
    assert_eq!(stage.log().await, ["other"]);
    assert_eq!(stage.waiting().await, []);
    // The id is free again.
    let put = stage.put(&[message("a", When::After(DAY))]).await;
    let fresh = matches!(
        put[..],
        [LaterPut::Scheduled {
            replaced: false,
            ..
        }]
    );
    assert!(fresh, "{put:?}");
}

/// > A new id is refused where the partition keeps as many
/// > messages for later as its equal part of the topic's backlog limit.
pub async fn messages_for_later_are_bounded<S: Subject>(subject: &S) {
    let settings = TopicSettings::default().with_backlog_limit(2);
    let stage = Stage::with(subject, settings).await;
    let later = |text| message(text, When::After(DAY));
    let put = stage.put(&[later("a"), later("b"), later("c")]).await;
    let full = LaterPut::Full {
        partition: 0,
        partitions: 1,
        most: 2,
    };
    assert_eq!(put[2], full);
    let put = stage.put(&[later("a")]).await;
    let replaced = matches!(put[..], [LaterPut::Scheduled { replaced: true, .. }]);
    assert!(replaced, "a known id needs no room: {put:?}");
    let bus = stage.container.bus();
    let refused = bus.publish_after(DAY, &stage.topic, &number(7)).await;
    assert_eq!(
        refused.err().must("a refusal").kind(),
        ErrorKind::BacklogFull
    );
    let mut ids = stage.ids().await;
    ids.sort();
    assert_eq!(ids, ["a", "b"]);
    stage.publish(0..2).await;
    assert_eq!(stage.length().await, 2, "the log has a limit of its own");
}

/// > A time in the past is accepted: the message is due at once.
/// > Appends up to `max` due messages to the log and removes them here, earliest first, each
/// > exactly once among concurrent calls.
/// > The backlog limit does not apply.
pub async fn due_messages_go_to_the_log_in_their_order<S: Subject>(subject: &S) {
    let settings = TopicSettings::default().with_backlog_limit(3);
    let stage = Stage::with(subject, settings).await;
    stage.append(0..3).await;
    let messages = [
        message("third", past(3)),
        message("first", past(1)),
        message("second", past(2)),
    ];
    stage.put(&messages).await;
    let promoted = stage.promote_messages(2).await;
    assert_eq!(
        (promoted.published, promoted.next),
        (2, Some(Duration::ZERO))
    );
    let promoted = stage.promote_messages(2).await;
    assert_eq!((promoted.published, promoted.next), (1, None));
    assert_eq!(stage.log().await[3..], ["first", "second", "third"]);
    assert_eq!(promoted.moved + promoted.missing, 0);

    let many: Vec<NewLater> = (0..200)
        .map(|n| message(&format!("{n:03}"), past(4)))
        .collect();
    stage.put(&many[..3]).await;
    stage.promote_messages(10).await;
    for chunk in many.chunks(3) {
        stage.put(chunk).await;
        let promotes = (0..4).map(|_| stage.promote_messages(2));
        let promoted = futures_util::future::join_all(promotes).await;
        let published: u64 = promoted.iter().map(|one| one.published).sum();
        assert_eq!(published, chunk.len() as u64);
    }
    assert_eq!(stage.length().await, 6 + 3 + 200);
}

/// > [`Schedule::promote`](crate::store::Schedule::promote) does the same for the group's topic.
/// > Moves up to `max` due entries to the redelivery stream, earliest first, and up to `max` due
/// > messages for later to the log of the partition.
pub async fn a_group_promotes_the_messages_of_its_topic<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let mut hand = stage.hand("one").await;
    stage.nothing(&mut hand).await;
    stage
        .put(&[message("a", past(1)), message("b", When::After(DAY))])
        .await;
    let promoted = stage.store.schedule().promote(&stage.at, 10).await;
    let promoted = promoted.must("promoting");
    assert_eq!((promoted.moved, promoted.published), (0, 1));
    let next = promoted.next.must("the next due time");
    assert!(next <= DAY && next > DAY / 2, "{next:?}");
    let fetched = stage.fetch(&mut hand, 1).await;
    assert_eq!(fetched[0].fields, fields(new_entry("json", "a")));
    let none = stage.store.schedule().promote(&stage.at, 10).await;
    assert_eq!(none.must("promoting").published, 0);
}

/// > Messages for later after a position in their order, earliest first. Up to `max` of them,
/// > fewer where they are heavy, none only at the end.
pub async fn messages_for_later_are_listed_in_pages<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let due = [past(2), past(1), past(2), past(2), past(3)];
    let names = ["b", "z", "a", "c", "d"];
    let messages: Vec<NewLater> = names
        .iter()
        .zip(due)
        .map(|(name, due)| message(name, due))
        .collect();
    stage.put(&messages).await;
    let mut seen: Vec<LaterEntry> = Vec::new();
    loop {
        let after = seen.last().map(LaterEntry::place);
        let page = stage.store.later().list(stage.partition(), after, 2).await;
        let page = page.must("listing");
        assert!(page.now.as_millis() > 0 && page.entries.len() <= 2);
        if page.entries.is_empty() {
            break;
        }
        seen.extend(page.entries);
        assert!(seen.len() <= names.len(), "a page comes again: {seen:?}");
    }
    assert!(seen.is_sorted_by(|one, next| one.place() < next.place()));
    seen.sort_by_key(|one| (one.due, one.id.clone()));
    let names: Vec<String> = seen.iter().map(|one| value(&one.fields)).collect();
    assert_eq!(names, ["z", "a", "b", "c", "d"]);
}

/// > Removes the messages with these ids for good: in a whole topic, those of every partition.
/// > For each id, how many messages it named.
pub async fn a_cancelled_message_never_comes<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let later = stage.store.later();
    let none = later.cancel(stage.partition(), &[id("a")]).await;
    assert_eq!(none.must("cancelling"), [0]);
    stage
        .put(&[message("a", past(1)), message("b", past(1))])
        .await;
    let ids = [id("a"), id("c"), id("a")];
    let done = later.cancel(stage.partition(), &ids).await;
    assert_eq!(done.must("cancelling"), [1, 0, 0]);
    assert_eq!(stage.promote_messages(10).await.published, 1);
    assert_eq!(stage.log().await, ["b"]);
}

/// > Changes when the messages with an id are due: in a whole topic, those of every partition.
/// > For each of them, the new time and how long until then.
pub async fn a_rescheduled_message_comes_at_its_new_time<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let later = stage.store.later();
    let (known, unknown) = (id("a"), id("b"));
    stage.put(&[message("a", past(1))]).await;
    let put_off = later
        .reschedule(stage.partition(), &known, When::After(DAY))
        .await;
    let (due, due_in) = only(put_off.must("rescheduling"));
    assert_eq!(due_in, DAY);
    assert_eq!(stage.waiting().await, [("a".to_owned(), due)]);
    assert_eq!(stage.promote_messages(10).await.published, 0);
    let sooner = later.reschedule(stage.partition(), &known, past(1)).await;
    let (_, due_in) = only(sooner.must("rescheduling"));
    assert_eq!(due_in, Duration::ZERO);
    assert_eq!(stage.promote_messages(10).await.published, 1);
    assert_eq!(stage.log().await, ["a"]);
    for gone in [&known, &unknown] {
        let none = later.reschedule(stage.partition(), gone, past(1)).await;
        assert_eq!(none.must("rescheduling"), []);
    }
}

fn only<T: std::fmt::Debug>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// > Tells when something of a group may have changed, for as long as the bell is held.
///
/// Also while the store does not tell of every change: the first message of a topic, one that a
/// new time brings nearer, and one of effects come from a process that ends at once.
pub async fn a_message_that_is_due_soon_rings<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let Some(bell) = stage.store.bell(&stage.at) else {
        return;
    };
    let opening = Opening::of(&stage.member("one")).with_reading(Reading::Own);
    let _opened = stage.store.open(&opening).await.must("opening a reader");
    let later = stage.store.later();
    for n in 0..2 {
        let seen = bell.count(Ring::Due);
        match n {
            0 => drop(stage.put(&[message("a", When::After(SECOND))]).await),
            _ => {
                let due = When::After(SECOND);
                let sooner = later.reschedule(stage.partition(), &id("b"), due).await;
                only(sooner.must("rescheduling"));
            }
        }
        stage.rung(&bell, seen).await;
        stage.put(&[message("b", When::After(DAY))]).await;
    }
    if stage.store.capabilities().effects {
        let seen = bell.count(Ring::Due);
        let mut effects = Effects::new();
        effects.publish_after(SECOND, &stage.topic, number(1));
        let done = stage.container.commit(effects).await;
        done.must("committing");
        stage.rung(&bell, seen).await;
    }
}

/// A message reaches the groups of its topic when it is due, and not before.
pub async fn a_scheduled_message_arrives_when_it_is_due<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let bus = stage.container.bus();
    let first = bus.publish_after(DAY, &stage.topic, &number(1)).await;
    let first = first.must("scheduling");
    assert!(!first.replaced && !first.kept);
    assert_eq!(first.id.as_str(), stage.ids().await[0]);
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    let soon = bus.publish_after(SOON, &stage.topic, &number(2)).await;
    soon.must("scheduling");
    assert_eq!(stage.next(&mut received).await, 2);

    let now = stage.promote_messages(1).await.next.must("the first");
    assert!(now > DAY / 2);
    let sooner = bus.reschedule(&stage.topic, &first.id, When::After(SOON));
    sooner.await.must("rescheduling").must("the message");
    assert_eq!(stage.next(&mut received).await, 1);
    stage.drained().await;
    stage.finish().await;
}

/// A message for a topic without a subscription in its container arrives too.
pub async fn a_container_brings_what_it_scheduled<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let bus = stage.container.bus();
    bus.publish_after(SOON, &stage.topic, &number(1))
        .await
        .must("scheduling");
    stage
        .until("the message", async || {
            (stage.length().await == 1).then_some(())
        })
        .await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_group(group("after"));
    let _subscription = stage.subscribe(options, sender).await;
    assert_eq!(stage.next(&mut received).await, 1);
    stage.finish().await;
}

/// A debounced message comes once, in its newest form; a kept one in its oldest.
pub async fn the_callers_id_replaces_or_keeps<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (bus, topic) = (stage.container.bus(), &stage.topic);
    let named = |text| ScheduleOptions::new().with_id(id(text));
    for n in 1..4 {
        let (new, kept) = (named("new"), named("old").keep_existing());
        let done = bus.publish_after_with(DAY, topic, &number(n), new).await;
        assert_eq!(done.must("scheduling").replaced, n > 1);
        let done = bus.publish_after_with(DAY, topic, &number(n), kept).await;
        assert_eq!(done.must("scheduling").kept, n > 1);
    }
    let schedules = stage.container.schedules();
    let listed = schedules.list(topic, None, 10).await.must("listing");
    let read = |name: &str| {
        let mut found = listed.iter().filter(|one| one.id.as_str() == name);
        let envelope = found.next().must("the message").envelope.as_ref();
        let envelope = envelope.map_err(ToString::to_string).must("an envelope");
        envelope.payload::<u32>().must("the payload")
    };
    assert_eq!((listed.len(), read("new"), read("old")), (2, 3, 1));
    assert!(bus.cancel(topic, &id("new")).await.must("cancelling"));
    assert!(!bus.cancel(topic, &id("new")).await.must("cancelling"));
    let moved = schedules.cancel(topic, &[id("new"), id("old")]).await;
    let moved = moved.must("cancelling");
    assert_eq!(
        (moved.moved, moved.missing),
        (vec![id("old")], vec![id("new")])
    );
    assert_eq!(stage.waiting().await, []);
}

/// Bad times and ids are refused before anything is sent.
pub async fn bad_schedules_are_refused<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (bus, topic) = (stage.container.bus(), &stage.topic);
    let longer = When::MAX_DELAY + Duration::from_millis(1);
    let before = Timestamp::from_millis(-1).must("a time");
    let one = number(1);
    let two = [number(1), number(2)];
    let named = ScheduleOptions::new().with_id(id("a"));
    let refusals = [
        bus.publish_after(longer, topic, &one).await.err(),
        bus.publish_at(before, topic, &one).await.err(),
        bus.publish_later(topic, &two, When::After(DAY), named)
            .await
            .remove(0)
            .err(),
        bus.reschedule(topic, &id("a"), When::After(longer))
            .await
            .err(),
    ];
    for error in refusals {
        assert_eq!(error.must("a refusal").kind(), ErrorKind::Invalid);
    }
    assert_eq!(stage.store.topics().list().await.must("listing"), []);
    let both = bus
        .publish_later(topic, &two, When::After(DAY), ScheduleOptions::new())
        .await;
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    let none = stage.store.log().newest(stage.partition()).await;
    assert_eq!(none.must("asking"), None::<EntryId>);
}

/// Effects schedule and cancel in one step with what else they write, or not at all.
pub async fn effects_schedule_and_cancel<S: Subject>(subject: &S) {
    let settings = TopicSettings::default().with_backlog_limit(2);
    let stage = Stage::with(subject, settings).await;
    if !stage.store.capabilities().effects {
        return;
    }
    let (container, topic) = (&stage.container, &stage.topic);
    let named = |text| ScheduleOptions::new().with_id(id(text));
    let mut first = Effects::new();
    first
        .publish_after_with(DAY, topic, number(1), named("a"))
        .publish_after_with(DAY, topic, number(2), named("b"));
    container.rehearse(&first).await.must("rehearsing");
    assert_eq!(stage.waiting().await, []);
    let mut three = first.clone();
    three.publish_after_with(DAY, topic, number(3), named("c"));
    for refused in [
        container.rehearse(&three).await.err(),
        container.commit(three).await.err(),
    ] {
        assert_eq!(refused.must("a refusal").kind(), ErrorKind::BacklogFull);
    }
    assert_eq!(stage.waiting().await, [], "three at once do not fit either");
    container.commit(first).await.must("committing");
    assert_eq!(stage.waiting().await.len(), 2);

    let mut full = Effects::new();
    full.publish(topic, number(3))
        .publish_after_with(DAY, topic, number(3), named("c"));
    for refused in [
        container.rehearse(&full).await.err(),
        container.commit(full).await.err(),
    ] {
        assert_eq!(refused.must("a refusal").kind(), ErrorKind::BacklogFull);
    }
    assert_eq!(stage.length().await, 0, "all or nothing");

    let mut second = Effects::new();
    second
        .publish_at_with(
            Timestamp::from_millis(1).must("a time"),
            topic,
            number(4),
            named("a"),
        )
        .publish_after_with(SOON, topic, number(5), named("b").keep_existing())
        .cancel(topic, &id("none"));
    container.commit(second).await.must("committing");
    stage
        .until("the replaced message", async || {
            (stage.ids().await == ["b"]).then_some(())
        })
        .await;
    let mut third = Effects::new();
    third.cancel(topic, &id("b"));
    container.commit(third).await.must("committing");
    assert_eq!(stage.waiting().await, []);
    assert_eq!(stage.length().await, 1);
}

/// A handler's message for later goes with its acknowledgement.
pub async fn a_handler_schedules_with_its_acknowledgement<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    if !stage.store.capabilities().effects {
        return;
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    let topic = stage.topic.clone();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((n, delivery.attempt()));
        let mut effects = Effects::new();
        if n < 3 {
            effects.publish_after(SOON, &topic, number(n + 1));
        }
        let fails = n == 1 && delivery.attempt() == 1;
        async move { if fails { Err("not yet") } else { Ok(effects) } }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, quick(3), handler).await;
    let _subscription = made.must("subscribing");
    stage.publish(1..2).await;
    let seen = stage.some(&mut received, 4).await;
    assert_eq!(seen, [(1, 1), (1, 2), (2, 1), (3, 1)]);
    stage.drained().await;
    assert_eq!(stage.waiting().await, []);
    stage.finish().await;
}
