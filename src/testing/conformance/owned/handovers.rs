//! Handlers while a partition goes from one process to another.

use std::time::Duration;

use tokio::sync::mpsc;

use super::support::{LEASE, LONG_LEASE, owning};
use crate::api::{Delivery, Ownership, Payload};
use crate::domain::Outcome;
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{DAY, Must as _, Stage};

/// A process that joins gets its share, and one that leaves gives its partitions back. Nothing is handled
/// twice or out of order meanwhile.
pub async fn partitions_move_with_joins_and_departures<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let (one, mut first) = stage.own(&stage.container, owning(3), |_| 0).await;
    stage
        .until("the first to own all", async || {
            (stage.owners_of().await.len() == 4).then_some(())
        })
        .await;
    stage.publish_keys(0..100).await;
    let other = subject.container("billing").await;
    let (two, mut second) = stage.own(&other, owning(3), |_| 0).await;
    stage.publish_keys(100..200).await;
    stage
        .until("even shares", async || {
            let owners = stage.owners_of().await;
            let own = owners
                .iter()
                .filter(|(_, name)| *name == one.consumer().as_str());
            (owners.len() == 4 && own.count() == 2).then_some(())
        })
        .await;
    stage.publish_keys(200..300).await;
    stage
        .until("the second to have its part", async || {
            (!second.is_empty()).then_some(())
        })
        .await;
    let report = one.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.publish_keys(300..400).await;
    let mut seen = Vec::new();
    stage
        .until("every message", async || {
            while let Ok(one) = first.try_recv() {
                seen.push(one);
            }
            while let Ok(one) = second.try_recv() {
                seen.push(one);
            }
            (seen.len() >= 400).then_some(())
        })
        .await;
    stage.drained().await;
    let mut numbers: Vec<u32> = seen.iter().map(|(n, _)| *n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>(), "each of them once");
    assert!(seen.iter().all(|(_, attempt)| *attempt == 1));
    let report = two.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.end(&other).await;
    stage.finish().await;
}

/// A partition keeps its owner until the handlers have returned.
pub async fn a_partition_is_given_up_when_its_handlers_have_returned<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (sender, mut begun) = mpsc::unbounded_channel();
    let handler = |name: &'static str| {
        let (sender, go) = (sender.clone(), std::sync::Arc::clone(&go));
        move |Payload(n): Payload<u32>, _: Delivery| {
            let (sender, go) = (sender.clone(), std::sync::Arc::clone(&go));
            async move {
                let _ = sender.send((name, n));
                let _ = go.acquire().await;
            }
        }
    };
    let bus = stage.container.bus();
    let one = bus.subscribe_with(&stage.topic, owning(3), handler("one"));
    let one = one.await.must("subscribing");
    stage.publish_keys(0..10).await;
    stage.some(&mut begun, 10).await;
    let other = subject.container("billing").await;
    let others = other.bus();
    let two = others.subscribe_with(&stage.topic, owning(3), handler("two"));
    let two = two.await.must("subscribing");
    stage
        .until("the second to be a member", async || {
            let roster = stage.owners().roster(&stage.at).await.must("asking");
            (roster.members.len() == 2).then_some(())
        })
        .await;
    // Keys have at most four partitions here, and a partition without a message moves at once.
    let busy: std::collections::BTreeSet<u16> = (0..10).map(|n| stage.partition_of(n)).collect();
    tokio::time::sleep(LEASE / 2).await;
    for (at, owner) in stage.owners_of().await {
        assert!(
            !busy.contains(&at) || owner == one.consumer().as_str(),
            "{at}"
        );
    }
    assert!(
        begun.try_recv().is_err(),
        "nothing runs beside its first handler"
    );
    go.close();
    stage
        .until("even shares", async || {
            let owners = stage.owners_of().await;
            let second = owners
                .iter()
                .filter(|(_, name)| *name == two.consumer().as_str());
            (second.count() == 2).then_some(())
        })
        .await;
    stage.drained().await;
    assert!(begun.try_recv().is_err(), "each message was handled once");
    stage.end(&other).await;
    stage.finish().await;
}

