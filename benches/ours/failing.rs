//! Failures, retries, dead letters and redrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Group, Outcome, RetryPolicy, SubscribeOptions, Topic,
    dead_letters::DeadLetterFilter, envelope::EntryId,
};

use super::{drained, finish, wait_for};
use crate::meter::{Meter, Spent};
use crate::server::Server;
use crate::work::Order;

/// Consumes `count` messages, of which every so many-th fails once and is tried again after a delay.
pub(crate) async fn consume_failing(
    server: &Server,
    topic: &Topic,
    count: u64,
    failing: Option<(u64, Duration)>,
) -> Spent {
    let container = server.container(topic).await;
    let handled = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&handled);
    let (share, delay) = failing.unzip();
    let retry = RetryPolicy::fixed(delay.unwrap_or_default());
    let options = SubscribeOptions::new()
        .with_concurrency(64)
        .with_retry(retry);
    let meter = Meter::start(server);
    let _subscription = container
        .bus()
        .subscribe_with(
            topic,
            options,
            move |Payload(order): Payload<Order>, delivery: Delivery| {
                let chosen = share.is_some_and(|share| order.id.is_multiple_of(share));
                let fails = chosen && delivery.attempt() == 1;
                if !fails {
                    done.fetch_add(1, Ordering::Relaxed);
                }
                std::future::ready(if fails {
                    Outcome::retry("once")
                } else {
                    Outcome::Ack
                })
            },
        )
        .await
        .expect("subscribed");
    wait_for(&handled, count).await;
    drained(&container, topic, 0).await;
    let spent = meter.stop();
    finish(container).await;
    spent
}

/// Ends each of `count` messages with an outcome.
async fn end_all(container: &Container, topic: &Topic, count: u64, outcome: Outcome) {
    let handled = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&handled);
    let options = SubscribeOptions::new().with_concurrency(64);
    let subscription = container
        .bus()
        .subscribe_with(topic, options, move |_: Payload<Order>, _: Delivery| {
            done.fetch_add(1, Ordering::Relaxed);
            std::future::ready(outcome.clone())
        })
        .await
        .expect("subscribed");
    wait_for(&handled, count).await;
    let report = subscription.unsubscribe(Duration::from_secs(30)).await;
    assert!(report.is_clean(), "{report:?}");
}

/// Lets `count` messages wait for an hour.
pub(crate) async fn park(container: &Container, topic: &Topic, count: u64) {
    let hour = Duration::from_secs(3600);
    end_all(container, topic, count, Outcome::snooze(hour)).await;
}

/// Makes dead letters of `count` messages; returns their ids.
pub(crate) async fn fail_all(
    container: &Container,
    topic: &Topic,
    group: &Group,
    count: u64,
) -> Vec<EntryId> {
    end_all(container, topic, count, Outcome::dead_letter("never")).await;
    let (dead, everything) = (container.dead_letters(), DeadLetterFilter::default());
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = dead.list(topic, group, &everything, after, 500).await;
        let page = page.expect("dead letters");
        ids.extend(page.items.iter().map(|(id, _)| *id));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

/// Brings dead letters back.
pub(crate) async fn redrive(
    server: &Server,
    container: &Container,
    topic: &Topic,
    group: &Group,
    ids: &[EntryId],
) -> Spent {
    let meter = Meter::start(server);
    let redriven = container.dead_letters().redrive(topic, group, ids).await;
    let spent = meter.stop();
    assert_eq!(redriven.expect("redriven").moved.len(), ids.len());
    spent
}
