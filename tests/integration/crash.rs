//! Consumers that crash, freeze or lose their lease.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, RetryPolicy, SubscribeOptions, dead_letters::Reason};
use tokio::sync::mpsc;

use crate::support::{
    PATIENCE, Server, container, drained, finish, group, letters, next, publish, some, status,
    steadily, topic, until,
};

const DAY: Duration = Duration::from_secs(86_400);
const LOG: &str = "{shop:orders}:log";

/// A consumer that reads and never settles.
fn ghost(server: &Server, count: &str) {
    let _: redis::Value = server.command(&["XGROUP", "CREATE", LOG, "billing", "0"]);
    let _: redis::Value = server.command(&[
        "XREADGROUP",
        "GROUP",
        "billing",
        "ghost",
        "COUNT",
        count,
        "STREAMS",
        LOG,
        ">",
    ]);
}

#[tokio::test]
async fn messages_of_a_crashed_consumer_return_when_the_lease_ends_and_count_an_attempt() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 0..40).await;
    ghost(&server, "30");
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_lease(Duration::from_millis(500));
    let _subscription = container
        .bus()
        .subscribe_with(
            &orders,
            options,
            move |Payload(n): Payload<u32>, delivery: Delivery| {
                let _ = sender.send((n, delivery.attempt()));
                async {}
            },
        )
        .await
        .unwrap();
    let seen = some(&mut received, 40).await;
    let expected: Vec<_> = (0..40).map(|n| (n, if n < 30 { 2 } else { 1 })).collect();
    assert_eq!(seen, expected);
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn a_message_that_crashes_every_consumer_ends_as_a_dead_letter() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 7..8).await;
    ghost(&server, "1");
    let pending: Vec<(String, String, u64, u64)> =
        server.command(&["XPENDING", LOG, "billing", "-", "+", "1"]);
    let _: redis::Value = server.command(&[
        "XCLAIM",
        LOG,
        "billing",
        "ghost",
        "0",
        &pending[0].0,
        "IDLE",
        "100000",
        "RETRYCOUNT",
        "3",
    ]);
    let options = SubscribeOptions::new()
        .with_lease(Duration::from_millis(500))
        .with_retry(RetryPolicy::default().with_max_attempts(3));
    let _subscription = container
        .bus()
        .subscribe_with(
            &orders,
            options,
            |Payload(n): Payload<u32>, _: Delivery| async move {
                assert_eq!(n, 0, "the handler is not to be called again");
            },
        )
        .await
        .unwrap();
    let letter = until("the dead letter", async || {
        letters(&container, &orders, &group("billing")).await.pop()
    })
    .await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Crashed, 3));
    assert_eq!(letter.history.failures.len(), 1);
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn a_handler_that_takes_longer_than_its_lease_keeps_it() {
    let server = Server::start();
    let (one, two) = (container(&server).await, container(&server).await);
    let orders = topic("orders");
    let lease = Duration::from_secs(2);
    let (sender, mut received) = mpsc::unbounded_channel();
    for container in [&one, &two] {
        let sender = sender.clone();
        let options = SubscribeOptions::new().with_lease(lease);
        let handler = move |_: Payload<u32>, delivery: Delivery| {
            let sender = sender.clone();
            async move {
                tokio::time::sleep(lease * 2).await;
                let extended = delivery.extend_lease().await.is_ok();
                let _ = sender.send(extended && !delivery.is_cancelled());
            }
        };
        let bus = container.bus();
        let made = bus.subscribe_with(&orders, options, handler).await;
        let _subscription = made.unwrap();
    }
    steadily(&one, lease, "one call that keeps its lease", async || {
        publish(&one, &orders, 7..8).await;
        let mut kept = vec![next(&mut received).await];
        drained(&one, &orders, &group("billing")).await;
        kept.extend(std::iter::from_fn(|| received.try_recv().ok()));
        match kept == [true] {
            true => Ok(()),
            false => Err(format!("the calls kept their leases: {kept:?}")),
        }
    })
    .await;
    finish(one).await;
    finish(two).await;
}

