//! Attempts: what counts as one, and what becomes of a message around them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;

use super::Subject;
use super::support::{DAY, Must as _, SOON, Stage, begins, number, quick, receipts, topic};
use crate::api::{Batch, Delivery, Message, Router, SubscribeOptions};
use crate::domain::{Envelope, Outcome, Reason, RetryPolicy, TopicSettings};
use crate::extract::Payload;
use crate::store::{Commit, DeliveryId, Fetched, GroupAt, Holder, Member, Partition, Unmarked};

/// > Records the attempts at entries, because one begins or has failed, and restarts the leases. Answers
/// > who holds each delivery; where the member does not, nothing is written. The counts are absolute,
/// > so repeating the call is safe.
/// > Counts no attempt but the one that `unmarked` says.
pub async fn claims_count_nothing_and_marks_do<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut dying = stage.hand("dying").await;
    let fetched = receipts(&stage.fetch(&mut dying, 3).await);
    assert_eq!(stage.release(&dying.member, &fetched[..1]).await, 1);
    let begin = async |member: &Member, delivery: DeliveryId, attempts| {
        let begins = begins(&[delivery], attempts);
        let begun = stage.store.deliveries().begin(member, &begins).await;
        begun.must("beginning")
    };
    assert_eq!(begin(&dying.member, fetched[1], 1).await, [Holder::Member]);
    let begun = |taken: &[Fetched]| {
        taken
            .iter()
            .map(|one| one.attempts.begun)
            .collect::<Vec<_>>()
    };
    let heirs = ["a", "b", "c"].map(|heir| stage.member(heir));
    for heir in &heirs {
        let taken = stage.reclaim(heir, Duration::ZERO).await;
        assert_eq!(receipts(&taken), fetched);
        assert_eq!(begun(&taken), [0, 1, 1], "a claim counts nothing");
    }
    let [before, _, last] = &heirs;
    assert_eq!(begin(before, fetched[1], 9).await, [Holder::Other]);
    for _ in 0..2 {
        assert_eq!(begin(last, fetched[1], 2).await, [Holder::Member]);
    }
    let other = stage.member("other");
    let taken = stage.reclaim(&other, Duration::ZERO).await;
    assert_eq!(begun(&taken), [0, 2, 1]);

    // An attempt that never began is not taken back, one that was cancelled is, and only once.
    assert_eq!(stage.release(&other, &fetched).await, 3);
    let taken = stage.reclaim(&other, DAY).await;
    assert_eq!(begun(&taken), [0, 2, 1]);
    assert_eq!(begin(&other, fetched[0], 1).await, [Holder::Member]);
    for _ in 0..2 {
        let commits = [
            Commit::release_counted(fetched[0], 0),
            Commit::release_counted(fetched[1], 1),
        ];
        assert_eq!(stage.settle(&other, &commits).await, [true, true]);
    }
    let taken = stage.reclaim(&other, DAY).await;
    assert_eq!(begun(&taken), [0, 1]);

    stage.append(3..4).await;
    stage.fetch(&mut dying, 1).await;
    let taken = stage
        .claim(&other, Duration::ZERO, Unmarked::NotBegun)
        .await;
    assert_eq!(begun(&taken), [0, 1, 1, 0], "where every attempt is marked");
}

/// A message that no handler has begun outlives any number of claims, also where one attempt is
/// allowed.
pub async fn a_message_that_never_began_has_its_attempts_left<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1).await;
    let mut dying = stage.hand("dying").await;
    let fetched = receipts(&stage.fetch(&mut dying, 1).await);
    for heir in 0..10 {
        let heir = stage.member(&format!("heir-{heir}"));
        let taken = stage.claim(&heir, Duration::ZERO, Unmarked::NotBegun).await;
        assert_eq!(receipts(&taken), fetched);
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |_: Payload<u32>, delivery: Delivery| {
        let _ = sender.send(delivery.attempt());
        async {}
    };
    let options = quick(1).with_lease(Duration::from_millis(100));
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    assert_eq!(stage.next(&mut received).await, 1);
    assert_eq!(stage.drained().await.dead, 0);
    stage.finish().await;
}

