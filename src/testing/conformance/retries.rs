//! Retries and snoozes: at their time, to their group, with their count.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Subject;
use super::support::{
    DAY, Hand, Must as _, SOON, Stage, group, later, receipts, through_the_store,
};
use crate::api::Delivery;
use crate::domain::{EntryId, Outcome, Reason, Timestamp};
use crate::extract::Payload;
use crate::store::{DeliveryId, Fetched, Lane, Scheduled};

fn redeliveries(fetched: &[Fetched]) -> Vec<&str> {
    let redelivery = |one: &'_ Fetched| one.fields[0].1.clone();
    let texts = fetched.iter().map(redelivery);
    texts
        .map(|text| match &text[..] {
            b"a" => "a",
            b"b" => "b",
            b"c" => "c",
            _ => "?",
        })
        .collect()
}

/// A failed message returns with its count and its error until it is exhausted.
pub async fn a_failed_message_is_redelivered_until_it_is_exhausted<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |_: Payload<u32>, delivery: Delivery| {
        let last = delivery.envelope().last_error().map(str::to_owned);
        let _ = sender.send((delivery.attempt(), last));
        async move { Err::<(), _>(format!("failure {}", delivery.attempt())) }
    };
    let bus = stage.container.bus();
    let made = bus
        .subscribe_with(&stage.topic, through_the_store(3), handler)
        .await;
    let _subscription = made.must("subscribing");
    stage.publish(0..1).await;
    let error = |n: u32| Some(format!("failure {n}"));
    assert_eq!(stage.next(&mut received).await, (1, None));
    assert_eq!(stage.next(&mut received).await, (2, error(1)));
    assert_eq!(stage.next(&mut received).await, (3, error(2)));
    assert_eq!(stage.drained().await.dead, 1, "exactly one record");
    stage.finish().await;
}

/// A panic is a failure.
pub async fn a_panic_is_a_failure<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |_: Payload<u32>, delivery: Delivery| {
        let _ = sender.send(delivery.attempt());
        async move { assert!(delivery.attempt() > 1, "deliberate") }
    };
    let bus = stage.container.bus();
    let made = bus
        .subscribe_with(&stage.topic, through_the_store(2), handler)
        .await;
    let _subscription = made.must("subscribing");
    stage.publish(0..1).await;
    assert_eq!(stage.some(&mut received, 2).await, [1, 2]);
    assert_eq!(stage.drained().await.dead, 0);
    stage.finish().await;
}

/// A snooze does not count, and a rejection is final.
pub async fn a_snooze_does_not_count_and_a_rejection_is_final<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let snoozes = AtomicU32::new(0);
    let handler = move |_: Payload<u32>, delivery: Delivery| {
        let _ = sender.send(delivery.attempt());
        let snoozed = snoozes.fetch_add(1, Ordering::SeqCst);
        async move {
            if snoozed < 3 {
                return Outcome::snooze(SOON);
            }
            Outcome::dead_letter("never")
        }
    };
    let bus = stage.container.bus();
    let made = bus
        .subscribe_with(&stage.topic, through_the_store(1), handler)
        .await;
    let _subscription = made.must("subscribing");
    stage.publish(0..1).await;
    assert_eq!(stage.some(&mut received, 4).await, [1; 4]);
    stage.drained().await;
    let letters = stage.letters().await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.reason, letter.attempts), (Reason::Rejected, 1));
    assert_eq!(letter.error, "never");
    stage.finish().await;
}