#[tokio::test]
async fn a_lost_lease_cancels_the_delivery_and_its_late_failure_is_dropped() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_lease(Duration::from_millis(300));
    let _subscription = container
        .bus()
        .subscribe_with(
            &orders,
            options,
            move |_: Payload<u32>, delivery: Delivery| {
                let sender = sender.clone();
                async move {
                    let _ = sender.send("begun");
                    delivery.cancelled().await;
                    assert!(delivery.extend_lease().await.is_err());
                    let _ = sender.send("cancelled");
                    Err::<(), _>("too late")
                }
            },
        )
        .await
        .unwrap();
    let published = {
        let envelope = Envelope::new("n", &7).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap()
    };
    assert_eq!(next(&mut received).await, "begun");
    let id = published.id.to_string();
    // The thief's own lease never ends, as far as this test goes.
    let thief: Vec<String> = server.command(&[
        "XCLAIM",
        LOG,
        "billing",
        "thief",
        "0",
        &id,
        "TIME",
        "9999999999999",
        "JUSTID",
    ]);
    assert_eq!(thief, std::slice::from_ref(&id));
    assert_eq!(next(&mut received).await, "cancelled");
    finish(container).await;
    let pending: Vec<(String, String, u64, u64)> =
        server.command(&["XPENDING", LOG, "billing", "-", "+", "10"]);
    assert_eq!(pending.len(), 1);
    assert_eq!((&pending[0].0, pending[0].1.as_str()), (&id, "thief"));
    let retries: u64 = server.command(&["ZCARD", "{shop:orders}:group:billing:retry"]);
    assert_eq!(retries, 0);
}

/// The connection on which a subscription reads.
fn reader(server: &Server, consumer: &str) -> Option<String> {
    let list: String = server.command(&["CLIENT", "LIST"]);
    list.lines()
        .find(|line| line.contains(&format!("name=redstart:sub:{consumer} ")))
        .and_then(|line| line.split_whitespace().next()?.strip_prefix("id="))
        .map(str::to_owned)
}

#[tokio::test]
async fn entries_lost_with_a_connection_return_at_once_and_uncounted() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_lease(DAY);
    let subscription = container
        .bus()
        .subscribe_with(
            &orders,
            options,
            move |Payload(n): Payload<u32>, delivery: Delivery| {
                let _ = sender.send((n, delivery.attempt()));
                async {}
            },
        )
        .await
        .unwrap();
    publish(&container, &orders, 0..1).await;
    assert_eq!(next(&mut received).await, (0, 1));
    drained(&container, &orders, &group("billing")).await;

    // As if the reply to a read had been lost: the entries are pending for this consumer, and it
    // has never seen them. Its own blocked read is cut off first, so that it does not see them.
    let consumer = subscription.consumer().as_str();
    let mut raw = server.raw();
    redis::cmd("MULTI").exec(&mut raw).unwrap();
    let client = reader(&server, consumer).expect("the reader is connected");
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg("ID")
        .arg(&client)
        .exec(&mut raw)
        .unwrap();
    for n in 1..4_u32 {
        let body = format!(r#"{{"type":"n","payload":{n}}}"#);
        let mut add = redis::cmd("XADD");
        add.arg(LOG).arg("*").arg("json").arg(body);
        add.exec(&mut raw).unwrap();
    }
    let mut take = redis::cmd("XREADGROUP");
    take.arg("GROUP").arg("billing").arg(consumer);
    take.arg("STREAMS")
        .arg(LOG)
        .arg(">")
        .exec(&mut raw)
        .unwrap();
    redis::cmd("EXEC").exec(&mut raw).unwrap();

    assert_eq!(some(&mut received, 3).await, [(1, 1), (2, 1), (3, 1)]);
    drained(&container, &orders, &group("billing")).await;
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    finish(container).await;
}