/// Behind two crashes a message runs alone, and its neighbours run without it.
pub async fn a_suspect_runs_alone<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..20).await;
    let mut dying = stage.hand("dying").await;
    let fetched = receipts(&stage.fetch(&mut dying, 20).await);
    let suspects = begins(&fetched[4..7], 2);
    let begun = stage
        .store
        .deliveries()
        .begin(&dying.member, &suspects)
        .await;
    assert_eq!(begun.must("beginning"), [Holder::Member; 3]);
    let running = Arc::new(AtomicUsize::new(0));
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let (running, sender) = (Arc::clone(&running), sender.clone());
        async move {
            let before = running.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let after = running.fetch_sub(1, Ordering::SeqCst);
            let _ = sender.send((n, delivery.attempt(), before == 0 && after == 1));
        }
    };
    let options = quick(8)
        .with_lease(Duration::from_millis(200))
        .with_concurrency(4);
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    let mut seen = stage.some(&mut received, 20).await;
    seen.sort_unstable();
    for (n, attempt, alone) in &seen {
        let suspect = (4..7).contains(n);
        assert_eq!(*attempt, if suspect { 3 } else { 2 }, "{n}");
        assert!(!suspect || *alone, "{n} had company");
    }
    assert!(
        seen.iter().any(|(.., alone)| !alone),
        "the others run side by side"
    );
    assert_eq!(stage.drained().await.dead, 0);
    stage.finish().await;
}

/// Panics again while the payload of its panic is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any(Self);
        }
    }
}

/// A panic costs one attempt and no worker, whatever its payload does.
pub async fn a_panic_whose_payload_panics_costs_no_worker<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..12).await;
    let handler = |Payload(n): Payload<u32>, _: Delivery| async move {
        if n < 4 {
            std::panic::panic_any(Bomb);
        }
    };
    let bus = stage.container.bus();
    let options = quick(2).with_concurrency(2);
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    assert_eq!(stage.drained().await.dead, 4);
    stage.finish().await;
}

/// A number whose decoding panics where it is 7.
struct Checked(u32);

impl Message for Checked {
    const TYPE: &'static str = "n";
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        assert_ne!(number, 7, "an assertion of the type");
        Ok(Self(number))
    }
}

/// A message of the type that the checks publish.
#[derive(Deserialize)]
struct Number(u32);

impl Message for Number {
    const TYPE: &'static str = "n";
}

/// A payload whose decoding panics costs its own message, not its batch.
pub async fn a_payload_that_panics_costs_its_own_message<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..12).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |batch: Batch<Checked>| {
        for (number, delivery) in &batch {
            let _ = sender.send((number.0, delivery.attempt()));
        }
        std::future::ready(())
    };
    let options = quick(3)
        .with_batch(12, Duration::from_millis(50))
        .with_concurrency(1);
    let bus = stage.container.bus();
    let made = bus
        .subscribe_with(&stage.topic, options, Router::new().on_batch(handler))
        .await;
    let _subscription = made.must("subscribing");
    let seen = stage.some(&mut received, 11).await;
    assert!(seen.iter().all(|(_, attempt)| *attempt == 1), "{seen:?}");
    assert_eq!(stage.drained().await.dead, 1);
    let letter = stage.letters().await.remove(0);
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 3));
    stage.finish().await;
}

/// Where one message makes its whole batch fail, only that message dies, also when the messages of
/// the batch come back together.
pub async fn one_bad_message_does_not_take_its_batch_along<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..40).await;
    let handler = |batch: Batch<Number>| {
        let bad = batch.iter().any(|(n, _)| n.0 == 22);
        std::future::ready(if bad { Err("row refused") } else { Ok(()) })
    };
    let retry = RetryPolicy::fixed(Duration::from_millis(100));
    let options = SubscribeOptions::new()
        .with_batch(40, Duration::from_millis(50))
        .with_concurrency(1)
        .with_retry(retry);
    let bus = stage.container.bus();
    let made = bus
        .subscribe_with(&stage.topic, options, Router::new().on_batch(handler))
        .await;
    let _subscription = made.must("subscribing");
    assert_eq!(stage.drained().await.dead, 1);
    assert_eq!(stage.letters().await[0].attempts, 5);
    stage.finish().await;
}

