//! Metrics.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use redstart::extract::Payload;
use redstart::{
    Delivery, Envelope, Outcome, RetryPolicy, SubscribeOptions, dead_letters::DeadLetterRetention,
};

use crate::support::{PATIENCE, Server, container, drained, finish, group, status, topic, until};

/// The counts since the last call, by name and labels.
fn look(snapshotter: &Snapshotter) -> std::collections::BTreeMap<String, DebugValue> {
    let name = |key: &metrics::Key| {
        let mut labels: Vec<String> = key
            .labels()
            .filter(|label| !matches!(label.key(), "topic" | "group"))
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        format!("{}{{{}}}", key.name(), labels.join(","))
    };
    let all = snapshotter.snapshot().into_vec();
    all.into_iter()
        .map(|(key, _, _, value)| (name(key.key()), value))
        .collect()
}

#[tokio::test]
async fn every_path_of_a_message_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // This test and all its tasks run on one thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let retry = RetryPolicy::fixed(Duration::from_millis(5)).with_max_attempts(2);
    let options = SubscribeOptions::new().with_retry(retry);
    let _subscription = bus
        .subscribe_with(
            &orders,
            options,
            |Payload(n): Payload<u32>, delivery: Delivery| async move {
                match (n, delivery.attempt()) {
                    (0, _) => Outcome::retry("always"),
                    (1, 1) => Outcome::retry("once"),
                    (2, _) => Outcome::dead_letter("never"),
                    _ => Outcome::Ack,
                }
            },
        )
        .await
        .unwrap();
    for n in 0..10_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
    }
    let huge = Envelope::new("n", &"x".repeat(2 * 1024 * 1024)).unwrap();
    bus.publish(&orders, &huge).await.unwrap_err();
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;

    let seen = look(&snapshotter);
    let count = |name: &str| match seen.get(name) {
        Some(DebugValue::Counter(count)) => *count,
        other => panic!("{name}: {other:?} in {:?}", seen.keys()),
    };
    assert_eq!(count("redstart_published_total{}"), 10);
    assert_eq!(count("redstart_publish_failed_total{kind=too-large}"), 1);
    assert_eq!(count("redstart_delivered_total{}"), 12);
    assert_eq!(count("redstart_settled_total{outcome=ack}"), 8);
    assert_eq!(count("redstart_settled_total{outcome=retry}"), 2);
    assert_eq!(count("redstart_settled_total{outcome=dead-letter}"), 2);
    assert_eq!(count("redstart_dead_letters_total{reason=exhausted}"), 1);
    assert_eq!(count("redstart_dead_letters_total{reason=rejected}"), 1);
    match &seen["redstart_handler_duration_seconds{}"] {
        DebugValue::Histogram(seconds) => assert_eq!(seconds.len(), 12),
        other => panic!("{other:?}"),
    }
    match &seen["redstart_queue_seconds{}"] {
        DebugValue::Histogram(seconds) => {
            assert_eq!(seconds.len(), 10, "first attempts");
            assert!(seconds.iter().all(|one| (0.0..60.0).contains(&one.0)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(&seen["redstart_in_flight{}"], DebugValue::Gauge(left) if left.0 == 0.0));
}

#[tokio::test]
async fn trimmed_entries_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders, billing) = (container.bus(), topic("orders"), group("billing"));
    let handler = |_: Payload<u32>, _: Delivery| async { Outcome::dead_letter("never") };
    let subscription = bus.subscribe(&orders, handler).await.unwrap();
    for n in 0..12_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
    }
    assert_eq!(drained(&container, &orders, &billing).await.dead, 12);
    subscription.unsubscribe(PATIENCE).await;
    let retention = DeadLetterRetention::forever().with_max_count(5);
    let options = SubscribeOptions::new().with_dead_letter_retention(retention);
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    until("the oldest to be removed", async || {
        (status(&container, &orders, &billing).await.dead == 5).then_some(())
    })
    .await;
    finish(container).await;

    let seen = look(&snapshotter);
    let removed = &seen["redstart_dead_letters_trimmed_total{}"];
    assert!(matches!(removed, DebugValue::Counter(7)), "{removed:?}");
}

#[tokio::test]
async fn operator_actions_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders, billing) = (container.bus(), topic("orders"), group("billing"));
    let retry = RetryPolicy::fixed(Duration::from_secs(86_400));
    let options = SubscribeOptions::new().with_retry(retry);
    let handler = |_: Payload<u32>, _: Delivery| async { Err::<(), _>("no") };
    let subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    for n in 0..5_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
    }
    until("the failures", async || {
        (status(&container, &orders, &billing).await.scheduled == 5).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
    let retries = container.retries();
    let waiting = retries.list(&orders, &billing, None, 10).await.unwrap();
    let ids: Vec<_> = waiting.iter().map(|retry| retry.id).collect();
    let chosen = retries.run_now(&orders, &billing, &ids[..2]).await.unwrap();
    assert_eq!(chosen.moved, ids[..2]);
    let chosen = retries.cancel(&orders, &billing, &ids[1..]).await.unwrap();
    assert_eq!(
        (&chosen.moved[..], &chosen.missing[..]),
        (&ids[2..], &ids[1..2])
    );
    let admin = container.topics();
    let removal = admin.remove_group(&orders, &billing, false).await.unwrap();
    assert!(!removal.removed);
    let removal = admin.remove_group(&orders, &billing, true).await.unwrap();
    assert!(
        removal.removed && removal.status.scheduled == 2,
        "{removal:?}"
    );
    admin
        .remove_group(&orders, &billing, true)
        .await
        .unwrap_err();
    finish(container).await;

    let seen = look(&snapshotter);
    let count = |name: &str| match seen.get(name) {
        Some(DebugValue::Counter(count)) => *count,
        other => panic!("{name}: {other:?} in {:?}", seen.keys()),
    };
    assert_eq!(count("redstart_retries_run_now_total{}"), 2);
    assert_eq!(count("redstart_retries_cancelled_total{}"), 3);
    assert_eq!(count("redstart_groups_removed_total{}"), 1);
}

#[tokio::test]
async fn a_retry_whose_message_was_removed_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let handler = |_: Payload<u32>, _: Delivery| async {
        Outcome::retry_after(Duration::from_secs(600), "later")
    };
    let _subscription = bus.subscribe(&orders, handler).await.unwrap();
    bus.publish(&orders, &Envelope::new("n", &1_u32).unwrap())
        .await
        .unwrap();
    until("the retry to be scheduled", async || {
        (status(&container, &orders, &group("billing"))
            .await
            .scheduled
            == 1)
            .then_some(())
    })
    .await;
    let bodies: Vec<String> = server.command(&["KEYS", "{shop:orders}:group:billing:retry:*"]);
    let _: u64 = server.command(&["DEL", &bodies[0]]);
    let _: u64 = server.command(&[
        "ZADD",
        "{shop:orders}:group:billing:retry",
        "XX",
        "1",
        &server.command::<Vec<String>>(&["ZRANGE", "{shop:orders}:group:billing:retry", "0", "0"])
            [0],
    ]);
    until("the promoter to count it", async || {
        let lost = look(&snapshotter).remove("redstart_lost_entries_total{}");
        (lost == Some(DebugValue::Counter(1))).then_some(())
    })
    .await;
    finish(container).await;
}