#[tokio::test]
async fn a_reader_whose_connection_is_cut_again_and_again_loses_nothing() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    let consumer = subscription.consumer().as_str();
    for round in 0..5_u32 {
        publish(&container, &orders, round * 100..round * 100 + 100).await;
        if let Some(client) = reader(&server, consumer) {
            let _: u64 = server.command(&["CLIENT", "KILL", "ID", &client]);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 500 {
        seen.insert(next(&mut received).await);
    }
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn every_start_has_a_fresh_name_and_an_empty_consumer_is_removed() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let subscription = container
            .bus()
            .subscribe(&orders, |_: Payload<u32>, _: Delivery| async {})
            .await
            .unwrap();
        publish(&container, &orders, 0..1).await;
        drained(&container, &orders, &group("billing")).await;
        names.insert(subscription.consumer().clone());
        assert!(subscription.unsubscribe(PATIENCE).await.is_clean());
    }
    assert_eq!(names.len(), 3);
    let left = status(&container, &orders, &group("billing")).await;
    assert_eq!(left.consumers, 0);
    finish(container).await;
}

#[tokio::test]
async fn a_takeover_larger_than_the_capacity_proceeds_as_capacity_frees() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 0..1000).await;
    ghost(&server, "1000");
    // A takeover of entries read long ago does not wait.
    let pending: Vec<(String, String, u64, u64)> =
        server.command(&["XPENDING", LOG, "billing", "-", "+", "1000"]);
    let mut claim = redis::cmd("XCLAIM");
    claim.arg(LOG).arg("billing").arg("ghost").arg(0);
    for (id, ..) in &pending {
        claim.arg(id);
    }
    let mut raw = server.raw();
    claim
        .arg("IDLE")
        .arg(999_999_999)
        .arg("JUSTID")
        .exec(&mut raw)
        .unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new()
        .with_concurrency(4)
        .with_prefetch(4)
        .with_lease(DAY);
    let _subscription = container
        .bus()
        .subscribe_with(
            &orders,
            options,
            move |Payload(n): Payload<u32>, _: Delivery| {
                let _ = sender.send(n);
                async {}
            },
        )
        .await
        .unwrap();
    // A tick is a second and takes ten: at that pace it would take longer than the patience.
    let seen = some(&mut received, 1000).await;
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[test]
fn failures_that_a_dead_process_held_back_count_and_no_attempt_that_it_did_not_begin() {
    let server = Server::start();
    // The mark counts the next attempt, unless that is the last one.
    for (name, most, mark, next_attempt) in [("orders", 5, 2_000_002, 3), ("mail", 2, 2_000_001, 2)]
    {
        let (topic, retry) = (topic(name), RetryPolicy::fixed(Duration::from_secs(50)));
        let options = SubscribeOptions::new()
            .with_hold_back(Duration::from_secs(60))
            .with_lease(Duration::from_millis(500))
            .with_retry(retry.with_max_attempts(most));
        let dying = tokio::runtime::Runtime::new().unwrap();
        let _container = dying.block_on(async {
            let container = container(&server).await;
            publish(&container, &topic, 0..1).await;
            let fails = async |_: Payload<u32>| Err::<(), _>("disk full");
            let bus = container.bus();
            let made = bus.subscribe_with(&topic, options.clone(), fails);
            let _subscription = made.await.unwrap();
            let log = format!("{{shop:{name}}}:log");
            until("the failure to be noted", async || {
                let pending: Vec<(String, String, u64, u64)> =
                    server.command(&["XPENDING", &log, "billing", "-", "+", "1"]);
                (pending.first()?.3 == mark).then_some(())
            })
            .await;
            container
        });
        // Everything that the process had in memory ends with it.
        drop(dying);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let container = container(&server).await;
            let (sender, mut received) = mpsc::unbounded_channel();
            let handler = move |_: Payload<u32>, delivery: Delivery| {
                let _ = sender.send(delivery.attempt());
                async {}
            };
            let bus = container.bus();
            let made = bus.subscribe_with(&topic, options, handler);
            let _subscription = made.await.unwrap();
            assert_eq!(next(&mut received).await, next_attempt, "of {most}");
            drained(&container, &topic, &group("billing")).await;
            finish(container).await;
        });
    }
}
