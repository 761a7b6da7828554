//! The cost of an idle subscription.

use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::topics::Reading;
use redstart::{Delivery, SubscribeOptions};

use crate::ALONE;
use crate::proxy::through_proxy;
use crate::support::{Server, builder, finish, group, next, publish, topic, until};

const SUBSCRIPTIONS: u32 = 20;

#[tokio::test]
async fn nothing_is_asked_more_often_than_once_a_second() {
    let _alone = ALONE.lock().await;
    let (_server, proxy, container) = through_proxy().await;
    for number in 0..SUBSCRIPTIONS {
        let handler = |_: Payload<()>, _: Delivery| std::future::ready(());
        let topic = topic(&format!("orders-{number}"));
        let _ = container.bus().subscribe(&topic, handler).await.unwrap();
    }
    let (before, began) = (proxy.seen(), Instant::now());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let spent = proxy.seen() - before;
    // A second more for what falls to both ends of the time.
    let seconds = began.elapsed().as_secs_f64() + 1.0;
    let each = spent.commands() as f64 / f64::from(SUBSCRIPTIONS) / seconds;
    println!("{each:.2} commands a second and subscription: {spent:?}");
    // The look for expired leases every second, and a quarter of everything else.
    assert!(each <= 2.0, "{each:.2} commands a second: {spent:?}");
    finish(container).await;
}

/// How often the server has run a command since its start.
fn calls(server: &Server, command: &str) -> u64 {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let prefix = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    let calls = line.and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// XINFO GROUPS costs the server time for every group of the topic, so the groups of a topic must not
/// each ask for it again and again.
#[tokio::test]
async fn idle_groups_of_a_topic_do_not_ask_for_each_other() {
    let _alone = ALONE.lock().await;
    let server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    for number in 0..SUBSCRIPTIONS {
        let handler = |_: Payload<()>, _: Delivery| std::future::ready(());
        let options = SubscribeOptions::new().with_group(group(&format!("group-{number}")));
        let (bus, orders) = (container.bus(), topic("orders"));
        let made = bus.subscribe_with(&orders, options, handler).await;
        let _ = made.unwrap();
    }
    // Creating a group looks at all groups once.
    let before = calls(&server, "xinfo|groups");
    tokio::time::sleep(Duration::from_secs(8)).await;
    let asked = calls(&server, "xinfo|groups") - before;
    // Each looks at its own redelivery stream, and one of them at the topic, every 30 seconds.
    let most = u64::from(SUBSCRIPTIONS);
    assert!(asked <= most, "{asked} times in eight seconds");
    finish(container).await;
}

/// How many commands the server has run.
fn commands(server: &Server) -> u64 {
    let stats: String = server.command(&["INFO", "stats"]);
    let mut lines = stats.lines();
    let ran = lines.find_map(|line| line.strip_prefix("total_commands_processed:"));
    ran.unwrap().parse().unwrap()
}

/// Where the server tells of changes, a subscription without messages asks for nothing: no reads, no
/// looks for expired leases and due retries, no trims.
#[tokio::test]
async fn subscriptions_on_the_shared_connection_come_to_rest() {
    let _alone = ALONE.lock().await;
    let server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..200 {
        let sender = sender.clone();
        let handler = move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            std::future::ready(())
        };
        let options = SubscribeOptions::new()
            .with_group(group(&format!("group-{}", number % 10)))
            .with_reading(Reading::Shared);
        let (bus, topic) = (container.bus(), topic(&format!("orders-{}", number / 10)));
        let _ = bus.subscribe_with(&topic, options, handler).await.unwrap();
    }
    for round in 0..2 {
        publish(&container, &topic("orders-7"), round..round + 1).await;
        for _ in 0..10 {
            assert_eq!(next(&mut received).await, round);
        }
        // Two of the commands are this test's, and the bell pings. Each subscription reads once in
        // fifty seconds.
        until("the subscriptions to rest", async || {
            let before = commands(&server);
            tokio::time::sleep(Duration::from_secs(1)).await;
            (commands(&server) - before <= 12).then_some(())
        })
        .await;
    }
    finish(container).await;
}
