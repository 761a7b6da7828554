//! The server disappears, loses its data, refuses commands or freezes.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Envelope, ErrorKind, Outcome, RetryPolicy, SubscribeOptions, Topic,
};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::support::{Server, container, drained, finish, group, next, signal, some, topic, until};

/// Fails every message once, then sends each message to the test.
async fn subscribe(container: &Container, on: &Topic) -> UnboundedReceiver<u32> {
    let (sender, received) = mpsc::unbounded_channel();
    let retry = RetryPolicy::fixed(Duration::from_millis(5));
    let options = SubscribeOptions::new().with_retry(retry);
    let _subscription = container
        .bus()
        .subscribe_with(
            on,
            options,
            move |Payload(n): Payload<u32>, delivery: Delivery| {
                let again = delivery.envelope().failed_attempts() == 0;
                if !again {
                    let _ = sender.send(n);
                }
                async move {
                    if again {
                        return Outcome::retry("once");
                    }
                    Outcome::Ack
                }
            },
        )
        .await
        .unwrap();
    received
}

async fn publish(container: &Container, on: &Topic, n: u32) {
    let envelope = Envelope::new("n", &n).unwrap();
    until("publishing to work", async || {
        match container.bus().publish(on, &envelope).await {
            Ok(_) => Some(()),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                None
            }
        }
    })
    .await;
}

#[tokio::test]
async fn after_flushall_groups_come_back_and_nothing_published_since_is_missed() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let mut received = subscribe(&container, &orders).await;
    for round in 0..3 {
        publish(&container, &orders, round).await;
        assert_eq!(next(&mut received).await, round);
        drained(&container, &orders, &group("billing")).await;
        let _: String = server.command(&["FLUSHALL"]);
    }
    publish(&container, &orders, 99).await;
    assert_eq!(next(&mut received).await, 99);
    finish(container).await;
}

#[tokio::test]
async fn a_server_that_restarts_empty_gets_its_groups_back() {
    let mut server = Server::start_with(&["--appendonly", "no"]);
    let container = container(&server).await;
    let orders = topic("orders");
    let mut received = subscribe(&container, &orders).await;
    publish(&container, &orders, 1).await;
    assert_eq!(next(&mut received).await, 1);
    // The reader loses its connection and its group in one.
    server.restart();
    publish(&container, &orders, 2).await;
    assert_eq!(next(&mut received).await, 2);
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    finish(container).await;
}

