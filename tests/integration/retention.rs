//! Retention and the backlog limit.

use std::sync::Arc;
use std::time::Duration;

use redstart::extract::Payload;
use redstart::store::Partition;
use redstart::{
    Container, Delivery, Envelope, ErrorKind, SubscribeOptions, Topic,
    topics::{Retention, StartFrom, TopicSettings},
};
use tokio::sync::Semaphore;

use crate::support::{Server, container, drained, finish, group, publish, status, topic, until};

async fn length(container: &Container, of: &Topic) -> u64 {
    container.topics().get(of).await.unwrap().unwrap().entries
}

async fn consume(container: &Container, on: &Topic, name: &str) {
    let options = SubscribeOptions::new().with_group(group(name));
    let _subscription = container
        .bus()
        .subscribe_with(on, options, |_: Payload<u32>, _: Delivery| async {})
        .await
        .unwrap();
}

// A node of a stream holds 100 entries, and only whole nodes are removed.
const NODE: u64 = 100;

#[tokio::test]
async fn entries_that_every_group_settled_are_removed() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 0..1000).await;
    consume(&container, &orders, "billing").await;
    until("the settled to be removed", async || {
        (length(&container, &orders).await <= NODE).then_some(())
    })
    .await;
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn without_a_group_entries_wait_and_the_slowest_group_holds_them() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    // Several calls, each of which may run retention.
    for _ in 0..5 {
        publish(&container, &orders, 0..200).await;
    }
    assert_eq!(length(&container, &orders).await, 1000);
    let gate = Arc::new(Semaphore::new(0));
    let door = Arc::clone(&gate);
    let options = SubscribeOptions::new()
        .with_group(group("slow"))
        .with_concurrency(1)
        .with_prefetch(1);
    let slow = container
        .bus()
        .subscribe_with(&orders, options, move |_: Payload<u32>, _: Delivery| {
            let door = Arc::clone(&door);
            async move { door.acquire().await.unwrap().forget() }
        })
        .await
        .unwrap();
    consume(&container, &orders, "quick").await;
    drained(&container, &orders, &group("quick")).await;
    // Whatever runs retention now finds the slow group's first entry.
    for _ in 0..3 {
        publish(&container, &orders, 0..1).await;
    }
    drained(&container, &orders, &group("quick")).await;
    assert_eq!(length(&container, &orders).await, 1003);
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    drained(&container, &orders, &group("slow")).await;
    until("the settled to be removed", async || {
        (length(&container, &orders).await <= NODE).then_some(())
    })
    .await;
    drop(slow);
    finish(container).await;
}

#[tokio::test]
async fn retention_by_length_keeps_the_newest_whether_settled_or_not() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let settings = TopicSettings::default().with_retention(Retention::Count(300));
    container.topics().create(&orders, settings).await.unwrap();
    publish(&container, &orders, 0..1000).await;
    consume(&container, &orders, "billing").await;
    let kept = until("the old to be removed", async || {
        Some(length(&container, &orders).await).filter(|length| *length < 300 + NODE)
    })
    .await;
    assert!(kept >= 300, "{kept} kept");
    drained(&container, &orders, &group("billing")).await;
    publish(&container, &orders, 0..500).await;
    let kept = until("the old to be removed again", async || {
        drained(&container, &orders, &group("billing")).await;
        Some(length(&container, &orders).await).filter(|length| *length < 300 + NODE)
    })
    .await;
    assert!(kept >= 300, "{kept} kept");
    finish(container).await;
}

#[tokio::test]
async fn retention_by_age_removes_old_settled_entries() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let day = Duration::from_secs(86_400);
    let settings = TopicSettings::default().with_retention(Retention::Age(day));
    container.topics().create(&orders, settings).await.unwrap();
    for n in 0..300 {
        let id = format!("1000-{n}");
        let body = format!(r#"{{"type":"n","payload":{n}}}"#);
        let _: String = server.command(&["XADD", "{shop:orders}:log", &id, "json", &body]);
    }
    publish(&container, &orders, 0..300).await;
    consume(&container, &orders, "billing").await;
    let kept = until("the old to be removed", async || {
        Some(length(&container, &orders).await).filter(|length| *length <= 300 + NODE)
    })
    .await;
    assert!(kept >= 300, "{kept} kept");
    finish(container).await;
}

#[tokio::test]
async fn settings_are_fixed_when_a_topic_is_created() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (admin, settings) = (container.topics(), TopicSettings::default());
    let short = settings
        .with_retention(Retention::Count(5))
        .with_backlog_limit(9);
    admin.create(&orders, short).await.unwrap();
    admin.create(&orders, short).await.unwrap();
    publish(&container, &orders, 0..1).await;
    let error = admin.create(&orders, settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("length:5"), "{error}");
    assert_eq!(admin.get(&orders).await.unwrap().unwrap().settings, short);
    assert_eq!(admin.get(&topic("none")).await.unwrap(), None);
}

#[tokio::test]
async fn a_full_backlog_is_a_clear_error_that_ends_when_groups_catch_up() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let settings = TopicSettings::default().with_backlog_limit(80);
    container.topics().create(&orders, settings).await.unwrap();
    let all: Vec<Envelope> = (0..100).map(|n| Envelope::new("n", &n).unwrap()).collect();
    let results = container.bus().publish_all(&orders, &all).await;
    let published = results.iter().take_while(|result| result.is_ok()).count();
    assert!((80..=90).contains(&published), "{published} published");
    for result in &results[published..] {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BacklogFull);
        assert!(error.is_retryable());
        assert!(error.to_string().contains("backlog full"), "{error}");
    }
    assert_eq!(length(&container, &orders).await, published as u64);
    consume(&container, &orders, "billing").await;
    drained(&container, &orders, &group("billing")).await;
    until("publishing to work again", async || {
        container.bus().publish(&orders, &all[0]).await.ok()
    })
    .await;
    finish(container).await;
}

