//! Leases: extending, losing, releasing, reclaiming.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::Subject;
use super::support::{
    DAY, Must as _, SOON, Stage, begins, later, number_in, numbers, quick, receipts,
};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::{Reason, RetryPolicy};
use crate::extract::Payload;
use crate::store::{Holder, Lane, ReclaimCursor, Unmarked};

/// > Takes over up to `max` entries of each lane whose lease is older than `lease`, and than the lease
/// > of the group, from any member.
pub async fn an_expired_lease_is_taken_over_and_counted<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut hand = stage.hand("dying").await;
    let fetched = stage.fetch(&mut hand, 3).await;
    let heirs = [stage.member("heir"), stage.member("heir-2")];
    let heirs = [&heirs[0], &heirs[1]];
    for (heir, begun) in heirs.into_iter().zip([1, 1]) {
        let taken = stage
            .until("the lease to end", async || {
                let taken = stage.reclaim(heir, Duration::from_millis(20)).await;
                Some(taken).filter(|taken| taken.len() == 3)
            })
            .await;
        assert_eq!(receipts(&taken), receipts(&fetched));
        assert_eq!(numbers(&taken), [0, 1, 2]);
        assert!(taken.iter().all(|one| one.attempts.begun == begun));
    }
    assert_eq!(stage.counts().await, [0, 3, 0, 0]);
}

/// A running lease is respected.
pub async fn a_running_lease_is_not_taken_over<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 3).await);
    let other = stage.member("other");
    assert!(stage.reclaim(&other, DAY).await.is_empty());
    let held = stage.store.deliveries().pending_of(&hand.member, 10).await;
    assert_eq!(held.must("asking"), fetched);
}

/// > Restarts the lease of deliveries.
/// > Answers who holds each.
pub async fn an_extended_lease_runs_in_full<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let mut hand = stage.hand("one").await;
    let other = stage.member("other");
    let lease = Duration::from_millis(300);
    // This machine may pause between the extension and the check; then the check repeats.
    stage
        .until("an extended lease to outlive another", async || {
            stage.append(0..2).await;
            let fetched = receipts(&stage.fetch(&mut hand, 2).await);
            tokio::time::sleep(lease).await;
            let held = stage
                .store
                .deliveries()
                .extend(&hand.member, &fetched[..1])
                .await;
            assert_eq!(held.must("extending"), [Holder::Member]);
            let taken = receipts(&stage.reclaim(&other, lease).await);
            assert!(taken.contains(&fetched[1]));
            let held = stage
                .store
                .deliveries()
                .extend(&hand.member, &fetched)
                .await;
            let held = held.must("extending");
            assert_eq!(held[1], Holder::Other);
            (held[0] == Holder::Member).then_some(())
        })
        .await;
}

/// Released deliveries can be claimed at once.
pub async fn a_released_message_is_claimable_at_once_and_uncounted<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut hand = stage.hand("leaving").await;
    let fetched = receipts(&stage.fetch(&mut hand, 3).await);
    let other = stage.member("other");
    assert_eq!(stage.release(&other, &fetched).await, 0);
    for (from, to) in [(&hand.member, &other), (&other, &hand.member)] {
        for _ in 0..2 {
            assert_eq!(stage.release(from, &fetched[..2]).await, 2);
        }
        let taken = stage.reclaim(to, DAY).await;
        assert_eq!(receipts(&taken), fetched[..2]);
        assert!(taken.iter().all(|one| one.attempts.begun == 0), "{taken:?}");
    }
    let held = stage.store.deliveries().pending_of(&hand.member, 10).await;
    assert_eq!(held.must("asking"), fetched);
}