/// A handler that is cancelled acknowledges by saying so, and in no other way. The rest is given back,
/// uncounted, and reported.
pub async fn a_cancelled_handler_acknowledges_only_by_saying_so<S: Subject>(subject: &S) {
    let mut stage = Stage::bare(subject).await;
    let bus = stage.container.bus();
    let options = SubscribeOptions::new().with_lease(DAY);
    let tries = AtomicUsize::new(0);
    let cancels = async || {
        let orders = topic(&format!("orders-{}", tries.fetch_add(1, Ordering::SeqCst)));
        let all: Vec<Envelope> = (0..4).map(number).collect();
        for result in bus.publish_all(&orders, &all).await {
            result.must("publishing");
        }
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                delivery.cancelled().await;
                match n {
                    0 => Ok(Outcome::Ack),
                    1 => Ok(Outcome::retry("not now")),
                    2 => Err("not now"),
                    _ => panic!("not now"),
                }
            }
        };
        let made = bus.subscribe_with(&orders, options.clone(), handler).await;
        let subscription = made.must("subscribing");
        let all = async || (begun.load(Ordering::SeqCst) == 4).then_some(());
        stage.until("all to be begun", all).await;
        let report = subscription.unsubscribe(SOON).await;
        match (report.cancelled, report.released, report.unsettled) {
            (3, 0, 0) => Ok(orders),
            _ => Err(format!("{report:?}")),
        }
    };
    // The last writes of a subscription may take a second.
    let second = Duration::from_secs(1);
    let orders = stage.steadily(second, "a clean end", cancels).await;
    stage.at = GroupAt::of(&orders, &stage.group);
    stage.topic = orders;

    let other = topic("silent");
    let silent = |_: Payload<()>, delivery: Delivery| async move { delivery.cancelled().await };
    let made = bus.subscribe_with(&other, options.clone(), silent).await;
    let subscription = made.must("subscribing");
    let envelope = Envelope::new("n", &()).must("an envelope");
    bus.publish(&other, &envelope).await.must("publishing");
    let partition = Partition::of(&other);
    let held = async || {
        let status = stage.store.inspect().status(&partition).await;
        let status = status.must("asking").must("the topic");
        (status.groups[0].in_flight == 1).then_some(())
    };
    stage.until("it to be held", held).await;
    let report = subscription.unsubscribe(SOON).await;
    assert_eq!(report.cancelled + report.released, 1, "{report:?}");

    let (sender, mut received) = mpsc::unbounded_channel();
    let again = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((n, delivery.attempt()));
        async {}
    };
    let made = bus.subscribe_with(&stage.topic, options, again).await;
    let _again = made.must("subscribing");
    let mut seen = stage.some(&mut received, 3).await;
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 1), (3, 1)]);
    stage.drained().await;
    let status = stage.store.inspect().status(&partition).await;
    let status = status.must("asking").must("the topic");
    assert_eq!(status.groups[0].in_flight, 1, "the silent one is kept");
    stage.finish().await;
}

/// A long snooze is kept as it was asked for.
pub async fn a_snooze_of_months_is_kept<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..1).await;
    let days = 90 * DAY;
    let handler = move |_: Payload<u32>, _: Delivery| std::future::ready(Outcome::snooze(days));
    let bus = stage.container.bus();
    let made = bus.subscribe(&stage.topic, handler).await;
    let _subscription = made.must("subscribing");
    let due = stage
        .until("it to be scheduled", async || {
            let page = stage.store.schedule().list(&stage.at, None, 1).await;
            page.must("listing").entries.first().map(|entry| entry.due)
        })
        .await;
    let waits = due.as_millis() - stage.store.now().as_millis();
    let asked = i64::try_from(days.as_millis()).must("the delay");
    assert!((asked - 600_000..=asked).contains(&waits), "{waits}");
    stage.finish().await;
}

/// A handler whose own publish finds a backlog full has not failed: its message comes back
/// uncounted.
pub async fn back_pressure_uses_up_no_attempt<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..1).await;
    let (bus, next) = (stage.container.bus(), topic("next"));
    let full = TopicSettings::default().with_backlog_limit(1);
    let made = stage.store.topics().ensure_topic(&next, full).await;
    made.must("creating the topic");
    bus.publish(&next, &number(0)).await.must("publishing");
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = {
        let (bus, next) = (bus.clone(), next.clone());
        move |Payload(n): Payload<u32>, delivery: Delivery| {
            let (bus, next, sender) = (bus.clone(), next.clone(), sender.clone());
            async move {
                let published = bus.publish(&next, &number(n)).await.map(|_| ());
                let _ = sender.send((delivery.attempt(), published.is_ok()));
                published
            }
        }
    };
    let once = quick(1);
    let made = bus.subscribe_with(&stage.topic, once, handler).await;
    let _subscription = made.must("subscribing");
    assert_eq!(stage.next(&mut received).await, (1, false));
    assert_eq!(stage.next(&mut received).await, (1, false));
    let status = stage.status().await;
    assert_eq!(status.dead, 0, "{status:?}");
    stage.finish().await;
}