/// A retry returns to the group that failed it and to no other group.
pub async fn a_retry_comes_back_to_its_group_alone<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    for name in ["failing", "fine"] {
        let sender = sender.clone();
        let handler = move |_: Payload<u32>, delivery: Delivery| {
            let _ = sender.send((name, delivery.attempt()));
            let fails = name == "failing" && delivery.attempt() < 4;
            async move { if fails { Err("not yet") } else { Ok(()) } }
        };
        let bus = stage.container.bus();
        let options = through_the_store(4).with_group(group(name));
        let made = bus.subscribe_with(&stage.topic, options, handler).await;
        let _subscription = made.must("subscribing");
    }
    stage.publish(0..1).await;
    let mut seen = stage.some(&mut received, 5).await;
    seen.sort_unstable();
    let failing = (1..=4).map(|attempt| ("failing", attempt));
    assert_eq!(seen, failing.chain([("fine", 1)]).collect::<Vec<_>>());
    stage.drained_of(&group("failing")).await;
    stage.drained_of(&group("fine")).await;
    stage.finish().await;
    assert!(received.try_recv().is_err(), "nobody got more");
}

/// > Comes back to the same group through its redelivery stream, once `delay` has passed.
/// > What the redelivery stream will hold.
pub async fn a_due_retry_returns_through_the_redelivery_stream<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let other = group("other");
    stage.create(&other).await;
    stage.append(0..1).await;
    let mut hand = stage.hand("one").await;
    let mut stranger = stage.hand_of(&other, "one").await;
    stage.fetch(&mut stranger, 1).await;
    let fetched = stage.fetch(&mut hand, 1).await;
    let settlement = [later(fetched[0].receipt, SOON, "a")];
    stage.settle(&hand.member, &settlement).await;
    stage.nothing(&mut hand).await;
    stage.promote(1).await;
    stage.nothing(&mut stranger).await;
    let again = stage.fetch(&mut hand, 1).await;
    assert_eq!(
        (again[0].receipt.lane, again[0].attempts.begun),
        (Lane::Redelivery, 0)
    );
    assert_eq!(again[0].fields.len(), 1);
    assert_eq!(again[0].fields[0].1, Bytes::from_static(b"a"));
    stage.acknowledge(&hand.member, &receipts(&again)).await;
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);
}

/// Retries that are not due stay, and the store returns when the next one is due.
///
/// > How long until the next one is due; zero when one is due already.
pub async fn a_retry_that_is_not_due_stays<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let promote = async |max| {
        let promoted = stage.store.schedule().promote(&stage.at, max).await;
        promoted.must("promoting")
    };
    assert_eq!(promote(10).await.next, None);
    stage.append(0..3).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 3).await;
    let settlements = [
        later(fetched[0].receipt, DAY, "a"),
        later(fetched[1].receipt, SOON, "b"),
        later(fetched[2].receipt, SOON, "c"),
    ];
    stage.settle(&hand.member, &settlements).await;
    let first = stage
        .until("one to be due", async || {
            let promoted = promote(1).await;
            (promoted.moved == 1).then_some(promoted)
        })
        .await;
    assert_eq!(first.next, Some(Duration::ZERO));
    let second = promote(10).await;
    assert_eq!(second.moved, 1);
    let next = second.next.must("the next");
    assert!(next <= DAY && next > DAY / 2, "{next:?}");
    assert_eq!(promote(10).await.moved, 0);
    assert_eq!(stage.fetch(&mut hand, 2).await.len(), 2);
    stage.nothing(&mut hand).await;
    assert_eq!(stage.counts().await, [0, 2, 1, 0]);
}

/// > Moves up to `max` due entries to the redelivery stream, earliest first, and up to `max` due
/// > messages for later to the log of the partition.
pub async fn the_earliest_is_promoted_first<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 3).await;
    let delays = [40, 1, 20].map(Duration::from_millis);
    let settlements: Vec<_> = fetched
        .iter()
        .zip(delays)
        .zip(["a", "b", "c"])
        .map(|((one, delay), redelivery)| later(one.receipt, delay, redelivery))
        .collect();
    assert_eq!(stage.settle(&hand.member, &settlements).await, [true; 3]);
    for _ in 0..3 {
        stage
            .until("one to be due", async || {
                let promoted = stage.store.schedule().promote(&stage.at, 1).await;
                let moved = promoted.must("promoting").moved;
                assert!(moved <= 1);
                (moved == 1).then_some(())
            })
            .await;
    }
    let fetched = stage.fetch(&mut hand, 3).await;
    assert_eq!(redeliveries(&fetched), ["b", "c", "a"]);
}

