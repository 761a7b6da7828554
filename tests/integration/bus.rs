//! Publishing and subscribing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Delivery, Envelope, ErrorKind, Handler, Message, Outcome, SubscribeOptions,
    dead_letters::Reason, envelope::Codec, topics::StartFrom,
};
use serde::Deserialize;
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::support::{
    PATIENCE, Server, builder, container, drained, finish, group, letters, next, some, status,
    topic, until,
};

fn number(n: u32) -> Envelope {
    Envelope::new("number", &n).unwrap()
}

/// A handler that sends each message to the test.
fn sending(
    sender: UnboundedSender<u32>,
) -> impl Fn(Payload<u32>) -> std::future::Ready<()> + Send + Sync + 'static {
    move |Payload(n)| {
        let _ = sender.send(n);
        std::future::ready(())
    }
}

#[tokio::test]
async fn listener_race_old_fault_1_what_was_published_before_a_listener_reaches_it() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    for n in 0..50 {
        bus.publish(&orders, &number(n)).await.unwrap();
    }
    let all: Vec<Envelope> = (50..1500).map(number).collect();
    for result in bus.publish_all(&orders, &all).await {
        result.unwrap();
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = bus.subscribe(&orders, sending(sender)).await.unwrap();
    assert_eq!(
        some(&mut received, 1500).await,
        (0..1500).collect::<Vec<_>>()
    );
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
    assert!(received.try_recv().is_err(), "nothing came twice");
}

#[tokio::test]
async fn subscription_race_old_fault_2_of_concurrent_subscribes_exactly_one_wins() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let attempts = (0..20).map(|_| {
        let (bus, orders, sender) = (container.bus(), orders.clone(), sender.clone());
        tokio::spawn(async move { bus.subscribe(&orders, sending(sender)).await })
    });
    let mut won = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AlreadySubscribed);
                assert!(error.to_string().contains("orders/billing"), "{error}");
                assert!(error.to_string().contains("another group"), "{error}");
            }
        }
    }
    assert_eq!(won, 1);
    container.bus().publish(&orders, &number(7)).await.unwrap();
    assert_eq!(next(&mut received).await, 7);
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
    assert!(
        received.try_recv().is_err(),
        "one subscription, one delivery"
    );
}

#[tokio::test]
async fn envelope_confusion_old_fault_3_a_handler_gets_exactly_what_was_published() {
    let server = Server::start();
    for (name, codec) in [("msgpack", Codec::MessagePack), ("json", Codec::Json)] {
        let container = builder(&server).with_codec(codec).connect().await.unwrap();
        let (bus, orders) = (container.bus(), topic(name));
        let (sender, mut received) = mpsc::unbounded_channel();
        let _subscription = bus
            .subscribe(
                &orders,
                move |Payload(text): Payload<String>, delivery: Delivery| {
                    let sent = sender.send((text, delivery.envelope().clone()));
                    async move { sent.map_err(|_| "gone") }
                },
            )
            .await
            .unwrap();
        let envelope = Envelope::new("order.placed", "{\"key\":1,\"msg\":\"not a wrapping\"}")
            .unwrap()
            .with_tenant("shop-1")
            .with_key("order-7")
            .with_header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            );
        bus.publish(&orders, &envelope).await.unwrap();
        let (text, seen) = next(&mut received).await;
        assert_eq!(text, "{\"key\":1,\"msg\":\"not a wrapping\"}");
        assert_eq!(seen.id(), envelope.id());
        assert_eq!(seen.message_type(), "order.placed");
        assert_eq!(seen.created_at(), envelope.created_at());
        assert_eq!(seen.correlation(), envelope.correlation());
        assert_eq!(seen.tenant(), Some("shop-1"));
        assert_eq!(seen.key(), Some("order-7"));
        assert_eq!(seen.headers(), envelope.headers());
        assert_eq!(seen.failed_attempts(), 0);
        finish(container).await;
    }
}