/// > Continues at `cursor`, and starts over after the end.
pub async fn reclaiming_reaches_the_end_and_starts_over<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..250).await;
    let mut hand = stage.hand("dying").await;
    stage.fetch(&mut hand, 250).await;
    let heir = stage.member("heir");
    let (mut cursor, mut seen) = (ReclaimCursor::default(), Vec::new());
    loop {
        let found = stage
            .store
            .deliveries()
            .claim_expired(&heir, Duration::ZERO, Unmarked::Begun, cursor, 10)
            .await;
        let found = found.must("reclaiming");
        assert!(found.taken.len() <= 10, "no more than was asked for");
        seen.extend(numbers(&found.taken));
        cursor = found.cursor;
        if cursor == ReclaimCursor::default() {
            break;
        }
    }
    let first = seen[..10].to_vec();
    seen.sort_unstable();
    assert_eq!(seen, (0..250).collect::<Vec<_>>());
    let again = stage.store.deliveries().claim_expired(
        &hand.member,
        Duration::ZERO,
        Unmarked::Begun,
        cursor,
        10,
    );
    let again = again.await.must("reclaiming");
    assert_eq!(numbers(&again.taken), first);
}

/// Entries of the redelivery stream have leases.
pub async fn the_redelivery_stream_has_leases<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1).await;
    let mut hand = stage.hand("dying").await;
    let fetched = stage.fetch(&mut hand, 1).await;
    let settlement = later(fetched[0].receipt, SOON, "parcel");
    stage.settle(&hand.member, &[settlement]).await;
    stage.promote(1).await;
    let fetched = stage.fetch(&mut hand, 1).await;
    assert_eq!(fetched[0].receipt.lane, Lane::Redelivery);
    let heir = stage.member("heir");
    assert!(stage.reclaim(&heir, DAY).await.is_empty());
    let taken = stage.reclaim(&heir, Duration::ZERO).await;
    assert_eq!(receipts(&taken), receipts(&fetched));
    assert_eq!(taken[0].fields, fetched[0].fields);
    assert_eq!(taken[0].attempts.begun, 1);
    let own = stage
        .store
        .deliveries()
        .extend(&hand.member, &receipts(&fetched))
        .await;
    assert_eq!(own.must("extending"), [Holder::Other]);
}

/// A crash counts as an attempt; the last attempt dead-letters the message.
pub async fn a_crash_counts_as_an_attempt<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1).await;
    let mut dying = stage.hand("dying").await;
    stage.fetch(&mut dying, 1).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |_: Payload<u32>, delivery: Delivery| {
        let _ = sender.send(delivery.attempt());
        async { Err::<(), _>("no") }
    };
    let options = quick(2).with_lease(Duration::from_millis(200));
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    assert_eq!(stage.next(&mut received).await, 2);
    assert_eq!(stage.drained().await.dead, 1);
    stage.finish().await;
    assert!(received.try_recv().is_err(), "it had its two attempts");
}

/// After a crash in the last attempt, no handler is called again.
pub async fn a_message_that_crashes_its_consumers_is_dead_lettered<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1).await;
    let mut dying = stage.hand("dying").await;
    let fetched = receipts(&stage.fetch(&mut dying, 1).await);
    let begins = begins(&fetched, 1);
    let begun = stage.store.deliveries().begin(&dying.member, &begins).await;
    assert_eq!(begun.must("beginning"), [Holder::Member]);
    let options = SubscribeOptions::new()
        .with_lease(Duration::from_millis(200))
        .with_retry(RetryPolicy::default().with_max_attempts(1));
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(options, sender).await;
    let letter = stage
        .until("the dead letter", async || stage.letters().await.pop())
        .await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Crashed, 1));
    stage.drained().await;
    stage.finish().await;
    assert!(received.try_recv().is_err());
}

