//! Messages for later on a server: set by one process, brought by another.

use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::schedules::{ScheduleOptions, When};
use redstart::topics::Reading;
use redstart::{Effects, Envelope, SubscribeOptions};
use tokio::sync::mpsc::unbounded_channel;

use crate::shared::connections;
use crate::support::roles::Roles;
use crate::support::soon::assert_rung;
use crate::support::{PATIENCE, Server, builder, container, finish, next, topic, until};

const DAY: Duration = Duration::from_secs(86_400);

/// The promoter of the subscription has looked, and looks again in an hour unless the server tells it
/// of the change.
#[tokio::test]
async fn a_message_that_an_ended_process_scheduled_rings() {
    let server = Server::start();
    let listening = container(&server).await;
    let (sender, mut received) = unbounded_channel();
    let options = SubscribeOptions::new().with_reading(Reading::Shared);
    let handler = move |Payload(number): Payload<u32>| {
        let _ = sender.send(number);
        async {}
    };
    let orders = topic("orders");
    let bus = listening.bus();
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    for number in 0..5_u32 {
        let ending = container(&server).await;
        let others: Vec<Envelope> = (0..200)
            .map(|other| Envelope::new("n", &other).unwrap())
            .collect();
        let bus = ending.bus();
        let put = bus
            .publish_later(&orders, &others, When::After(DAY), ScheduleOptions::new())
            .await;
        assert!(put.iter().all(Result::is_ok));
        let envelope = Envelope::new("n", &(1000 + number)).unwrap();
        let soon = Duration::from_millis(20 * u64::from(number));
        bus.publish_after(soon, &orders, &envelope).await.unwrap();
        finish(ending).await;
        assert_eq!(next(&mut received).await, 1000 + number);
    }
    let waiting = listening.topics().get(&orders).await.unwrap().unwrap();
    assert_eq!(waiting.later, 1000);
    finish(listening).await;
}

/// A subscription on a connection of its own looks every five seconds.
async fn come_at_their_time(server: &Server, url: String) {
    let listening = builder(server).with_redis_url(url).connect().await.unwrap();
    let (sender, mut received) = unbounded_channel();
    let handler = move |Payload(number): Payload<u32>| {
        let _ = sender.send(number);
        async {}
    };
    let orders = topic("orders");
    let bus = listening.bus();
    let options = SubscribeOptions::new().with_reading(Reading::Own);
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    let (soon, mut took) = (Duration::from_millis(100), Vec::new());
    for number in 0..6_u32 {
        let began = Instant::now();
        let ending = container(server).await;
        let envelope = Envelope::new("n", &number).unwrap();
        let bus = ending.bus();
        match number {
            // The first one of the topic, and others while none waits.
            0 | 1 => drop(bus.publish_after(soon, &orders, &envelope).await.unwrap()),
            2 => {
                let far = bus.publish_after(DAY, &orders, &envelope).await.unwrap();
                let sooner = bus.reschedule(&orders, &far.id, When::After(soon)).await;
                assert!(sooner.unwrap().is_some());
            }
            3 => {
                let mut effects = Effects::new();
                effects.publish_after(soon, &orders, envelope);
                ending.commit(effects).await.unwrap();
            }
            // The connection that waits has ended, and another one takes over.
            _ => {
                for waits in connections(server, "redstart:later") {
                    let _: i64 = server.command(&["CLIENT", "KILL", "ID", &waits]);
                }
                bus.publish_after(soon, &orders, &envelope).await.unwrap();
            }
        }
        finish(ending).await;
        assert_eq!(next(&mut received).await, number);
        took.push(began.elapsed());
    }
    assert_rung(&took);
    assert_eq!(connections(server, "redstart:bell").len(), 0);
    assert_eq!(connections(server, "redstart:later").len(), 1);
    finish(listening).await;
    until("the connection that waits to be closed", async || {
        let open = connections(server, "redstart:later");
        open.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn messages_of_ended_processes_come_at_their_time() {
    let server = Server::start();
    come_at_their_time(&server, server.url()).await;
}

#[tokio::test]
async fn they_do_where_the_user_may_not_listen() {
    let roles = Roles::start().await;
    let rule = ["ACL", "SETUSER", "redstart-stage", "-client|tracking"];
    let _: String = roles.server.command(&rule);
    come_at_their_time(&roles.server, roles.url("stage")).await;
}

/// Readers of one container wait together. One that leaves takes only its topic with it.
#[tokio::test]
async fn the_topics_of_a_container_share_the_connection_that_waits() {
    let server = Server::start();
    let listening = container(&server).await;
    let mut all = Vec::new();
    for number in 0..4_u32 {
        let (sender, received) = unbounded_channel();
        let handler = move |Payload(number): Payload<u32>| {
            let _ = sender.send(number);
            async {}
        };
        let (bus, name) = (listening.bus(), topic(&format!("orders-{number}")));
        let subscription = bus.subscribe(&name, handler).await.unwrap();
        all.push((name, subscription, received));
        if number == 1 {
            let (_, first, _) = all.remove(0);
            first.unsubscribe(PATIENCE).await;
        }
    }
    let mut took = Vec::new();
    for round in 0..4 {
        let began = Instant::now();
        let ending = container(&server).await;
        for (name, ..) in &all {
            let envelope = Envelope::new("n", &round).unwrap();
            let soon = Duration::from_millis(50);
            ending
                .bus()
                .publish_after(soon, name, &envelope)
                .await
                .unwrap();
        }
        finish(ending).await;
        for (_, _, received) in &mut all {
            assert_eq!(next(received).await, round);
        }
        took.push(began.elapsed());
    }
    assert_rung(&took);
    assert_eq!(connections(&server, "redstart:later").len(), 1);
    finish(listening).await;
}
