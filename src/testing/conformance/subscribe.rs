//! Subscribing and fetching.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::Subject;
use super::support::{
    DAY, Must as _, SOON, Stage, fields, group, new_entry, number, numbers, quick,
};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::{ErrorKind, Reason};
use crate::extract::Payload;
use crate::store::{StartFrom, Unmarked};

/// > Everything that the topic still holds; the default.
pub async fn a_new_subscriber_gets_old_messages<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..200).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    let mut seen = stage.some(&mut received, 200).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    stage.drained().await;
    stage.finish().await;
    assert!(received.try_recv().is_err(), "nothing came twice");
}

/// Of concurrent subscribes to one topic and group exactly one wins.
pub async fn of_concurrent_subscribes_one_wins<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let attempts = (0..20).map(|_| {
        let (bus, topic) = (stage.container.bus(), stage.topic.clone());
        let sender = sender.clone();
        tokio::spawn(async move {
            let handler = move |Payload(n): Payload<u32>, _: Delivery| {
                let _ = sender.send(n);
                async {}
            };
            bus.subscribe(&topic, handler).await
        })
    });
    let mut won = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.must("a subscriber") {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadySubscribed),
        }
    }
    assert_eq!(won, 1);
    stage.publish(7..8).await;
    assert_eq!(stage.next(&mut received).await, 7);
    stage.drained().await;
    stage.finish().await;
    assert!(received.try_recv().is_err(), "one delivery");
}

/// A subscription continues where the last one of its group ended.
pub async fn continues_after_close<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    for round in 0..3 {
        let (sender, mut received) = mpsc::unbounded_channel();
        let subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
        stage.publish(round * 20..round * 20 + 20).await;
        let mut seen = stage.some(&mut received, 20).await;
        seen.sort_unstable();
        assert_eq!(seen, (round * 20..round * 20 + 20).collect::<Vec<_>>());
        stage.drained().await;
        let report = subscription.unsubscribe(subject.patience()).await;
        assert!(report.is_clean(), "{report:?}");
    }
    stage.finish().await;
}

/// Another container of the service continues where the first one ended.
pub async fn a_second_container_continues<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    stage.publish(0..10).await;
    stage.some(&mut received, 10).await;
    stage.drained().await;
    stage.finish().await;

    let again = Stage::bare(subject).await;
    again.publish(10..20).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = again.subscribe(SubscribeOptions::new(), sender).await;
    let mut seen = again.some(&mut received, 10).await;
    seen.sort_unstable();
    assert_eq!(seen, (10..20).collect::<Vec<_>>());
    again.drained().await;
    again.finish().await;
}

/// A handler that fails now and then settles every message.
pub async fn continues_after_errors<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let fails = n.is_multiple_of(2) && delivery.attempt() < 3;
        if !fails {
            let _ = sender.send(n);
        }
        async move { if fails { Err("not yet") } else { Ok(()) } }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, quick(5), handler).await;
    let _subscription = made.must("subscribing");
    stage.publish(0..40).await;
    let mut seen = stage.some(&mut received, 40).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    assert_eq!(stage.drained().await.dead, 0);
    stage.finish().await;
}

/// An undecodable entry becomes a dead letter, and the reader continues.
pub async fn a_poison_entry_does_not_stop_the_reader<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let flaws = [
        new_entry("json", &b"{\"type\":"[..]),
        new_entry("msgpack", &b"\xC1"[..]),
        new_entry("other", &b"{}"[..]),
    ];
    stage.append_entries(&flaws).await;
    stage.append(0..3).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    let mut seen = stage.some(&mut received, 3).await;
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!(stage.drained().await.dead, 3);
    for (letter, flaw) in stage.letters().await.iter().zip(flaws) {
        assert_eq!((letter.reason, letter.attempts), (Reason::Undecodable, 1));
        assert_eq!(letter.fields, fields(flaw), "byte for byte");
    }
    stage.finish().await;
}