/// A prefetched message keeps its lease until a handler is free.
pub async fn a_prefetched_message_keeps_its_lease<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let lease = Duration::from_millis(1500);
    let once = async || {
        let gate = Arc::new(Semaphore::new(0));
        let (sender, mut received) = mpsc::unbounded_channel();
        let mut containers = Vec::new();
        for name in 0..2 {
            let container = subject.container("billing").await;
            let (door, sender) = (Arc::clone(&gate), sender.clone());
            let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
                let (door, sender) = (Arc::clone(&door), sender.clone());
                async move {
                    door.acquire().await.must("the gate").forget();
                    let _ = sender.send((n, delivery.attempt(), name));
                }
            };
            let options = SubscribeOptions::new()
                .with_concurrency(1)
                .with_prefetch(9)
                .with_lease(lease);
            let bus = container.bus();
            let made = bus.subscribe_with(&stage.topic, options, handler).await;
            let _subscription = made.must("subscribing");
            containers.push(container);
        }
        stage.publish(0..10).await;
        stage
            .until("some to be in flight", async || {
                (stage.status().await.lag == 0).then_some(())
            })
            .await;
        // Twice as long as a lease without extension.
        tokio::time::sleep(lease * 2).await;
        gate.add_permits(1000);
        let mut seen = stage.some(&mut received, 10).await;
        stage.drained().await;
        for container in &containers {
            stage.end(container).await;
        }
        while let Ok(one) = received.try_recv() {
            seen.push(one);
        }
        seen.sort_unstable();
        let first = seen.iter().map(|(n, attempt, _)| (*n, *attempt));
        match first.eq((0..10).map(|n| (n, 1))) {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    };
    stage
        .steadily(lease, "each message to be handled once", once)
        .await;
}

/// A handler whose lease is lost is cancelled, and its outcome is dropped.
pub async fn a_lost_lease_cancels_the_delivery<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |_: Payload<u32>, delivery: Delivery| {
        let sender = sender.clone();
        async move {
            let _ = sender.send("begun");
            delivery.cancelled().await;
            let lost = delivery.extend_lease().await.is_err();
            let _ = sender.send(if lost { "lost" } else { "kept" });
            Err::<(), _>("too late")
        }
    };
    let options = SubscribeOptions::new().with_lease(Duration::from_millis(300));
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let subscription = made.must("subscribing");
    stage.publish(0..1).await;
    assert_eq!(stage.next(&mut received).await, "begun");
    let thief = stage.member("thief");
    let owner = stage.member(subscription.consumer().as_str());
    let stolen = stage.take_over(&owner, &thief).await;
    // The thief keeps the entry until the first handler is cancelled.
    let told = tokio::select! {
        told = stage.next(&mut received) => told,
        () = async { loop {
            let _ = stage.store.deliveries().extend(&thief, &stolen).await;
            tokio::time::sleep(SOON).await;
        } } => unreachable!("it never ends"),
    };
    assert_eq!(told, "lost");
    let _ = stage.container.shutdown(Duration::ZERO).await;
    let [_, _, scheduled, dead] = stage.counts().await;
    assert_eq!((scheduled, dead), (0, 0), "a late failure is dropped");
}

/// > Sets the lease of the member's group: a longer one than the group has at once, a shorter one
/// > when no other live consumer is left.
/// > Returns the lease that holds.
pub async fn the_lease_belongs_to_the_group<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1).await;
    let mut long = stage.hand("long").await;
    let short = stage.member("short");
    let set = async |by: &crate::store::Member, lease| {
        let held = stage.store.topics().set_lease(by, lease).await;
        held.must("setting the lease")
    };
    assert_eq!(set(&short, SOON).await, SOON);
    assert_eq!(set(&long.member, DAY).await, DAY, "a longer one at once");
    stage.fetch(&mut long, 1).await;
    assert_eq!(set(&short, SOON).await, DAY, "another consumer lives");
    tokio::time::sleep(4 * SOON).await;
    assert!(stage.reclaim(&short, SOON).await.is_empty());
    let held = stage.store.deliveries().pending_of(&long.member, 10).await;
    stage.acknowledge(&long.member, &held.must("asking")).await;
    let (topics, only) = (stage.store.topics(), Some(&long.member.consumer));
    let pruned = topics
        .prune_consumers(&stage.at, Duration::ZERO, only)
        .await;
    assert_eq!(pruned.must("pruning"), 1);
    assert_eq!(set(&short, SOON).await, SOON, "it is alone");
}

