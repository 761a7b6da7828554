//! The cost of publishing, consuming and failing per message.

use std::collections::BTreeMap;
use std::time::Duration;

use redstart::SubscribeOptions;

use crate::proxy::through_proxy;
use crate::support::{Server, container, finish, topic, until};
use crate::{ALONE, MESSAGES, allocations, assert_each, handle_all, handle_all_with, publish};

#[tokio::test]
async fn a_published_message_is_one_command() {
    let _alone = ALONE.lock().await;
    let (_server, proxy, container) = through_proxy().await;
    let orders = topic("orders");
    let before = proxy.seen();
    publish(&container, &orders, MESSAGES).await;
    let spent = proxy.seen() - before;
    assert_eq!(spent.of("XADD"), MESSAGES, "{spent:?}");
    // The topic is made and its backlog looked at, now and then.
    assert_each("commands", spent.commands(), 1.01);
    // An envelope of some 390 bytes around 200 of payload, and what Redis wants around that.
    assert_each("bytes", spent.bytes, 480.0);
    finish(container).await;
}

#[tokio::test]
async fn a_consumed_message_is_a_small_part_of_a_command() {
    let _alone = ALONE.lock().await;
    let (server, proxy, container) = through_proxy().await;
    let orders = topic("orders");
    publish(&container, &orders, MESSAGES).await;
    let before = proxy.seen();
    let subscription = handle_all(&container, &orders, MESSAGES, 0).await;
    // A subscription that ends extends the leases of what is not acknowledged yet. How much that is
    // depends on the machine, so this one ends after its last acknowledgement.
    until("all messages to be acknowledged", async || {
        let entries = "{shop:orders}:log";
        let pending: redis::Value = server.command(&["XPENDING", entries, "billing"]);
        matches!(pending, redis::Value::Array(parts) if parts[0] == redis::Value::Int(0))
            .then_some(())
    })
    .await;
    let _ = subscription.unsubscribe(crate::support::PATIENCE).await;
    let spent = proxy.seen() - before;
    println!("{spent:?}");
    assert_each("reads", spent.of("XREADGROUP"), 0.01);
    assert_each("acknowledgements", spent.of("XACK"), 0.02);
    assert_each("commands", spent.commands(), 0.03);
    // Its id in an XACK, and its part of everything else.
    assert_each("bytes", spent.bytes, 27.0);
    finish(container).await;
}

#[tokio::test]
async fn a_message_costs_few_allocations() {
    let _alone = ALONE.lock().await;
    let server = Server::start();
    let (container, orders) = (container(&server).await, topic("orders"));
    let before = allocations();
    publish(&container, &orders, MESSAGES).await;
    let between = allocations();
    let subscription = handle_all(&container, &orders, MESSAGES, 0).await;
    let after = allocations();
    assert_each("allocations to publish", between - before, 4.0);
    assert_each("allocations to consume", after - between, 10.0);
    let _ = subscription.unsubscribe(crate::support::PATIENCE).await;
    finish(container).await;
}

/// How often the server has done each command; those that scripts call are among them.
fn done(server: &Server) -> BTreeMap<String, u64> {
    let info: String = server.command(&["INFO", "commandstats"]);
    let counts = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
    });
    counts.collect()
}

#[tokio::test]
async fn a_message_that_fails_once_is_seldom_moved() {
    let _alone = ALONE.lock().await;
    let server = Server::start();
    let (container, orders) = (container(&server).await, topic("orders"));
    publish(&container, &orders, MESSAGES).await;
    let before = done(&server);
    let subscription = handle_all(&container, &orders, MESSAGES, 1).await;
    let _ = subscription.unsubscribe(crate::support::PATIENCE).await;
    let after = done(&server);
    let spent = |name: &str| {
        let count = |all: &BTreeMap<String, u64>| all.get(name).copied().unwrap_or(0);
        count(&after) - count(&before)
    };
    // More messages fail at once here than a subscription keeps.
    assert_each("moved", spent("xadd"), 0.5);
    for name in ["xclaim", "evalsha", "xpending"] {
        assert_each(name, spent(name), 0.2);
    }
    finish(container).await;
}

#[tokio::test]
async fn one_failure_costs_little_more_than_one_publish() {
    let _alone = ALONE.lock().await;
    let server = Server::start();
    let (container, orders) = (container(&server).await, topic("orders"));
    publish(&container, &orders, MESSAGES).await;
    let before = done(&server);
    let options = SubscribeOptions::new().with_hold_back(Duration::ZERO);
    let subscription = handle_all_with(options, &container, &orders, MESSAGES, 1).await;
    let _ = subscription.unsubscribe(crate::support::PATIENCE).await;
    let after = done(&server);
    let spent = |name: &str| {
        let count = |all: &BTreeMap<String, u64>| all.get(name).copied().unwrap_or(0);
        count(&after) - count(&before)
    };
    assert_eq!(spent("xadd"), MESSAGES, "each comes back once");
    for name in ["hset", "zadd", "zrem", "hdel", "xack", "xpending"] {
        assert_each(name, spent(name), 0.2);
    }
    let all: u64 = after.keys().map(|name| spent(name)).sum();
    assert_each("commands", all, 1.6);
    finish(container).await;
}
