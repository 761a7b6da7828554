//! Messages for later wait in the partitions of their keys, and places in lists lie between partitions.

use std::time::Duration;

use crate::domain::{
    DeadLetterFilter, Durability, Effects, Envelope, ErrorKind, ScheduleId, ScheduleOptions, Sweep,
    Timestamp, When, crc16,
};
use crate::store::{Commit, IdRange, LaterEntry, LaterPut, NewLater, ResetTo};
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{
    DAY, Must as _, Stage, dead_lettered, number, receipts,
};

use super::support::{FOUR, four, keyed};

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