/// A consumer with a short lease takes over nothing that a consumer with a long one holds.
pub async fn a_short_lease_respects_a_long_one<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let door = Arc::new(Semaphore::new(0));
    let handler = {
        let door = Arc::clone(&door);
        move |_: Payload<u32>, delivery: Delivery| {
            let (sender, door) = (sender.clone(), Arc::clone(&door));
            async move {
                let _ = sender.send(delivery.attempt());
                let _ = door.acquire().await;
            }
        }
    };
    let other = stage.subject.container("billing").await;
    let options = |lease| quick(1).with_lease(lease).with_prefetch(1);
    let short = Duration::from_millis(100);
    let made = other
        .bus()
        .subscribe_with(&stage.topic, options(short), handler.clone())
        .await;
    let _short = made.must("subscribing");
    let bus = stage.container.bus();
    // Extends every eight hours, so the group's lease alone protects its deliveries.
    let made = bus
        .subscribe_with(&stage.topic, options(DAY), handler)
        .await;
    let _long = made.must("subscribing");
    stage.publish(0..40).await;
    stage.next(&mut received).await;
    tokio::time::sleep(10 * short).await;
    door.add_permits(1000);
    let left = stage.drained().await;
    assert_eq!(left.dead, 0);
    stage.end(&other).await;
    stage.finish().await;
    let mut handled = 1;
    while let Ok(attempt) = received.try_recv() {
        assert_eq!(attempt, 1);
        handled += 1;
    }
    assert_eq!(handled, 40, "each once");
}

/// Two members that reclaim at once never get the same entry.
pub async fn only_one_of_two_takes_over<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..100).await;
    let mut hand = stage.hand("dying").await;
    let fetched = receipts(&stage.fetch(&mut hand, 100).await);
    assert_eq!(stage.release(&hand.member, &fetched).await, 100);
    let (one, two) = (stage.member("one"), stage.member("two"));
    let (one, two) = tokio::join!(stage.reclaim(&one, DAY), stage.reclaim(&two, DAY));
    let both: Vec<u32> = one.iter().chain(&two).map(number_in).collect();
    assert_eq!(both.len(), 100);
    assert_eq!(both.into_iter().collect::<BTreeSet<_>>().len(), 100);
}

/// A handler that takes longer than its lease keeps it.
pub async fn a_long_handler_keeps_its_lease<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let lease = Duration::from_millis(1200);
    let once = async || {
        let (calls, kept) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut containers = Vec::new();
        for _ in 0..2 {
            let container = subject.container("billing").await;
            let (calls, kept) = (Arc::clone(&calls), Arc::clone(&kept));
            let handler = move |_: Payload<u32>, delivery: Delivery| {
                calls.fetch_add(1, Ordering::SeqCst);
                let kept = Arc::clone(&kept);
                async move {
                    tokio::time::sleep(lease * 2).await;
                    let is_kept = !delivery.is_cancelled();
                    kept.fetch_add(u32::from(is_kept), Ordering::SeqCst);
                }
            };
            let options = SubscribeOptions::new().with_lease(lease);
            let bus = container.bus();
            let made = bus.subscribe_with(&stage.topic, options, handler).await;
            let _subscription = made.must("subscribing");
            containers.push(container);
        }
        stage.publish(0..1).await;
        stage
            .until("the handler to begin", async || {
                (calls.load(Ordering::SeqCst) > 0).then_some(())
            })
            .await;
        stage.drained().await;
        for container in &containers {
            stage.end(container).await;
        }
        match (calls.load(Ordering::SeqCst), kept.load(Ordering::SeqCst)) {
            (1, 1) => Ok(()),
            (calls, kept) => Err(format!("{calls} calls, {kept} of them kept their lease")),
        }
    };
    stage
        .steadily(lease, "one call that keeps its lease", once)
        .await;
}
