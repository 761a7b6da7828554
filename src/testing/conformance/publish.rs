//! Appending, topics, and looking at them without a group.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Subject;
use super::support::{self, Must as _, Stage, entry, group, new_entry, number, topic};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::{Envelope, ErrorKind, Retention, TopicSettings};
use crate::extract::Payload;
use crate::store::{GroupAt, StartFrom, TopicRemoval};

/// > Whether the store answers on the connection that publishes.
/// > Asks, on the connection that publishes, whether the store takes writes from this user
/// > now. Writes nothing. The error says why not.
pub async fn a_working_store_answers_a_ping<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.store.inspect().ping().await.must("the ping");
    let writes = stage.store.inspect().try_write().await;
    writes.must("asking for writes");
    assert!(!stage.store.name().is_empty());
}

/// > Appends messages in their order, whatever their ids, and returns the outcome of each, in the
/// > same order.
pub async fn entries_keep_their_order<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.append(0..1200).await;
    assert_eq!(ids.len(), 1200);
    assert!(ids.is_sorted_by(|one, two| one < two), "ids always grow");
    let held = stage
        .store
        .log()
        .browse(stage.partition(), None, 2000)
        .await;
    let held = held.must("browsing");
    assert_eq!(held.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    for (n, (_, fields)) in (0..).zip(held) {
        assert_eq!(fields, support::fields(entry(n)));
    }
    let none = stage.store.log().append(stage.partition(), &[]).await;
    assert!(none.must("appending").is_empty());
}

/// Entries are bytes, whatever they say.
pub async fn entries_keep_every_byte<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let body: Bytes = (0..=255).chain([0, 13, 10]).collect::<Vec<u8>>().into();
    let entries = [body.clone(), Bytes::new()].map(|body| new_entry("msgpack", body));
    stage.append_entries(&entries).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 2).await;
    let name = Bytes::from_static(b"msgpack");
    assert_eq!(fetched[0].fields, [(name.clone(), body)]);
    assert_eq!(fetched[1].fields, [(name, Bytes::new())]);
}

/// > Entries after an id, oldest first, up to `max`.
/// > Entries before an id, or before the end, newest first, up to `max`.
/// > The newest entries, up to `max`, oldest first.
/// > The newest entry's id, if there is one.
pub async fn a_log_can_be_read_in_pages<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let store = &stage.store;
    assert_eq!(
        store.log().newest(stage.partition()).await.must("newest"),
        None
    );
    let none = store.log().browse(stage.partition(), None, 10).await;
    assert!(none.must("browsing").is_empty());
    let ids = stage.append(0..25).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.log().browse(stage.partition(), after, 10).await;
        let page = page.must("browsing");
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        seen.extend(page.iter().map(|(id, _)| *id));
    }
    assert_eq!(seen, ids);
    let newest = store.log().newest(stage.partition()).await.must("newest");
    assert_eq!(newest, ids.last().copied());
    for max in [1, 7, 25, 100] {
        let last = store
            .log()
            .latest(stage.partition(), max)
            .await
            .must("browsing");
        let last: Vec<_> = last.into_iter().map(|(id, _)| id).collect();
        assert_eq!(last, ids[ids.len().saturating_sub(max)..]);
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = store.log().browse_back(stage.partition(), before, 10).await;
        let page = page.must("browsing back");
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        seen.extend(page.iter().map(|(id, _)| *id));
    }
    seen.reverse();
    assert_eq!(seen, ids);
    assert_eq!(stage.status().await.lag, 25, "looking consumes nothing");
}

/// > Creates a topic with all of its partitions, or finds it: an existing topic keeps its settings.
/// > Returns the settings in force.
pub async fn a_topics_settings_are_fixed_when_it_is_created<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let first = TopicSettings::default()
        .with_retention(Retention::Count(5))
        .with_backlog_limit(9);
    let other = first.with_retention(Retention::Age(Duration::from_secs(7)));
    for settings in [first, other, TopicSettings::default()] {
        let held = stage
            .store
            .topics()
            .ensure_topic(&stage.topic, settings)
            .await;
        assert_eq!(held.must("creating"), first);
    }
    let status = stage
        .store
        .inspect()
        .status(stage.partition())
        .await
        .must("asking");
    assert_eq!(status.must("the topic").settings, first);
}

/// > The topics of the namespace, by name.
pub async fn topics_are_listed_by_name<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    assert!(stage.store.topics().list().await.must("listing").is_empty());
    for name in ["b", "c:1", "a", "b"] {
        let (topic, settings) = (topic(name), TopicSettings::default());
        let made = stage.store.topics().ensure_topic(&topic, settings).await;
        made.must("creating");
    }
    let names = stage.store.topics().list().await.must("listing");
    assert_eq!(names, ["a", "b", "c:1"].map(topic));
}