/// Messages that wait behind a slow handler go to a process that idles.
pub async fn slow_handlers_leave_waiting_messages_to_others<S: Subject>(subject: &S) {
    let (slow, idle) = (Stage::bare(subject).await, Stage::bare(subject).await);
    slow.publish(0..3).await;
    let gate = Arc::new(Semaphore::new(0));
    let (door, (sender, mut received)) = (Arc::clone(&gate), mpsc::unbounded_channel());
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let (door, sender) = (Arc::clone(&door), sender.clone());
        async move {
            door.acquire().await.must("the gate").forget();
            let _ = sender.send(n);
        }
    };
    let options = SubscribeOptions::new().with_concurrency(2);
    let bus = slow.container.bus();
    let made = bus
        .subscribe_with(&slow.topic, options.clone(), handler)
        .await;
    let _slow = made.must("subscribing");
    slow.until("the slow process to have all three", async || {
        (slow.status().await.in_flight == 3).then_some(())
    })
    .await;
    let (sender, mut elsewhere) = mpsc::unbounded_channel();
    let _idle = idle.subscribe(options, sender).await;
    assert_eq!(idle.next(&mut elsewhere).await, 2, "it waited");
    gate.add_permits(10);
    let mut rest = slow.some(&mut received, 2).await;
    rest.sort_unstable();
    assert_eq!(rest, [0, 1]);
    slow.drained().await;
    slow.finish().await;
    idle.finish().await;
}

/// Concurrency bounds the running handlers, and prefetch bounds the in-flight messages.
pub async fn concurrency_and_prefetch_are_bounds<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..100).await;
    let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let options = SubscribeOptions::new().with_concurrency(4).with_prefetch(6);
    let (now, most, door) = (Arc::clone(&running), Arc::clone(&peak), Arc::clone(&gate));
    let handler = move |_: Payload<u32>, _: Delivery| {
        let (now, most, door) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&door));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            door.acquire().await.must("the gate").forget();
            now.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    stage
        .until("four handlers to run", async || {
            (running.load(Ordering::SeqCst) == 4).then_some(())
        })
        .await;
    let held = stage.status().await.in_flight;
    assert!((4..=10).contains(&held), "{held} in flight");
    gate.add_permits(1000);
    stage.drained().await;
    assert_eq!(peak.load(Ordering::SeqCst), 4);
    stage.finish().await;
}

/// > Creates a group; an existing group keeps its cursor.
pub async fn creating_a_group_again_changes_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..5).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 2).await;
    for start in [StartFrom::Beginning, StartFrom::End] {
        let made = stage.store.topics().create_group(&stage.at, start).await;
        made.must("creating the group");
        assert_eq!(stage.counts().await, [3, 2, 0, 0]);
    }
    assert_eq!(numbers(&fetched), [0, 1]);
    assert_eq!(numbers(&stage.fetch(&mut hand, 3).await), [2, 3, 4]);
}

/// > Takes entries that no member of the group has been given: up to `max` of each source.
pub async fn a_fetch_keeps_to_its_limit<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..10).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 4).await;
    let settled: Vec<_> = fetched
        .iter()
        .map(|one| super::support::later(one.receipt, SOON, "p"))
        .collect();
    stage.settle(&hand.member, &settled).await;
    stage.promote(4).await;
    let fetched = hand.reader.fetch(3, DAY).await.must("fetching");
    let lanes = |lane| fetched.iter().filter(move |one| one.receipt.lane == lane);
    assert_eq!(lanes(crate::store::Lane::Log).count(), 3);
    assert_eq!(lanes(crate::store::Lane::Redelivery).count(), 3);
    assert!(fetched.iter().all(|one| one.attempts.begun == 0));
}

/// > Waits up to `wait` while there are none, then returns an empty list.
pub async fn a_fetch_without_entries_ends_empty<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let mut hand = stage.hand("one").await;
    for wait in [Duration::ZERO, SOON] {
        let fetched = hand.reader.fetch(10, wait).await.must("fetching");
        assert!(fetched.is_empty(), "{fetched:?}");
    }
    stage.append(0..1).await;
    stage.fetch(&mut hand, 1).await;
    stage.nothing(&mut hand).await;
}

/// A blocked fetch returns appended, promoted or redriven entries at once.
pub async fn a_blocked_fetch_is_woken<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let mut hand = stage.hand("one").await;
    for n in 0..20 {
        let (fetched, ()) = tokio::join!(
            tokio::time::timeout(subject.patience(), hand.reader.fetch(10, DAY)),
            async {
                if n % 2 == 0 {
                    tokio::time::sleep(SOON).await;
                }
                stage.append(n..n + 1).await;
            }
        );
        let fetched = fetched.must("waking").must("fetching");
        assert_eq!(numbers(&fetched), [n]);
        let settled = super::support::later(fetched[0].receipt, SOON, "p");
        stage.settle(&hand.member, &[settled]).await;
        let (fetched, ()) = tokio::join!(
            tokio::time::timeout(subject.patience(), hand.reader.fetch(10, DAY)),
            stage.promote(1)
        );
        let fetched = fetched.must("waking").must("fetching");
        assert_eq!(fetched.len(), 1);
        stage.acknowledge(&hand.member, &[fetched[0].receipt]).await;
    }
}

