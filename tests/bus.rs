//! Publishing and subscribing on a real server.

mod support;

use std::sync::Arc;
use std::time::Duration;

use redstart::{
    Container, Delivery, Envelope, Group, MessageBus, MessageBusExt, Namespace, Outcome,
    RetryPolicy, SubscribeOptions, Topic,
};
use support::Server;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(30);

async fn container(server: &Server) -> Container {
    Container::builder()
        .with_redis_url(server.url())
        .with_namespace(Namespace::new("shop").unwrap())
        .with_service(Group::new("billing").unwrap())
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn listener_race_old_fault_1_what_is_published_before_a_listener_reaches_it() {
    let server = Server::start();
    let container = container(&server).await;
    let bus = container.bus();
    let topic = Topic::new("orders").unwrap();
    for n in 0..100_u32 {
        bus.publish(&topic, &Envelope::new("n", &n).unwrap())
            .await
            .unwrap();
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = bus
        .subscribe(&topic, move |n: u32, _: Delivery| {
            let sender = sender.clone();
            async move {
                sender.send(n).unwrap();
            }
        })
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 100 {
        seen.push(
            tokio::time::timeout(PATIENCE, received.recv())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    let report = container.shutdown(Duration::from_secs(5)).await;
    assert!(report.is_clean(), "{report:?}");
    let status = container.admin().groups(&topic).await.unwrap();
    assert_eq!((status[0].lag, status[0].in_flight), (0, 0));
}

#[tokio::test]
async fn a_failure_is_tried_again_and_the_last_one_makes_a_dead_letter() {
    let server = Server::start();
    let container = container(&server).await;
    let bus = container.bus();
    let topic = Topic::new("orders").unwrap();
    let options = SubscribeOptions::new()
        .with_retry(RetryPolicy::fixed(Duration::from_millis(10)).with_max_attempts(3));
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = bus
        .subscribe_with(&topic, options, move |n: u32, delivery: Delivery| {
            let sender = sender.clone();
            async move {
                sender.send((n, delivery.attempt())).unwrap();
                if n == 1 {
                    return Outcome::retry("no luck");
                }
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    for n in 0..3_u32 {
        bus.publish(&topic, &Envelope::new("n", &n).unwrap())
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(
            tokio::time::timeout(PATIENCE, received.recv())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)]);
    let group = Group::new("billing").unwrap();
    let dead = loop {
        let dead = container
            .dead_letters()
            .list(&topic, &group, None, 10)
            .await
            .unwrap();
        if !dead.is_empty() {
            break dead;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(dead[0].attempts, 3);
    assert_eq!(dead[0].trail.history.len(), 3);
    assert_eq!(dead[0].error, "no luck");
    let report = container.shutdown(Duration::from_secs(5)).await;
    assert!(report.is_clean(), "{report:?}");
    drop(Arc::new(()));
}