/// A message arrives as it was published, and its topic need not have been created.
pub async fn a_message_arrives_as_it_was_published<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let bus = stage.container.bus();
    let envelope = Envelope::new("order.placed", "{\"msg\":\"not a wrapping\"}")
        .must("an envelope")
        .with_tenant("shop-1")
        .with_key("order-7")
        .with_header("traceparent", "00-1-2-01");
    let published = bus.publish(&stage.topic, &envelope).await;
    let published = published.must("publishing");
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(text): Payload<String>, delivery: Delivery| {
        let _ = sender.send((text, delivery));
        async {}
    };
    let subscription = bus.subscribe(&stage.topic, handler).await;
    let subscription = subscription.must("subscribing");
    let (text, delivery) = stage.next(&mut received).await;
    assert_eq!(text, "{\"msg\":\"not a wrapping\"}");
    assert_eq!(*delivery.envelope(), envelope);
    assert_eq!(delivery.entry_id(), published.id);
    assert_eq!((delivery.attempt(), delivery.topic()), (1, &stage.topic));
    assert_eq!(delivery.group(), subscription.group());
    stage.finish().await;
}

/// Of many publishers at once none loses anything.
pub async fn concurrent_publishers_lose_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let publishers = (0..8_u32).map(|publisher| {
        let (bus, topic) = (stage.container.bus(), stage.topic.clone());
        tokio::spawn(async move {
            for n in 0..50 {
                let envelope = number(publisher * 50 + n);
                bus.publish(&topic, &envelope).await.must("publishing");
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.must("a publisher");
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    let mut seen = stage.some(&mut received, 400).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
    stage.finish().await;
}

/// A publisher that was closed says so, and what it published before stays.
pub async fn a_closed_publisher_returns_an_error<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.publish(0..3).await;
    let bus = stage.container.bus();
    stage.finish().await;
    let error = bus.publish(&stage.topic, &number(9)).await.err();
    let error = error.must("an error");
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(stage.length().await, 3);
}

/// > Only messages published after the group was created.
pub async fn a_group_can_start_at_the_end<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let late = group("late");
    let made = stage
        .store
        .topics()
        .create_group(&GroupAt::of(&stage.topic, &late), StartFrom::End)
        .await;
    made.must("creating the group");
    assert_eq!(stage.status_of(&late).await.lag, 0);
    stage.append(3..5).await;
    assert_eq!(stage.status_of(&late).await.lag, 2);
    let mut hand = stage.hand_of(&late, "one").await;
    let fetched = stage.fetch(&mut hand, 2).await;
    assert_eq!(super::support::numbers(&fetched), [3, 4]);
}

/// > Changes the settings of a topic but the number of its partitions, and returns the earlier ones;
/// > `None` where it does not exist.
pub async fn a_topics_settings_can_change<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let topics = stage.store.topics();
    let first = TopicSettings::default()
        .with_retention(Retention::Count(2))
        .with_backlog_limit(9);
    let change = async |settings| {
        let changed = topics.change_settings(&stage.topic, settings).await;
        changed.must("changing")
    };
    assert_eq!(change(first).await, None);
    let created = topics.ensure_topic(&stage.topic, first).await;
    assert_eq!(created.must("creating"), first);
    let next = TopicSettings::default().with_retention(Retention::Count(4));
    assert_eq!(change(next).await, Some(first));
    assert_eq!(change(next).await, Some(next));
    let held = topics.ensure_topic(&stage.topic, first).await;
    assert_eq!(held.must("asking"), next);
    let held = async || {
        let status = stage.store.inspect().status(stage.partition()).await;
        status.must("asking").must("the topic").settings
    };
    assert_eq!(held().await, next);
    // A plan is old once another operator has changed the settings.
    let operating = stage.container.topics();
    let plan = async |settings| {
        let plan = operating.plan_settings(&stage.topic, settings).await;
        let plan = plan.must("planning");
        plan.confirm(stage.topic.as_str()).must("confirming")
    };
    let (ann, bob) = (plan(next.with_backlog_limit(5)).await, plan(first).await);
    let changed = operating.run_settings(bob, "bob").await;
    assert_eq!(changed.must("changing"), next);
    let late = operating.run_settings(ann, "ann").await.err();
    assert_eq!(late.must("an error").kind(), ErrorKind::Conflict);
    assert_eq!(held().await, first);
}

/// > Removes a topic with its entries, but keeps one that has groups.
/// > The store checks and removes in one step.
/// > Returns `None` where it does not exist.
pub async fn a_topic_without_groups_is_removed<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let topics = stage.store.topics();
    let settings = TopicSettings::default().with_backlog_limit(9);
    topics
        .ensure_topic(&stage.topic, settings)
        .await
        .must("creating");
    stage.append(0..3).await;
    let remove = async || topics.remove_topic(&stage.topic).await.must("removing");
    assert_eq!(remove().await, Some(TopicRemoval::new(3, 1)));
    assert_eq!(stage.status().await.lag, 3, "it stays as it was");
    let group = topics.remove_group(&stage.at, Duration::ZERO, true).await;
    assert!(group.must("removing").must("the group").removed);
    assert_eq!(remove().await, Some(TopicRemoval::new(3, 0)));
    assert_eq!(remove().await, None);
    assert!(!topics.list().await.must("listing").contains(&stage.topic));
    let status = stage.store.inspect().status(stage.partition()).await;
    assert_eq!(status.must("asking"), None);
    let again = topics
        .ensure_topic(&stage.topic, TopicSettings::default())
        .await;
    assert_eq!(again.must("creating"), TopicSettings::default());
}