/// No wake-up is lost, whatever the order of appends and waits.
pub async fn many_blocked_readers_miss_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut readers = Vec::new();
    let mut interrupts = Vec::new();
    for reader in 0..4 {
        let mut hand = stage.hand(&format!("reader-{reader}")).await;
        let (sender, stop) = (sender.clone(), tokio_util::sync::CancellationToken::new());
        let stopped = stop.clone();
        interrupts.push((stop, hand.interrupt));
        readers.push(tokio::spawn(async move {
            while !stopped.is_cancelled() {
                for one in hand.reader.fetch(1, DAY).await.must("fetching") {
                    let _ = sender.send(super::support::number_in(&one));
                }
            }
        }));
    }
    for n in 0..200 {
        stage.append(n..n + 1).await;
        if n % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut seen = stage.some(&mut received, 200).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    for (reader, (stop, interrupt)) in readers.into_iter().zip(interrupts) {
        stop.cancel();
        // The reader may check its token before this and block after it.
        stage
            .until("a reader to end", async || {
                interrupt.interrupt().await.must("interrupting");
                reader.is_finished().then_some(())
            })
            .await;
        reader.await.must("a reader");
    }
}

/// > Makes a waiting fetch return with what it has.
/// > Does nothing while no fetch waits.
pub async fn a_blocked_fetch_can_be_interrupted<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let mut hand = stage.hand("one").await;
    hand.interrupt.interrupt().await.must("interrupting");
    let interrupting = async {
        loop {
            tokio::time::sleep(SOON).await;
            hand.interrupt.interrupt().await.must("interrupting");
        }
    };
    let fetched = tokio::select! {
        fetched = hand.reader.fetch(10, DAY) => fetched.must("fetching"),
        () = interrupting => unreachable!("it never ends"),
        () = tokio::time::sleep(subject.patience()) => panic!("the fetch was not interrupted"),
    };
    assert!(fetched.is_empty());
    // The reader works as before.
    stage.append(0..1).await;
    stage.fetch(&mut hand, 1).await;
}

/// > Fails with [`NotFound`](crate::ErrorKind::NotFound) when the group is gone.
pub async fn without_its_group_a_reader_returns_an_error<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let nobody = group("nobody");
    let mut hand = stage.hand_of(&nobody, "one").await;
    let kind = |error: Option<crate::Error>| error.must("an error").kind();
    let error = hand.reader.fetch(10, SOON).await.err();
    assert_eq!(kind(error), ErrorKind::NotFound);
    let error = stage
        .store
        .deliveries()
        .pending_of(&hand.member, 10)
        .await
        .err();
    assert_eq!(kind(error), ErrorKind::NotFound);
    let cursor = crate::store::ReclaimCursor::default();
    let error = stage
        .store
        .deliveries()
        .claim_expired(&hand.member, SOON, Unmarked::Begun, cursor, 10)
        .await;
    assert_eq!(kind(error.err()), ErrorKind::NotFound);
    stage.create(&nobody).await;
    stage.nothing(&mut hand).await;
}

/// A failing handler does not disturb other groups.
pub async fn a_failing_handler_does_not_disturb_other_handlers<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let bus = stage.container.bus();
    let named = |name: &str| SubscribeOptions::new().with_group(group(name));
    let failing = |_: Payload<u32>, _: Delivery| async { Err::<(), _>("no") };
    let made = bus.subscribe_with(&stage.topic, named("failing"), failing);
    let _failing = made.await.must("subscribing");
    let panicking =
        |Payload(n): Payload<u32>, _: Delivery| async move { assert!(n > 1_000_000, "deliberate") };
    let made = bus.subscribe_with(&stage.topic, named("panicking"), panicking);
    let _panicking = made.await.must("subscribing");
    let stuck = |_: Payload<u32>, delivery: Delivery| async move { delivery.cancelled().await };
    let made = bus.subscribe_with(&stage.topic, named("stuck"), stuck);
    let _stuck = made.await.must("subscribing");
    let (sender, mut received) = mpsc::unbounded_channel();
    let _good = stage.subscribe(named("good"), sender).await;
    for n in 0..100 {
        bus.publish(&stage.topic, &number(n))
            .await
            .must("publishing");
    }
    let mut seen = stage.some(&mut received, 100).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!(stage.drained_of(&group("good")).await.dead, 0);
    let _ = stage.container.shutdown(Duration::from_millis(50)).await;
}