#[tokio::test]
async fn error_propagation_old_fault_5_a_bad_handler_disturbs_no_other() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let named = |name: &str| SubscribeOptions::new().with_group(group(name));
    let _failing = bus
        .subscribe_with(
            &orders,
            named("failing"),
            |_: Payload<u32>, _: Delivery| async { Err::<(), _>("no") },
        )
        .await
        .unwrap();
    let _panicking = bus
        .subscribe_with(
            &orders,
            named("panicking"),
            |Payload(n): Payload<u32>, _: Delivery| async move {
                assert!(n > 1_000_000, "deliberate");
            },
        )
        .await
        .unwrap();
    let _stuck = bus
        .subscribe_with(
            &orders,
            named("stuck"),
            |_: Payload<u32>, delivery: Delivery| async move {
                delivery.cancelled().await;
            },
        )
        .await
        .unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let _good = bus
        .subscribe_with(&orders, named("good"), sending(sender))
        .await
        .unwrap();
    for n in 0..200 {
        bus.publish(&orders, &number(n)).await.unwrap();
    }
    assert_eq!(some(&mut received, 200).await, (0..200).collect::<Vec<_>>());
    let good = drained(&container, &orders, &group("good")).await;
    assert_eq!(good.dead, 0);
    let report = container.shutdown(Duration::from_millis(50)).await;
    assert_eq!(report.subscriptions.len(), 4);
}

struct Billing {
    sender: UnboundedSender<String>,
}

#[derive(Deserialize)]
struct Order(String);

impl Message for Order {
    const TYPE: &'static str = "order";
}

impl Handler for Billing {
    type Message = Order;
    type Output = Result<Outcome, std::fmt::Error>;

    async fn handle(&self, Order(order): Order, delivery: Delivery) -> Self::Output {
        let line = format!("{order} {}", delivery.attempt());
        self.sender.send(line).map_err(|_| std::fmt::Error)?;
        Ok(Outcome::Ack)
    }
}

#[tokio::test]
async fn a_named_struct_is_a_handler() {
    let server = Server::start();
    let container = container(&server).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let orders = topic("orders");
    let _subscription = container
        .bus()
        .subscribe(&orders, Billing { sender })
        .await
        .unwrap();
    let envelope = Envelope::new("order", "o-1").unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    assert_eq!(next(&mut received).await, "o-1 1");
    finish(container).await;
}

#[tokio::test]
async fn a_subscription_continues_where_the_last_one_ended() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let mut expected = 0;
    for _ in 0..3 {
        let (sender, mut received) = mpsc::unbounded_channel();
        let subscription = bus.subscribe(&orders, sending(sender)).await.unwrap();
        for n in expected..expected + 20 {
            bus.publish(&orders, &number(n)).await.unwrap();
        }
        let seen = some(&mut received, 20).await;
        assert_eq!(seen, (expected..expected + 20).collect::<Vec<_>>());
        drained(&container, &orders, &group("billing")).await;
        let report = subscription.unsubscribe(PATIENCE).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.name, "orders/billing");
        assert_eq!(
            subscription.unsubscribe(PATIENCE).await,
            report,
            "the same report again"
        );
        expected += 20;
    }
    finish(container).await;
}

#[tokio::test]
async fn a_subscription_can_start_at_the_end() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    bus.publish(&orders, &number(1)).await.unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_start(StartFrom::End);
    let _subscription = bus
        .subscribe_with(&orders, options, sending(sender))
        .await
        .unwrap();
    bus.publish(&orders, &number(2)).await.unwrap();
    assert_eq!(next(&mut received).await, 2);
    finish(container).await;
}

#[tokio::test]
async fn publish_all_keeps_the_order_and_reports_each_result() {
    let server = Server::start();
    let container = builder(&server)
        .with_max_message_bytes(2_000)
        .connect()
        .await
        .unwrap();
    let (bus, orders) = (container.bus(), topic("orders"));
    let all: Vec<Envelope> = (0..2000_u32)
        .map(|n| {
            let size = if n == 700 { 5_000 } else { 10 };
            Envelope::new("n", &(n, "x".repeat(size))).unwrap()
        })
        .collect();
    let results = bus.publish_all(&orders, &all).await;
    assert_eq!(results.len(), 2000);
    let mut last = None;
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(published) => {
                assert!(Some(published.id) > last, "{n}");
                assert!(!published.duplicate);
                last = Some(published.id);
            }
            Err(error) => {
                assert_eq!((n, error.kind()), (700, ErrorKind::TooLarge));
            }
        }
    }
    let entries = container
        .topics()
        .entries_after(&orders, None, 5000)
        .await
        .unwrap();
    let seen: Vec<u32> = entries
        .into_iter()
        .map(|entry| {
            entry
                .envelope
                .unwrap()
                .payload::<(u32, String)>()
                .unwrap()
                .0
        })
        .collect();
    assert_eq!(seen, (0..2000).filter(|n| *n != 700).collect::<Vec<_>>());
    assert!(bus.publish_all(&orders, &[]).await.is_empty());
}