/// Redis's facts about the only group of a log.
fn lag_by_redis(server: &Server) -> Option<u64> {
    let groups: Vec<std::collections::HashMap<String, redis::Value>> =
        server.command(&["XINFO", "GROUPS", "{shop:orders}:log"]);
    match groups[0]["lag"] {
        redis::Value::Int(lag) => Some(lag.try_into().unwrap()),
        _ => None,
    }
}

/// A topic on which `billing` begins behind an entry, and settles whatever `work` publishes, before
/// the server restarts: Redis knows how many such a group was given, and forgets it then.
async fn settled_before_a_restart(
    server: &mut Server,
    settings: TopicSettings,
    work: impl AsyncFn(&Container),
) -> Container {
    let body = r#"{"type":"n","payload":0}"#;
    let _: String = server.command(&["XADD", "{shop:orders}:log", "*", "json", body]);
    let (before, orders) = (container(server).await, topic("orders"));
    let admin = before.topics();
    admin.create(&orders, settings).await.unwrap();
    let options = SubscribeOptions::new().with_start(StartFrom::End);
    let handler = |_: Payload<serde_json::Value>, _: Delivery| async {};
    let bus = before.bus();
    let subscribed = bus.subscribe_with(&orders, options, handler).await;
    let _subscription = subscribed.unwrap();
    work(&before).await;
    drained(&before, &orders, &group("billing")).await;
    finish(before).await;
    server.restart();
    container(server).await
}

#[tokio::test]
async fn a_group_that_keeps_up_does_not_lag_after_a_restart() {
    let (mut server, orders, billing) = (Server::start(), topic("orders"), group("billing"));
    let settings = TopicSettings::default()
        .with_retention(Retention::Count(100_000))
        .with_backlog_limit(300);
    let after = settled_before_a_restart(&mut server, settings, async |before| {
        for _ in 0..4 {
            publish(before, &topic("orders"), 0..100).await;
            drained(before, &topic("orders"), &group("billing")).await;
        }
    })
    .await;
    // Later servers count well after a restart; the promise is the same on all of them.
    let info: String = server.command(&["INFO", "server"]);
    let miscounts = info.contains("redis_version:7.0.");
    if miscounts {
        assert_eq!(lag_by_redis(&server), Some(400), "this Redis counts well");
    }
    assert_eq!(status(&after, &orders, &billing).await.lag, 0);
    // The backlog has free space, whatever Redis reports.
    publish(&after, &orders, 0..100).await;
    assert_eq!(status(&after, &orders, &billing).await.lag, 100);
    consume(&after, &orders, "billing").await;
    drained(&after, &orders, &billing).await;
    if miscounts {
        assert_eq!(lag_by_redis(&server), Some(400), "and it does not mend");
    }
    finish(after).await;
}

#[tokio::test]
async fn retention_by_length_keeps_its_length_after_a_restart() {
    let (mut server, orders) = (Server::start(), topic("orders"));
    let settings = TopicSettings::default().with_retention(Retention::Count(1000));
    let after = settled_before_a_restart(&mut server, settings, async |before| {
        publish(before, &topic("orders"), 0..1000).await;
    })
    .await;
    // The consumers are away for a moment: 150 entries wait, of which Redis says 1150.
    publish(&after, &orders, 0..150).await;
    // Retention runs at every measurement of the backlog, and once a second in every consumer.
    let retained = after
        .store()
        .topics()
        .trim(&Partition::of(&orders))
        .await
        .unwrap();
    assert!(retained.length >= 1000, "{} kept", retained.length);
    finish(after).await;
}

#[tokio::test]
async fn a_restart_does_not_fill_the_backlog_of_heavy_entries() {
    let mut server = Server::start();
    let settings = TopicSettings::default()
        .with_retention(Retention::Count(100_000))
        .with_backlog_limit(300);
    let heavy = async |container: &Container, count: usize| {
        let body = "x".repeat(30 * 1024);
        for _ in 0..count {
            let envelope = Envelope::new("n", &body).unwrap();
            let bus = container.bus();
            bus.publish(&topic("orders"), &envelope).await.unwrap();
        }
    };
    let after = settled_before_a_restart(&mut server, settings, async |before| {
        for _ in 0..4 {
            heavy(before, 100).await;
            drained(before, &topic("orders"), &group("billing")).await;
        }
    })
    .await;
    // Some wait, far fewer than the limit of 300.
    heavy(&after, 60).await;
    finish(after).await;
}

#[tokio::test]
async fn the_lag_of_heavy_entries_behind_light_ones_is_cheap_to_count() {
    let server = Server::start_with(&["--appendonly", "no"]);
    let orders = topic("orders");
    let container = container(&server).await;
    let options = SubscribeOptions::new();
    let subscription = container
        .bus()
        .subscribe_with(&orders, options, |_: Payload<u32>, _: Delivery| async {})
        .await
        .unwrap();
    let _ = subscription.unsubscribe(Duration::from_secs(5)).await;
    publish(&container, &orders, 0..3).await;
    let heavy = "x".repeat(1 << 20);
    for _ in 0..100 {
        let _: String = server.command(&["XADD", "{shop:orders}:log", "*", "json", &heavy]);
    }
    let number = |name: &str| -> u64 {
        let info: String = server.command(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
    };
    let before = number("used_memory:");
    status(&container, &orders, &group("billing")).await;
    let more = number("used_memory_peak:").saturating_sub(before);
    assert!(more < 16 << 20, "{} MiB were copied", more >> 20);
    finish(container).await;
}