/// A scheduled retry survives the process that scheduled it.
pub async fn a_retry_waits_in_the_store<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 1).await;
    let redelivery = crate::wire::redelivery::Redelivery {
        fields: fetched[0].fields.clone(),
        history: crate::domain::DeliveryHistory::from(fetched[0].receipt.id),
        starts_over: false,
    };
    let (receipt, delay) = (fetched[0].receipt, Duration::from_millis(50));
    let settlement = crate::store::Commit::reschedule(receipt, delay, redelivery.encode());
    stage.settle(&hand.member, &[settlement]).await;
    drop(hand);
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = crate::api::SubscribeOptions::new();
    let _subscription = stage.subscribe(options, sender).await;
    assert_eq!(stage.next(&mut received).await, 0);
    stage.drained().await;
    stage.finish().await;
}

/// > Without a delay it is in the redelivery stream at once, and never scheduled.
pub async fn a_retry_without_a_delay_does_not_wait<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut hand = stage.hand("one").await;
    let ids = receipts(&stage.fetch(&mut hand, 3).await);
    let mut other = stage.hand("two").await;
    let settling = async {
        let at_once = |id: &DeliveryId, redelivery| later(*id, Duration::ZERO, redelivery);
        let settlements = [
            at_once(&ids[0], "a"),
            later(ids[1], DAY, "b"),
            at_once(&ids[2], "c"),
            // Once is enough.
            at_once(&ids[2], "c"),
        ];
        stage.settle(&hand.member, &settlements).await
    };
    // A blocked reader wakes up.
    let (fetched, settled) = tokio::join!(stage.fetch(&mut other, 2), settling);
    assert_eq!(settled, [true, true, true, false]);
    assert_eq!(redeliveries(&fetched), ["a", "c"]);
    assert!(
        fetched
            .iter()
            .all(|one| one.receipt.lane == Lane::Redelivery)
    );
    assert_eq!(page(&stage, None, 10).await.len(), 1);
    stage.nothing(&mut other).await;
}

/// An id without a scheduled retry.
const NOWHERE: DeliveryId = DeliveryId {
    lane: Lane::Redelivery,
    id: EntryId::new(1, 1),
};

/// Schedules a retry per delay, in hours, in one call.
async fn waiting<S: Subject>(stage: &Stage<'_, S>, hours: &[u32]) -> (Hand, Vec<DeliveryId>) {
    let count = u32::try_from(hours.len()).must("the number of messages");
    stage.append(0..count).await;
    let mut hand = stage.hand("one").await;
    let ids = receipts(&stage.fetch(&mut hand, hours.len()).await);
    let settlements: Vec<_> = (hours.iter().zip(&ids).zip(["a", "b", "c", "d", "e", "f"]))
        .map(|((hours, id), redelivery)| later(*id, *hours * DAY / 24, redelivery))
        .collect();
    stage.settle(&hand.member, &settlements).await;
    (hand, ids)
}

async fn page<S: Subject>(
    stage: &Stage<'_, S>,
    after: Option<(Timestamp, DeliveryId)>,
    max: usize,
) -> Vec<Scheduled> {
    let listed = stage.store.schedule().list(&stage.at, after, max);
    listed.await.must("listing").entries
}