#[tokio::test]
async fn after_script_flush_everything_works() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let mut received = subscribe(&container, &orders).await;
    for round in 0..5 {
        let _: String = server.command(&["SCRIPT", "FLUSH", "SYNC"]);
        publish(&container, &orders, round).await;
        assert_eq!(next(&mut received).await, round);
    }
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn a_server_that_restarts_loses_nothing_and_everyone_comes_back() {
    let mut server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let mut received = subscribe(&container, &orders).await;
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3_u32 {
        for n in 0..20 {
            publish(&container, &orders, round * 20 + n).await;
        }
        server.restart();
    }
    while seen.len() < 60 {
        seen.insert(next(&mut received).await);
    }
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn while_the_server_is_down_calls_fail_and_health_reports_it() {
    let mut server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let mut received = subscribe(&container, &orders).await;
    container.kv().set("a", &1).await.unwrap();
    assert!(container.health().await.ok);
    server.kill();
    until("health to show it", async || {
        let health = container.health().await;
        let reading = health
            .bus
            .reasons
            .iter()
            .any(|reason| reason.contains("orders/billing"));
        (reading && !health.bus.ok && !health.kv.ok && !health.ok).then_some(())
    })
    .await;
    let envelope = Envelope::new("n", &7).unwrap();
    let error = container
        .bus()
        .publish(&orders, &envelope)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.subject(), Some("orders"));
    for result in container
        .bus()
        .publish_all(&orders, &vec![envelope; 3])
        .await
    {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let error = crate::support::builder(&server)
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    server.start_again();
    publish(&container, &orders, 8).await;
    assert_eq!(next(&mut received).await, 8);
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn when_memory_is_full_publishing_is_refused_and_consumers_drain() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    for n in 0..50 {
        publish(&container, &orders, n).await;
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let envelope = Envelope::new("n", &7).unwrap();
    let error = container
        .bus()
        .publish(&orders, &envelope)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    // The group has to exist: creating one is a write that a full server refuses.
    let _subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(some(&mut received, 50).await, (0..50).collect::<Vec<_>>());
    drained(&container, &orders, &group("billing")).await;
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    publish(&container, &orders, 99).await;
    assert_eq!(next(&mut received).await, 99);
    finish(container).await;
}

#[tokio::test]
async fn a_frozen_server_makes_publishing_fail_as_unknown_and_comes_back() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let mut received = subscribe(&container, &orders).await;
    publish(&container, &orders, 1).await;
    assert_eq!(next(&mut received).await, 1);
    signal(server.pid(), "STOP");
    let envelope = Envelope::new("n", &2).unwrap();
    let error = container
        .bus()
        .publish(&orders, &envelope)
        .await
        .unwrap_err();
    signal(server.pid(), "CONT");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    publish(&container, &orders, 3).await;
    // The unknown one may have been published.
    let mut seen = next(&mut received).await;
    if seen == 2 {
        seen = next(&mut received).await;
    }
    assert_eq!(seen, 3);
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

/// The caller gives up while the connection is being opened. It may publish again, so the message
/// must not appear afterwards.
#[tokio::test]
async fn a_publish_that_was_dropped_before_it_was_sent_is_not_sent_later() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 0).await;
    let clients: String = server.command(&["CLIENT", "LIST"]);
    let publisher = clients
        .lines()
        .find(|line| line.contains("name=redstart:pub"))
        .and_then(|line| line.split(' ').find_map(|field| field.strip_prefix("id=")))
        .expect("the publisher's connection");
    let killed: u64 = server.command(&["CLIENT", "KILL", "ID", publisher]);
    assert_eq!(killed, 1);

    signal(server.pid(), "STOP");
    let bus = container.bus();
    let envelopes = [1, 2].map(|n| Envelope::new("n", &n).unwrap());
    let patient = tokio::spawn({
        let (bus, orders, envelope) = (bus.clone(), orders.clone(), envelopes[0].clone());
        async move { bus.publish(&orders, &envelope).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let dropped = bus.publish(&orders, &envelopes[1]);
    let gave_up = tokio::time::timeout(Duration::from_millis(200), dropped).await;
    signal(server.pid(), "CONT");
    assert!(gave_up.is_err(), "the server is frozen: {gave_up:?}");
    patient.await.unwrap().unwrap();
    publish(&container, &orders, 3).await;

    let mut received = subscribe(&container, &orders).await;
    let numbers = some(&mut received, 3).await;
    assert_eq!(numbers, [0, 1, 3]);
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_written_shows_in_health_and_is_not_lost() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let key = "{shop:orders}:group:billing:dead";
    let _: String = server.command(&["SET", key, "mine"]);
    let _subscription = container
        .bus()
        .subscribe(
            &orders,
            |Payload(n): Payload<u32>, _: Delivery| async move {
                if n == 7 {
                    return Outcome::dead_letter("never");
                }
                Outcome::Ack
            },
        )
        .await
        .unwrap();
    publish(&container, &orders, 7).await;
    until("health to show it", async || {
        let reasons = container.health().await.bus.reasons;
        let said = reasons.iter().any(|reason| {
            reason.contains("orders/billing: settling") && reason.contains("WRONGTYPE")
        });
        said.then_some(())
    })
    .await;
    // Others are acknowledged meanwhile.
    publish(&container, &orders, 8).await;
    until("the other to be acknowledged", async || {
        let pending: (u64, redis::Value, redis::Value, redis::Value) =
            server.command(&["XPENDING", "{shop:orders}:log", "billing"]);
        (pending.0 == 1).then_some(())
    })
    .await;
    let _: u64 = server.command(&["DEL", key]);
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 1);
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    finish(container).await;
}
