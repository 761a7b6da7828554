//! Middleware, publish hooks and publishing handlers on a server.

use std::error::Error as StdError;
use std::time::Duration;

use redstart::dead_letters::{Reason, Selection, Sweep};
use redstart::extract::{Attempt, Publisher};
use redstart::middleware::{Next, PublishHook};
use redstart::{
    Batch, Delivery, Envelope, Error, Message, Outcome, RetryPolicy, Router, SubscribeOptions,
    Topic,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::support::{Server, builder, drained, finish, group, letters, next, topic};

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

/// Adds one to a header.
struct Count;

impl PublishHook for Count {
    fn before(
        &self,
        topic: &Topic,
        envelope: &mut Envelope,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        if envelope.tenant().is_none() {
            return Err("no tenant".into());
        }
        let passed = envelope.headers().get("passed").cloned();
        envelope.set_header("passed", passed.unwrap_or_default() + topic.as_str());
        Ok(())
    }
}

/// Opens sealed messages; others go on as they are.
async fn open(delivery: Delivery, next: Next) -> Result<Outcome, Error> {
    let envelope = delivery.envelope();
    if envelope.message_type() != "sealed" {
        return Ok(next.run(delivery).await);
    }
    let opened = Placed {
        id: envelope.payload::<u32>()? + 1,
    };
    let passed = envelope.headers()["passed"].clone();
    let opened = envelope.follow_up(&opened)?.with_header("passed", passed);
    Ok(next.run(delivery.with_envelope(opened)).await)
}

fn quick(attempts: u32) -> SubscribeOptions {
    let retry = RetryPolicy::fixed(Duration::from_millis(5)).with_max_attempts(attempts);
    SubscribeOptions::new().with_retry(retry)
}

#[tokio::test]
async fn a_server_keeps_the_original_message_through_retries_dead_letters_and_redrives() {
    let server = Server::start();
    let container = builder(&server)
        .with_publish_hook(Count)
        .connect()
        .await
        .unwrap();
    let (bus, orders, bills) = (container.bus(), topic("orders"), topic("bills"));
    let (sender, mut calls) = mpsc::unbounded_channel();
    let to = bills.clone();
    let bill = move |order: Placed,
                     Attempt(attempt): Attempt,
                     publisher: Publisher,
                     delivery: Delivery| {
        let passed = delivery.envelope().headers()["passed"].clone();
        let _ = sender.send((order.id, attempt, passed));
        let to = to.clone();
        async move {
            publisher.send(&to, &order).await?;
            Err::<(), Box<dyn StdError + Send + Sync>>("jammed".into())
        }
    };
    let router = Router::new().on(bill).with_middleware(open);
    bus.subscribe_with(&orders, quick(2), router).await.unwrap();

    let refused = Envelope::new("sealed", &6).unwrap();
    let error = bus.publish(&orders, &refused).await.unwrap_err();
    assert!(format!("{error:?}").contains("no tenant"), "{error:?}");
    let sealed = refused.with_tenant("acme");
    bus.publish(&orders, &sealed).await.unwrap();
    let passed = || "orders".to_owned();
    assert_eq!(next(&mut calls).await, (7, 1, passed()));
    assert_eq!(next(&mut calls).await, (7, 2, passed()));
    let billing = group("billing");
    drained(&container, &orders, &billing).await;
    let letter = letters(&container, &orders, &billing).await.remove(0);
    assert_eq!(
        (letter.reason, &*letter.error),
        (Reason::Exhausted, "jammed")
    );
    let stored = letter.envelope().unwrap();
    assert_eq!(
        (stored.id(), stored.message_type()),
        (sealed.id(), "sealed")
    );
    assert_eq!(stored.payload::<u32>().unwrap(), 6);

    // The redrive brings it back as it was, past the hooks.
    let sweep = Sweep::redrive(Selection::from(vec![letter.id]));
    let dead = container.dead_letters();
    dead.sweep(&orders, &billing, sweep, &|_| {}).await.unwrap();
    assert_eq!(next(&mut calls).await, (7, 1, passed()));
    assert_eq!(next(&mut calls).await, (7, 2, passed()));
    drained(&container, &orders, &billing).await;

    // A sweep that publishes elsewhere is a publish.
    let letter = letters(&container, &orders, &billing).await.remove(0);
    let archive = topic("archive");
    let sweep = Sweep::publish(archive.clone(), Selection::from(vec![letter.id]));
    dead.sweep(&orders, &billing, sweep, &|_| {}).await.unwrap();
    let entries = container.topics().entries_after(&archive, None, 10).await;
    let archived = entries.unwrap().remove(0).envelope.unwrap();
    assert_eq!(archived.message_type(), "sealed");
    assert_eq!(archived.headers()["passed"], "ordersarchive");

    let entries = container.topics().entries_after(&bills, None, 10).await;
    let entries = entries.unwrap();
    assert_eq!(entries.len(), 4, "one for each attempt");
    for entry in entries {
        let bill = entry.envelope.unwrap();
        assert_eq!(bill.correlation(), sealed.correlation());
        assert_eq!(bill.tenant(), Some("acme"));
        assert_eq!(bill.headers()["passed"], "bills");
    }
    finish(container).await;
}

#[tokio::test]
async fn messages_of_a_batch_pass_middleware_each_by_itself_on_a_server() {
    let server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    let (bus, orders) = (container.bus(), topic("orders"));
    let sent: Vec<_> = (0..20)
        .map(|id| {
            Envelope::new("sealed", &id)
                .unwrap()
                .with_header("passed", "")
        })
        .chain([Envelope::new("unknown", &1).unwrap()])
        .chain([Envelope::new(Placed::TYPE, "wrong").unwrap()])
        .collect();
    for published in bus.publish_all(&orders, &sent).await {
        published.unwrap();
    }
    let (sender, mut calls) = mpsc::unbounded_channel();
    let store = move |batch: Batch<Placed>| {
        for order in batch.messages() {
            let _ = sender.send(order.id);
        }
        async {}
    };
    let (noted, mut ends) = mpsc::unbounded_channel();
    let odd_only = move |delivery: Delivery, next: Next| {
        let noted = noted.clone();
        async move {
            let id = delivery.envelope().payload::<u32>().unwrap_or(1);
            if id % 2 == 0 {
                return Outcome::dead_letter("even");
            }
            let outcome = next.run(delivery).await;
            let _ = noted.send(outcome.clone());
            outcome
        }
    };
    let router = Router::new()
        .on_batch(store)
        .with_middleware(odd_only)
        .with_middleware(open);
    let options = quick(1).with_batch(8, Duration::from_millis(20));
    bus.subscribe_with(&orders, options, router).await.unwrap();
    drained(&container, &orders, &group("billing")).await;
    let mut handled = Vec::new();
    while let Ok(id) = calls.try_recv() {
        handled.push(id);
    }
    handled.sort_unstable();
    let opened: Vec<u32> = (0..20).filter(|id| id % 2 == 1).map(|id| id + 1).collect();
    assert_eq!(handled, opened);
    let reason = |outcome: Outcome| match outcome {
        Outcome::DeadLetter { reason, .. } => Some(reason),
        _ => None,
    };
    let mut reasons = Vec::new();
    while let Ok(outcome) = ends.try_recv() {
        reasons.extend(reason(outcome));
    }
    reasons.sort_by_key(ToString::to_string);
    assert_eq!(reasons, [Reason::Undecodable, Reason::Unhandled]);
    let letters = letters(&container, &orders, &group("billing")).await;
    let of = |reason| letters.iter().filter(|one| one.reason == reason).count();
    let counts = (
        of(Reason::Rejected),
        of(Reason::Unhandled),
        of(Reason::Undecodable),
    );
    assert_eq!(counts, (10, 1, 1));
    finish(container).await;
}
