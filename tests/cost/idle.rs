//! The cost of an idle subscription.

use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::{Delivery, SubscribeOptions};

use crate::ALONE;
use crate::proxy::through_proxy;
use crate::support::{Server, builder, finish, group, topic};

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