/// > Scheduled entries after a position in their order, earliest first.
/// > When it is due, by the store's clock.
/// > The store's time at this moment.
pub async fn scheduled_retries_are_listed_by_due_time<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    // Several are due at the same moment.
    let (_hand, ids) = waiting(&stage, &[5, 2, 5, 5, 1, 5]).await;
    let all = stage.store.schedule().list(&stage.at, None, 10);
    let all = all.await.must("listing");
    let mut bodies: Vec<&[u8]> = all.entries.iter().map(|one| &one.redelivery[..]).collect();
    assert_eq!(bodies[..2], [b"e", b"b"]);
    bodies.sort_unstable();
    assert_eq!(bodies, [b"a", b"b", b"c", b"d", b"e", b"f"]);
    let until = all.entries[0].due.as_millis() - all.now.as_millis();
    assert!((1..=3_600_000).contains(&until), "{until}");

    let (mut found, mut place) = (Vec::new(), None);
    loop {
        let one = page(&stage, place, 2).await;
        let Some(last) = one.last() else { break };
        place = Some((last.due, last.receipt));
        // A cursor at a removed retry is still valid.
        let ids = [last.receipt];
        let gone = stage.store.schedule().cancel(&stage.at, &ids);
        assert_eq!(gone.await.must("cancelling"), [true]);
        found.extend(one);
    }
    assert_eq!(found, all.entries);
    assert_eq!(ids.len(), found.len());
    assert!(found.iter().all(|one| ids.contains(&one.receipt)));
}

/// > Up to `max` of them, fewer where they are heavy, none only at the end.
pub async fn a_page_of_scheduled_retries_ends_somewhere<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..4).await;
    let mut hand = stage.hand("one").await;
    let heavy = "x".repeat(3 * 1024 * 1024);
    for id in receipts(&stage.fetch(&mut hand, 4).await) {
        stage.settle(&hand.member, &[later(id, DAY, &heavy)]).await;
    }
    assert_eq!(page(&stage, None, 1).await.len(), 1);
    let (mut count, mut place) = (0, None);
    loop {
        let one = page(&stage, place, 10).await;
        let Some(last) = one.last() else { break };
        place = Some((last.due, last.receipt));
        count += one.len();
    }
    assert_eq!(count, 4);
}

/// > Moves these entries to the redelivery stream now, each atomically.
/// > For each, whether it was scheduled.
pub async fn scheduled_retries_can_run_now<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (mut hand, ids) = waiting(&stage, &[24, 24, 24]).await;
    let some = [ids[2], NOWHERE, ids[0], ids[2]];
    let run_now = || stage.store.schedule().run_now(&stage.at, &some);
    let (one, two) = tokio::join!(run_now(), run_now());
    let (one, two) = (one.must("running now"), two.must("running now"));
    let moved = one
        .iter()
        .zip(&two)
        .map(|(one, two)| u8::from(*one) + u8::from(*two));
    assert_eq!(moved.collect::<Vec<_>>(), [1, 0, 1, 0], "{one:?} {two:?}");
    assert_eq!(stage.counts().await, [0, 0, 3, 0]);
    assert_eq!(page(&stage, None, 10).await.len(), 1);
    let fetched = stage.fetch(&mut hand, 2).await;
    assert!(
        fetched
            .iter()
            .all(|one| one.receipt.lane == Lane::Redelivery)
    );
    assert_eq!(fetched[0].attempts.begun, 0);
    let mut brought = redeliveries(&fetched);
    brought.sort_unstable();
    assert_eq!(brought, ["a", "c"]);
    stage.nothing(&mut hand).await;
}

/// > Removes these entries for good.
/// > For each, whether it was scheduled.
pub async fn scheduled_retries_can_be_cancelled<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (mut hand, ids) = waiting(&stage, &[24, 24, 24]).await;
    let cancel = async |ids: &[DeliveryId]| {
        let done = stage.store.schedule().cancel(&stage.at, ids).await;
        done.must("cancelling")
    };
    let some = [ids[0], NOWHERE, ids[1], ids[0]];
    assert_eq!(cancel(&some).await, [true, false, true, false]);
    assert_eq!(stage.counts().await, [0, 0, 1, 0]);
    let moved = stage.store.schedule().run_now(&stage.at, &ids).await;
    assert_eq!(moved.must("running now"), [false, false, true]);
    let fetched = stage.fetch(&mut hand, 1).await;
    assert_eq!(redeliveries(&fetched), ["c"]);
    stage.nothing(&mut hand).await;
}
