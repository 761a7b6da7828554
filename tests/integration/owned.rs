//! Owned groups on a server whose memory is full, beside a hand that deletes entries, and after a flush.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue as _, Value};
use redstart::envelope::EntryId;
use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::store::{Cursor, GroupAt, Lane, LaneStep, Member, ResetTo, StartFrom, Step, Stepped};
use redstart::topics::ConsumerName;
use redstart::{Container, Delivery, Outcome, RetryPolicy, SubscribeOptions, Subscription};
use tokio::sync::{Semaphore, mpsc};

use crate::support::{Server, container, drained, finish, group, next, publish, topic, until};

const LOG: &str = "{shop:orders}:log";
const MEMBERS: &str = "{shop:orders}:group:billing:members";
const LEASE: Duration = Duration::from_millis(500);

type Calls = mpsc::UnboundedReceiver<(u32, u32)>;

/// A member whose handler reports each call, and waits for a permit. Message 0 fails once.
async fn member(container: &Container, permits: &Arc<Semaphore>) -> (Subscription, Calls) {
    let (sender, calls) = mpsc::unbounded_channel();
    let permits = Arc::clone(permits);
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let (sender, permits) = (sender.clone(), Arc::clone(&permits));
        async move {
            let _ = sender.send((n, delivery.attempt()));
            permits.acquire().await.unwrap().forget();
            match (n, delivery.attempt()) {
                (0, 1) => Outcome::retry("not now"),
                _ => Outcome::Ack,
            }
        }
    };
    let options = SubscribeOptions::new()
        .with_concurrency(4)
        .with_retry(RetryPolicy::fixed(Duration::from_millis(300)))
        .with_ownership(Ownership::new().with_lease(LEASE));
    let bus = container.bus();
    let made = bus.subscribe_with(&topic("orders"), options, handler).await;
    (made.unwrap(), calls)
}

#[tokio::test]
async fn an_owned_group_settles_and_keeps_its_partition_while_memory_is_full() {
    let server = Server::start();
    let container = container(&server).await;
    let (orders, permits) = (topic("orders"), Arc::new(Semaphore::new(0)));
    publish(&container, &orders, 1..300).await;
    let (_subscription, mut calls) = member(&container, &permits).await;
    next(&mut calls).await;
    let ends = || -> u64 {
        let scores: Vec<String> = server.command(&["ZRANGE", MEMBERS, "0", "-1", "WITHSCORES"]);
        scores[1].parse().unwrap()
    };
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = server.try_command::<String>(&["SET", "a", "b"]);
    assert!(refused.unwrap_err().to_string().contains("OOM"));
    let before = ends();
    permits.add_permits(1000);
    drained(&container, &orders, &group("billing")).await;
    until("its lease to be renewed twice over", async || {
        (ends() > before + 2 * LEASE.as_millis() as u64).then_some(())
    })
    .await;
    let mut handled = vec![1];
    while let Ok((n, attempt)) = calls.try_recv() {
        assert_eq!(attempt, 1, "{n}");
        handled.push(n);
    }
    handled.sort_unstable();
    handled.dedup();
    assert_eq!(handled.len(), 299);
    let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    finish(container).await;
}

#[tokio::test]
async fn a_failed_message_whose_entry_was_deleted_comes_back_at_the_next_owner() {
    let server = Server::start();
    let first = container(&server).await;
    let (orders, permits) = (topic("orders"), Arc::new(Semaphore::new(1000)));
    publish(&first, &orders, 0..3).await;
    let (subscription, mut calls) = member(&first, &permits).await;
    for _ in 0..3 {
        next(&mut calls).await;
    }
    // The store has the failure, and the two others are settled.
    until("the failure to be kept", async || {
        let held: u64 = server.command(&["HLEN", "{shop:orders}:group:billing:held"]);
        (held == 1).then_some(())
    })
    .await;
    subscription.unsubscribe(Duration::from_secs(9)).await;
    let entries: Vec<(String, Value)> = server.command(&["XRANGE", LOG, "-", "+", "COUNT", "1"]);
    let deleted: u64 = server.command(&["XDEL", LOG, &entries[0].0]);
    assert_eq!(deleted, 1);
    let (_subscription, mut calls) = member(&first, &permits).await;
    assert_eq!(next(&mut calls).await, (0, 2));
    until("its note to go", async || {
        let held: u64 = server.command(&["HLEN", "{shop:orders}:group:billing:held"]);
        (held == 0).then_some(())
    })
    .await;
    drained(&first, &orders, &group("billing")).await;
    finish(first).await;
}

#[tokio::test]
async fn tokens_grow_over_flushall() {
    let server = Server::start();
    let mut last = 0;
    // Each round is a process of its own, which knows no token of the one before.
    for n in 0..2 {
        let container = container(&server).await;
        let (orders, (sender, mut tokens)) = (topic("orders"), mpsc::unbounded_channel());
        publish(&container, &orders, n..n + 1).await;
        let handler = move |delivery: Delivery| {
            let _ = sender.send(delivery.fence().unwrap().token);
            async { Outcome::Ack }
        };
        let options = SubscribeOptions::new().with_ownership(Ownership::new());
        let bus = container.bus();
        let made = bus.subscribe_with(&orders, options, handler).await;
        let _subscription = made.unwrap();
        let token = next(&mut tokens).await;
        assert!(token > last, "{token} after {last}");
        last = token;
        finish(container).await;
        let _: String = server.command(&["FLUSHALL"]);
    }
}

#[tokio::test]
async fn a_reset_into_a_long_log_is_counted_again_from_the_end_on() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 0..10_100).await;
    let store = container.store();
    let at = GroupAt::of(&orders, &group("billing"));
    let (topics, owners) = (store.topics(), store.owners());
    owners.create(&at, StartFrom::Beginning).await.unwrap();
    let count = || -> (Option<u64>, Option<u64>) {
        let groups: Vec<Value> = server.command(&["XINFO", "GROUPS", LOG]);
        let fields: HashMap<String, Value> = HashMap::from_redis_value(groups[0].clone()).unwrap();
        let field = |name: &str| Option::from_redis_value(fields[name].clone()).unwrap();
        (field("entries-read"), field("lag"))
    };
    assert_eq!(count(), (Some(0), Some(10_100)));
    let ids = owners
        .read(&at, Lane::Log, EntryId::default(), 20_000)
        .await;
    let ids: Vec<EntryId> = ids.unwrap().into_iter().map(|(id, _)| id).collect();
    let reset = topics.reset_group(&at, ResetTo::Entry(ids[50]), Duration::ZERO);
    assert!(reset.await.unwrap().unwrap().moved);
    assert_eq!(count(), (None, None), "counting is dear");
    let by = Member::of(
        &orders,
        &group("billing"),
        ConsumerName::new("one").unwrap(),
    );
    owners.take(&by, 7).await.unwrap();
    for (number, low, known) in [
        (1, 10_000, (None, None)),
        (2, 10_099, (Some(10_100), Some(0))),
    ] {
        let lane = LaneStep {
            cursor: Cursor::at(ids[low]),
            passed: 7,
        };
        let step = Step {
            token: 7,
            number,
            lanes: [Some(lane), None],
            ..Step::default()
        };
        assert_eq!(owners.step(&by, &step).await.unwrap(), Stepped::Done);
        assert_eq!(count(), known, "{low}");
    }
    finish(container).await;
}
