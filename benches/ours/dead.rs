//! Very many dead letters.

use std::time::{Duration, Instant};

use bytes::Bytes;
use redstart::extract::Payload;
use redstart::store::{GroupAt, Record, Restored, Restoring, StartFrom};
use redstart::{
    Container, Delivery, Envelope, Group, SubscribeOptions, Topic,
    dead_letters::{DeadLetterFilter, DeadLetterRetention, DeadLetterSummary, Reason, Sweep},
    envelope::{EntryId, Timestamp},
};
use uuid::Uuid;

use crate::work::{Order, SIZE};

/// Makes `count` dead letters of twenty causes, and of one more in every `rare`th.
pub(crate) async fn add_dead_letters(
    container: &Container,
    topic: &Topic,
    group: &Group,
    count: u64,
    rare: u64,
) {
    let store = container.store();
    let made = store
        .topics()
        .create_group(&GroupAt::of(topic, group), StartFrom::Beginning)
        .await;
    made.expect("a group");
    let body = body(container, topic, group).await;
    for first in (0..count).step_by(500) {
        let records: Vec<Restoring> = (first..(first + 500).min(count))
            .map(|number| Restoring {
                identity: number.to_string(),
                own: None,
                record: Record {
                    head: head(number, rare),
                    body: body.clone(),
                },
            })
            .collect();
        let put = store
            .dead_letters()
            .restore(&GroupAt::of(topic, group), &records, false)
            .await;
        let added = |one: &Restored| matches!(one, Restored::Added(_));
        assert!(put.expect("put in").iter().all(added));
    }
}

fn head(number: u64, rare: u64) -> DeadLetterSummary {
    let error = if number % rare == rare / 2 {
        format!("printer {number} is out of paper")
    } else {
        let word = ["connect", "read", "write", "parse"][number as usize % 4];
        format!("{word} to upstream-{} failed after {number} ms", number % 5)
    };
    let mut head = DeadLetterSummary::new(Reason::Exhausted);
    head.fingerprint = error.replace(|symbol: char| symbol.is_ascii_digit(), "#");
    head.message_type = "order.placed".to_owned();
    head.tenant = Some(format!("tenant-{}", number % 100));
    head.correlation = Some(Uuid::new_v4().to_string());
    head.message_id = Some(Uuid::now_v7());
    head.error = error;
    head.attempts = 5;
    head
}

/// The body of a real dead letter.
async fn body(container: &Container, topic: &Topic, group: &Group) -> Bytes {
    let envelope = Envelope::new("order.placed", &Order::new(1, SIZE)).expect("encodes");
    container
        .bus()
        .publish(topic, &envelope)
        .await
        .expect("published");
    let ids = super::fail_all(container, topic, group, 1).await;
    let (store, at) = (container.store(), GroupAt::of(topic, group));
    let found = store.dead_letters().find(&at, &ids).await;
    let body = found.expect("found").remove(0).1.body;
    container
        .dead_letters()
        .purge(topic, group, &ids)
        .await
        .expect("purged");
    body
}

/// The time by which the oldest `count` had died.
pub(crate) async fn oldest(
    container: &Container,
    topic: &Topic,
    group: &Group,
    count: u64,
) -> Timestamp {
    let dead = container.dead_letters();
    let everything = DeadLetterFilter::default();
    let (mut after, mut seen, mut last) = (None, 0, EntryId::default());
    while seen < count {
        let page = dead
            .list(topic, group, &everything, after, 1000)
            .await
            .expect("a page");
        seen += page.items.len() as u64;
        last = page.items.last().expect("dead letters").0;
        after = page.next;
    }
    last.time().expect("a time")
}

/// Redrives those that had died by a time, at least `count`; how many a second.
pub(crate) async fn sweep(
    container: &Container,
    topic: &Topic,
    group: &Group,
    until: Timestamp,
    count: u64,
) -> f64 {
    let dead = container.dead_letters();
    let sweep =
        Sweep::redrive(DeadLetterFilter::default().with_until(until)).with_operator("bench");
    let began = Instant::now();
    let swept = dead
        .sweep(topic, group, sweep, &|_| {})
        .await
        .expect("swept");
    assert!(swept.progress.taken >= count);
    swept.progress.taken as f64 / began.elapsed().as_secs_f64()
}

/// Lets a consumer remove all dead letters but one as overdue while something else is done; how many
/// were gone a second, and what was done.
pub(crate) async fn removing_overdue<T>(
    container: &Container,
    topic: &Topic,
    work: impl Future<Output = T>,
) -> (f64, T) {
    let retention = DeadLetterRetention::forever().with_max_count(1);
    let options = SubscribeOptions::new().with_dead_letter_retention(retention);
    let count = async || {
        let groups = container.topics().groups(topic).await.expect("the topic");
        groups[0].dead
    };
    let (before, began) = (count().await, Instant::now());
    let subscription = container
        .bus()
        .subscribe_with(topic, options, async |_: Payload<Order>, _: Delivery| {})
        .await
        .expect("subscribed");
    let done = work.await;
    let (after, duration) = (count().await, began.elapsed());
    let left = subscription.unsubscribe(Duration::from_secs(30)).await;
    assert!(left.is_clean(), "{left:?}");
    assert!(after < before, "nothing was overdue");
    ((before - after) as f64 / duration.as_secs_f64(), done)
}
