//! Order: of a topic, of a lane, of a handler at concurrency 1.

use tokio::sync::mpsc;

use super::Subject;
use super::support::{Must as _, SOON, Stage, later, numbers};
use crate::api::SubscribeOptions;

fn one_by_one() -> SubscribeOptions {
    SubscribeOptions::new().with_concurrency(1)
}

/// One handler at a time sees messages in the order in which they were published.
pub async fn a_single_handler_sees_the_order_of_publishing<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..150).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(one_by_one(), sender).await;
    let bus = stage.container.bus();
    for n in 150..300 {
        let envelope = super::support::number(n);
        bus.publish(&stage.topic, &envelope)
            .await
            .must("publishing");
    }
    let seen = stage.some(&mut received, 300).await;
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    stage.finish().await;
}

/// The order holds across subscriptions that end and begin.
pub async fn the_order_outlives_a_subscription<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..60).await;
    let mut seen = Vec::new();
    while seen.len() < 60 {
        let (sender, mut received) = mpsc::unbounded_channel();
        let subscription = stage.subscribe(one_by_one().with_prefetch(1), sender).await;
        seen.push(stage.next(&mut received).await);
        let report = subscription.unsubscribe(subject.patience()).await;
        assert!(report.is_clean(), "{report:?}");
        while let Ok(n) = received.try_recv() {
            seen.push(n);
        }
    }
    // What was given back comes to the next one together with what is new; nothing is
    // missed and nothing comes twice.
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
    stage.finish().await;
}

/// Fetch after fetch goes through the log in its order.
pub async fn fetches_follow_the_log<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..100).await;
    let mut hand = stage.hand("one").await;
    let mut seen = Vec::new();
    for count in [1, 9, 40, 50] {
        seen.extend(numbers(&stage.fetch(&mut hand, count).await));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

/// The redelivery stream keeps the order of its entries.
pub async fn the_redelivery_stream_keeps_its_order<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..20).await;
    let mut hand = stage.hand("one").await;
    let mut expected = Vec::new();
    for fetched in stage.fetch(&mut hand, 20).await.iter().rev() {
        let redelivery = fetched.receipt.id.to_string();
        let settlement = later(fetched.receipt, SOON, &redelivery);
        stage.settle(&hand.member, &[settlement]).await;
        stage.promote(1).await;
        expected.push(redelivery);
    }
    let fetched = stage.fetch(&mut hand, 20).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let seen: Vec<_> = fetched.iter().map(|one| text(&one.fields[0].1)).collect();
    assert_eq!(seen, expected);
}