#[tokio::test]
async fn a_payload_of_another_type_goes_to_the_dead_letters_at_once() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = bus.subscribe(&orders, sending(sender)).await.unwrap();
    let bad = Envelope::new("number", "seven").unwrap();
    bus.publish(&orders, &bad).await.unwrap();
    bus.publish(&orders, &number(8)).await.unwrap();
    assert_eq!(next(&mut received).await, 8);
    drained(&container, &orders, &group("billing")).await;
    let dead = letters(&container, &orders, &group("billing")).await;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].reason, dead[0].attempts), (Reason::Undecodable, 1));
    assert!(dead[0].error.contains("u32"), "{}", dead[0].error);
    assert_eq!(dead[0].envelope().unwrap().id(), bad.id());
    finish(container).await;
}

#[tokio::test]
async fn concurrency_and_prefetch_bound_the_in_flight_messages() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let all: Vec<Envelope> = (0..100).map(number).collect();
    for result in bus.publish_all(&orders, &all).await {
        result.unwrap();
    }
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let options = SubscribeOptions::new().with_concurrency(4).with_prefetch(6);
    let (now, peak, door) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
    let _subscription = bus
        .subscribe_with(&orders, options, move |_: Payload<u32>, _: Delivery| {
            let (now, peak, door) = (Arc::clone(&now), Arc::clone(&peak), Arc::clone(&door));
            async move {
                let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(running, Ordering::SeqCst);
                door.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .await
        .unwrap();
    until("four handlers to run", async || {
        (running.load(Ordering::SeqCst) == 4).then_some(())
    })
    .await;
    let held = status(&container, &orders, &group("billing"))
        .await
        .in_flight;
    assert!((4..=10).contains(&held), "{held} held");
    gate.add_permits(1000);
    drained(&container, &orders, &group("billing")).await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    finish(container).await;
}

#[tokio::test]
async fn consumers_of_one_group_share_and_every_group_sees_everything() {
    let server = Server::start();
    let orders = topic("orders");
    let publisher = container(&server).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut others = Vec::new();
    for member in 0..3 {
        let other = container(&server).await;
        for name in ["billing", "shipping"] {
            let sender = sender.clone();
            let options = SubscribeOptions::new()
                .with_group(group(name))
                .with_concurrency(2);
            let _subscription = other
                .bus()
                .subscribe_with(
                    &orders,
                    options,
                    move |Payload(n): Payload<u32>, delivery: Delivery| {
                        let _ = sender.send((delivery.group().to_string(), n, member));
                        async {}
                    },
                )
                .await
                .unwrap();
        }
        others.push(other);
    }
    let all: Vec<Envelope> = (0..600).map(number).collect();
    for result in publisher.bus().publish_all(&orders, &all).await {
        result.unwrap();
    }
    let seen = some(&mut received, 1200).await;
    for name in ["billing", "shipping"] {
        let of_group: Vec<u32> = seen
            .iter()
            .filter(|(group, ..)| group == name)
            .map(|(_, n, _)| *n)
            .collect();
        assert_eq!(of_group, (0..600).collect::<Vec<_>>());
    }
    let members: BTreeSet<i32> = seen.iter().map(|(_, _, member)| *member).collect();
    assert!(members.len() > 1, "the work was shared");
    for other in others {
        finish(other).await;
    }
}

#[tokio::test]
async fn after_shutdown_publishing_and_subscribing_fail() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    finish(container.clone()).await;
    let error = container
        .bus()
        .publish(&orders, &number(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let (sender, _received) = mpsc::unbounded_channel();
    let error = container
        .bus()
        .subscribe(&orders, sending(sender))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn the_newest_entries_come_oldest_first_and_browsing_goes_on_after_them() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, admin, orders) = (container.bus(), container.topics(), topic("orders"));
    assert!(admin.latest(&orders, 3).await.unwrap().is_empty());
    let all: Vec<Envelope> = (0..10).map(number).collect();
    for result in bus.publish_all(&orders, &all).await {
        result.unwrap();
    }
    let read = |entries: Vec<redstart::topics::Entry>| -> Vec<u32> {
        let payloads = entries.into_iter().map(|entry| entry.envelope.unwrap());
        payloads
            .map(|envelope| envelope.payload().unwrap())
            .collect()
    };
    let latest = admin.latest(&orders, 3).await.unwrap();
    let last = latest.last().unwrap().id;
    assert_eq!(read(latest), [7, 8, 9]);
    assert_eq!(read(admin.latest(&orders, 100).await.unwrap()).len(), 10);
    bus.publish(&orders, &number(10)).await.unwrap();
    assert_eq!(
        read(admin.entries_after(&orders, Some(last), 5).await.unwrap()),
        [10]
    );
}