/// A message that is published on begins at its first attempt there, whatever it failed as here.
pub async fn a_message_published_on_begins_at_its_first_attempt<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..1).await;
    let (bus, next) = (stage.container.bus(), topic("next"));
    let handler = {
        let (bus, next) = (bus.clone(), next.clone());
        move |_: Payload<u32>, delivery: Delivery| {
            let (bus, next) = (bus.clone(), next.clone());
            async move {
                if delivery.attempt() < 3 {
                    return Err("not yet".to_owned());
                }
                let published = bus.publish(&next, delivery.envelope()).await;
                published.map(|_| ()).map_err(|error| error.to_string())
            }
        }
    };
    let made = bus.subscribe_with(&stage.topic, quick(3), handler).await;
    let _here = made.must("subscribing");
    let (sender, mut received) = mpsc::unbounded_channel();
    let there = move |_: Payload<u32>, delivery: Delivery| {
        let error = delivery.envelope().last_error().map(str::to_owned);
        let _ = sender.send((delivery.attempt(), error));
        async {}
    };
    let made = bus.subscribe_with(&next, quick(3), there).await;
    let _there = made.must("subscribing");
    assert_eq!(stage.next(&mut received).await, (1, None));
    stage.drained().await;
    stage.finish().await;
}

/// A lower maximum holds for the messages that have failed already.
pub async fn a_lowered_maximum_holds_at_once<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..1).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |_: Payload<u32>, delivery: Delivery| {
        let _ = sender.send(delivery.attempt());
        std::future::ready(match delivery.attempt() {
            1 | 2 => Outcome::retry("disk full"),
            _ => Outcome::snooze(SOON),
        })
    };
    let bus = stage.container.bus();
    let made = bus
        .subscribe_with(&stage.topic, quick(5), handler.clone())
        .await;
    let subscription = made.must("subscribing");
    assert_eq!(stage.some(&mut received, 3).await, [1, 2, 3]);
    subscription.unsubscribe(subject.patience()).await;
    while received.try_recv().is_ok() {}
    let made = bus.subscribe_with(&stage.topic, quick(2), handler).await;
    let _subscription = made.must("subscribing");
    assert_eq!(stage.drained().await.dead, 1);
    let letter = stage.letters().await.remove(0);
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 2));
    assert_eq!(letter.error, "disk full");
    assert!(received.try_recv().is_err(), "no handler was called");
    stage.finish().await;
}

/// On demand a payload of another version's type is tried again, and can be handled by a process of
/// that version.
pub async fn an_undecodable_payload_waits_for_another_version<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let text = Envelope::new("n", "a text").must("an envelope");
    let bus = stage.container.bus();
    bus.publish(&stage.topic, &text).await.must("publishing");
    let old = |_: Payload<u32>, _: Delivery| async {};
    let retry = RetryPolicy::fixed(Duration::from_millis(200)).with_max_attempts(1000);
    let options = SubscribeOptions::new()
        .with_retry(retry)
        .with_undecodable_retry(true);
    let made = bus.subscribe_with(&stage.topic, options, old).await;
    let old = made.must("subscribing");
    let scheduled = async || (stage.status().await.scheduled == 1).then_some(());
    stage.until("a retry", scheduled).await;
    old.unsubscribe(subject.patience()).await;
    let new = stage.subject.container("billing").await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(text): Payload<String>, delivery: Delivery| {
        let _ = sender.send((text, delivery.attempt() > 1));
        async {}
    };
    let made = new.bus().subscribe(&stage.topic, handler).await;
    let _new = made.must("subscribing");
    let (text, retried) = stage.next(&mut received).await;
    assert!(text == "a text" && retried, "{text}");
    assert_eq!(stage.drained().await.dead, 0);
    stage.end(&new).await;
    stage.finish().await;
}
