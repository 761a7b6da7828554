//! Shutdown: finish, flush, give back, report; lose nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::Subject;
use super::support::{DAY, Must as _, Stage};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::ErrorKind;
use crate::extract::Payload;
use crate::store::Partition;

/// Handlers that run may finish, may publish, and are settled.
pub async fn running_handlers_finish_and_are_settled<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut received) = mpsc::unbounded_channel();
    let (door, bus) = (Arc::clone(&gate), stage.container.bus());
    let next = super::support::topic("next");
    let to = next.clone();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let (door, bus, to) = (Arc::clone(&door), bus.clone(), to.clone());
        let _ = sender.send(n);
        async move {
            door.acquire().await.must("the gate").forget();
            let envelope = delivery
                .envelope()
                .follow_up_as("n", &n)
                .must("an envelope");
            bus.publish(&to, &envelope).await.map(|_| ())
        }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe(&stage.topic, handler).await;
    let _subscription = made.must("subscribing");
    stage.publish(0..3).await;
    stage.some(&mut received, 3).await;
    let (container, patience) = (stage.container.clone(), subject.patience());
    let stopping = tokio::spawn(async move { container.shutdown(patience).await });
    stage
        .until("reading to stop", async || {
            let idle = |_: Payload<u32>, _: Delivery| async {};
            bus.subscribe(&super::support::topic("any"), idle)
                .await
                .err()
        })
        .await;
    gate.add_permits(3);
    let report = stopping.await.must("the shutdown");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);
    let published = stage
        .store
        .inspect()
        .status(&Partition::of(&next))
        .await
        .must("asking");
    assert_eq!(published.must("the topic").entries, 3);
}

/// What no handler has begun is given back: uncounted, claimable at once, in its order. So is what a
/// handler did not finish in time.
pub async fn an_unstarted_message_is_released_uncounted<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..10).await;
    let begun = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&begun);
    let options = SubscribeOptions::new()
        .with_concurrency(1)
        .with_prefetch(9)
        .with_lease(DAY);
    let handler = move |_: Payload<u32>, _: Delivery| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>()
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    stage
        .until("some to wait behind the first", async || {
            let held = stage.status().await.in_flight;
            (held > 2 && begun.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
    let report = stage.container.shutdown(Duration::from_millis(20)).await;
    let report = &report.subscriptions[0];
    assert!(report.released >= 2, "{report:?}");
    assert_eq!((report.cancelled, report.unsettled), (1, 0), "{report:?}");
    assert_eq!(
        begun.load(Ordering::SeqCst),
        1,
        "nothing began after the stop"
    );

    let again = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((n, delivery.attempt()));
        async {}
    };
    let options = SubscribeOptions::new().with_concurrency(1).with_lease(DAY);
    let bus = again.container.bus();
    let made = bus.subscribe_with(&again.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    let seen = again.some(&mut received, 10).await;
    assert_eq!(seen, (0..10).map(|n| (n, 1)).collect::<Vec<_>>());
    again.drained().await;
    again.finish().await;
}

/// A reader that waits does not hold the shutdown up.
pub async fn an_idle_subscription_ends_at_once<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, _received) = mpsc::unbounded_channel();
    let subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    let ending = subscription.unsubscribe(DAY);
    let report = tokio::time::timeout(subject.patience(), ending).await;
    let report = report.must("the end of the subscription");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        subscription.unsubscribe(DAY).await,
        report,
        "the same again"
    );
    assert_eq!(stage.status().await.consumers, 0, "the consumer is removed");
    stage.finish().await;
}

/// However subscriptions come and go while messages come in, each is handled exactly once.
pub async fn nothing_is_lost_while_subscriptions_come_and_go<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (bus, topic) = (stage.container.bus(), stage.topic.clone());
    let publishing = tokio::spawn(async move {
        for n in 0..200 {
            let envelope = super::support::number(n);
            bus.publish(&topic, &envelope).await.must("publishing");
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    });
    let (sender, mut received) = mpsc::unbounded_channel();
    while !publishing.is_finished() {
        let sender = sender.clone();
        let subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        let report = subscription.unsubscribe(subject.patience()).await;
        assert!(report.is_clean(), "{report:?}");
    }
    publishing.await.must("the publisher");
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    let mut seen = stage.some(&mut received, 200).await;
    stage.drained().await;
    stage.finish().await;
    while let Ok(n) = received.try_recv() {
        seen.push(n);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
}

/// After the end subscribing says so.
pub async fn a_closed_subscriber_returns_an_error<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.finish().await;
    let handler = |_: Payload<u32>, _: Delivery| async {};
    let error = stage.container.bus().subscribe(&stage.topic, handler).await;
    assert_eq!(error.err().must("an error").kind(), ErrorKind::Closed);
    let report = stage.container.shutdown(Duration::ZERO).await;
    assert!(report.subscriptions.is_empty(), "nothing is left to end");
}
