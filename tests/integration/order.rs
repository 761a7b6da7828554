//! First deliveries come in their order where there is one handler, whatever happens to it.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Container, Delivery, Envelope, SubscribeOptions, Subscription};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::support::{PATIENCE, Server, container, drained, finish, group, next, topic, until};

const DAY: Duration = Duration::from_secs(86_400);
const LOG: &str = "{shop:orders}:log";

fn one_by_one() -> SubscribeOptions {
    let options = SubscribeOptions::new().with_concurrency(1);
    options.with_prefetch(9).with_lease(DAY)
}

async fn subscribe(container: &Container) -> (Subscription, UnboundedReceiver<u32>) {
    let (sender, received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let _ = sender.send(n);
        async {}
    };
    let subscription = container
        .bus()
        .subscribe_with(&topic("orders"), one_by_one(), handler)
        .await
        .unwrap();
    (subscription, received)
}

async fn publish(container: &Container, numbers: std::ops::Range<u32>) {
    let all: Vec<Envelope> = numbers.map(|n| Envelope::new("n", &n).unwrap()).collect();
    for result in container.bus().publish_all(&topic("orders"), &all).await {
        result.unwrap();
    }
}

async fn expect(received: &mut UnboundedReceiver<u32>, numbers: std::ops::Range<u32>) {
    for n in numbers {
        assert_eq!(next(received).await, n);
    }
}

#[tokio::test]
async fn entries_of_a_lost_reply_come_before_newer_ones() {
    let server = Server::start();
    let container = container(&server).await;
    let (subscription, mut received) = subscribe(&container).await;
    publish(&container, 0..1).await;
    expect(&mut received, 0..1).await;
    drained(&container, &topic("orders"), &group("billing")).await;

    // A reader's connection is cut off, and with it the reply that has the next five.
    let consumer = subscription.consumer().as_str();
    let name = format!("name=redstart:sub:{consumer} ");
    let list: String = server.command(&["CLIENT", "LIST"]);
    let reader = list.lines().find(|line| line.contains(&name)).unwrap();
    let id = reader.split_whitespace().next().unwrap();
    let mut batch = redis::pipe();
    batch.atomic();
    batch.cmd("CLIENT").arg("KILL").arg("ID").arg(&id[3..]);
    for n in 1..10 {
        let body = format!(r#"{{"type":"n","payload":{n}}}"#);
        batch.cmd("XADD").arg(LOG).arg("*").arg("json").arg(body);
    }
    let read = batch.cmd("XREADGROUP").arg("GROUP").arg("billing");
    let read = read.arg(consumer).arg("COUNT").arg(5);
    read.arg("STREAMS").arg(LOG).arg(">");
    let _: redis::Value = batch.query(&mut server.raw()).unwrap();

    expect(&mut received, 1..10).await;
    finish(container).await;
}

#[tokio::test]
async fn entries_released_by_a_shutdown_come_before_newer_ones() {
    let server = Server::start();
    let first = container(&server).await;
    publish(&first, 0..30).await;
    let stuck = |_: Payload<u32>, _: Delivery| std::future::pending::<()>();
    let _subscription = first
        .bus()
        .subscribe_with(&topic("orders"), one_by_one(), stuck)
        .await
        .unwrap();
    until("some to be held", async || {
        let status = crate::support::status(&first, &topic("orders"), &group("billing")).await;
        (status.in_flight >= 5).then_some(())
    })
    .await;
    let report = first.shutdown(Duration::ZERO).await;
    assert!(report.subscriptions[0].released >= 4, "{report:?}");

    let second = container(&server).await;
    let (subscription, mut received) = subscribe(&second).await;
    expect(&mut received, 0..30).await;
    assert!(subscription.unsubscribe(PATIENCE).await.is_clean());
    finish(second).await;
}