/// A handler that never returns holds a partition no longer than the time for a handover. Its message comes
/// again, as the next attempt.
pub async fn a_handover_waits_for_handlers_up_to_its_time<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let (sender, mut begun) = mpsc::unbounded_channel();
    let handler = |hangs: bool| {
        let sender = sender.clone();
        move |Payload(n): Payload<u32>, delivery: Delivery| {
            let _ = sender.send((n, delivery.attempt(), hangs));
            async move {
                if hangs {
                    delivery.cancelled().await;
                }
            }
        }
    };
    let options = |handover| {
        let ownership = Ownership::new()
            .with_lease(LONG_LEASE)
            .with_handover(handover);
        owning(5).with_ownership(ownership)
    };
    let bus = stage.container.bus();
    let one = bus.subscribe_with(&stage.topic, options(LEASE), handler(true));
    let one = one.await.must("subscribing");
    stage.publish_keys(0..10).await;
    stage.some(&mut begun, 10).await;
    let other = subject.container("billing").await;
    let others = other.bus();
    let two = others.subscribe_with(&stage.topic, options(DAY), handler(false));
    two.await.must("subscribing");
    let (n, attempt, hangs) = stage.next(&mut begun).await;
    assert!(!hangs && attempt == 2, "{n}: {attempt}");
    // Its other handlers hang until it is cancelled.
    one.unsubscribe(Duration::ZERO).await;
    stage.end(&other).await;
    stage.finish().await;
}

/// A process shuts down while one handler runs, and its other messages wait behind it. The other process gets
/// them all meanwhile, except those of the handler's partition.
pub async fn a_shutdown_gives_each_partition_up_when_it_is_idle<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (sender, mut begun) = mpsc::unbounded_channel();
    let handler = |name: &'static str| {
        let (sender, go) = (sender.clone(), std::sync::Arc::clone(&go));
        move |Payload(n): Payload<u32>, delivery: Delivery| {
            let _ = sender.send((n, delivery.attempt(), name));
            let go = std::sync::Arc::clone(&go);
            async move {
                if n == 0 {
                    let _ = go.acquire().await;
                }
            }
        }
    };
    let bus = stage.container.bus();
    let one = bus.subscribe_with(&stage.topic, owning(3).with_concurrency(1), handler("one"));
    let one = one.await.must("subscribing");
    stage.publish_keys(0..1).await;
    assert_eq!(stage.next(&mut begun).await, (0, 1, "one"));
    stage.publish_keys(1..10).await;
    let other = subject.container("billing").await;
    let others = other.bus();
    let two = others.subscribe_with(&stage.topic, owning(3), handler("two"));
    let two = two.await.must("subscribing");
    let (patience, busy) = (subject.patience(), stage.partition_of(0));
    let name = one.consumer().to_string();
    let ending = tokio::spawn(async move { one.unsubscribe(patience).await });
    stage
        .until("the second to own the idle partitions", async || {
            let owners = stage.owners_of().await;
            let is_first = |(at, owner): &(u16, String)| (*owner == name) == (*at == busy);
            (owners.len() == 4 && owners.iter().all(is_first)).then_some(())
        })
        .await;
    stage.publish_keys(10..20).await;
    let (kept, moved): (Vec<u32>, Vec<u32>) = (1..20).partition(|n| stage.partition_of(*n) == busy);
    let mut handled = async |wanted: &[u32]| {
        let mut calls = stage.some(&mut begun, wanted.len()).await;
        calls.sort_unstable();
        let wanted: Vec<_> = wanted.iter().map(|n| (*n, 1, "two")).collect();
        assert_eq!(calls, wanted);
    };
    handled(&moved).await;
    assert!(!ending.is_finished());
    go.close();
    handled(&kept).await;
    let report = ending.await.must("the end");
    assert!(report.is_clean(), "{report:?}");
    stage.drained().await;
    let report = two.unsubscribe(patience).await;
    assert!(report.is_clean(), "{report:?}");
    stage.end(&other).await;
    stage.finish().await;
}

/// An owner whose partition was taken settles nothing more; its message comes again, as the next attempt.
pub async fn a_former_owner_settles_nothing<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let made = stage
        .store
        .topics()
        .ensure_topic(&stage.topic, <_>::default());
    made.await.must("creating the topic");
    stage.publish_keys(0..1).await;
    let (sender, mut begun) = mpsc::unbounded_channel();
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let waits = std::sync::Arc::clone(&go);
    let handler = move |delivery: Delivery| {
        let (sender, go) = (sender.clone(), std::sync::Arc::clone(&waits));
        async move {
            let token = delivery.fence().map(|fence| fence.token);
            let _ = sender.send((delivery.attempt(), token));
            if delivery.attempt() == 1 {
                go.notified().await;
            }
            Outcome::Ack
        }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, owning(5), handler).await;
    let subscription = made.must("subscribing");
    let (attempt, token) = stage.next(&mut begun).await;
    assert_eq!(attempt, 1);
    let token = token.must("the fence");
    let thief = stage.member("thief");
    stage.take_cursor(&thief, token + 3).await;
    go.notify_one();
    let (attempt, next) = stage.next(&mut begun).await;
    assert_eq!(attempt, 2, "the first one was not acknowledged");
    assert!(next.must("the fence") > token + 3);
    stage.drained().await;
    let report = subscription.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.finish().await;
}
