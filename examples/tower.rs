//! Shows middleware: functions around all handlers of a router, layers of tower, a handler that publishes
//! with the metadata of its message, and a hook around publishes. Needs the feature `tower`.
//!
//! Output:
//!
//! ```text
//! order 1 of Some("acme"): Ack
//! bill for order 1 of Some("acme"), region eu
//! order 2 of Some("eve"): DeadLetter { reason: Rejected, error: "unknown tenant eve" }
//! order 3 of None: Retry { error: "request timed out", delay: None }
//! order 3 of None: Ack
//! bill for order 3 of None, region eu
//! ```

use std::error::Error as StdError;
use std::time::Duration;

use redstart::extract::{Attempt, Publisher};
use redstart::middleware::{Next, PublishHook, Tower};
use redstart::{
    Container, Delivery, Envelope, Error, Message, Outcome, RetryPolicy, Router, SubscribeOptions,
    Topic,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;

const ORDERS: Topic = Topic::from_static("orders");
const BILLS: Topic = Topic::from_static("bills");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Deserialize, Serialize)]
struct Billed {
    order: u32,
}

impl Message for Billed {
    const TYPE: &'static str = "order.billed";
}

/// The first attempt at order 3 hangs.
async fn bill(order: Placed, Attempt(attempt): Attempt, publisher: Publisher) -> Result<(), Error> {
    if order.id == 3 && attempt == 1 {
        std::future::pending::<()>().await;
    }
    // The bill gets the correlation id and the tenant of the order.
    publisher.send(&BILLS, &Billed { order: order.id }).await?;
    Ok(())
}

/// Middleware: ends messages of unknown tenants before the handler sees them.
async fn known_tenants(delivery: Delivery, next: Next) -> Outcome {
    match delivery.envelope().tenant() {
        Some("acme") | None => next.run(delivery).await,
        Some(other) => Outcome::dead_letter(format!("unknown tenant {other}")),
    }
}

/// Middleware: passes a line for each attempt to the printer.
async fn report(lines: Lines, delivery: Delivery, next: Next) -> Outcome {
    let envelope = delivery.envelope().clone();
    let outcome = next.run(delivery).await;
    let id = envelope.payload::<Placed>().map_or(0, |order| order.id);
    let _ = lines.send(format!(
        "order {id} of {:?}: {outcome:?}",
        envelope.tenant()
    ));
    outcome
}

type Lines = mpsc::UnboundedSender<String>;

/// A hook: stamps each message that this container publishes.
struct Region(&'static str);

impl PublishHook for Region {
    fn before(
        &self,
        _: &Topic,
        envelope: &mut Envelope,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        envelope.set_header("region", self.0);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::builder()
        .with_memory(redstart::memory::MemoryStore::new())
        .with_service("billing")
        .with_publish_hook(Region("eu"))
        .connect()
        .await?;
    let bus = container.bus();
    let (sender, mut lines) = mpsc::unbounded_channel();

    // The middleware that is added first runs first, and sees the outcome last.
    let router = Router::new()
        .on(bill)
        .with_middleware({
            let sender = sender.clone();
            move |delivery: Delivery, next: Next| report(sender.clone(), delivery, next)
        })
        .with_middleware(known_tenants)
        .with_middleware(Tower(GlobalConcurrencyLimitLayer::new(4)))
        .with_middleware(Tower(TimeoutLayer::new(Duration::from_millis(200))));
    let retry = RetryPolicy::fixed(Duration::from_millis(10));
    let options = SubscribeOptions::new().with_retry(retry);
    bus.subscribe_with(&ORDERS, options, router).await?;

    let print = move |bill: Billed, delivery: Delivery| {
        let (tenant, headers) = (delivery.envelope().tenant(), delivery.envelope().headers());
        let region = headers.get("region").map_or("?", String::as_str);
        let order = bill.order;
        let _ = sender.send(format!(
            "bill for order {order} of {tenant:?}, region {region}"
        ));
        async {}
    };

    // The bills are read after the orders, so that the lines have one order.
    for (id, tenant, expected) in [(1, Some("acme"), 1), (2, Some("eve"), 1), (3, None, 2)] {
        let envelope = Envelope::new(Placed::TYPE, &Placed { id })?;
        let envelope = match tenant {
            Some(tenant) => envelope.with_tenant(tenant),
            None => envelope,
        };
        bus.publish(&ORDERS, &envelope).await?;
        for _ in 0..expected {
            if let Some(line) = lines.recv().await {
                println!("{line}");
            }
        }
        if tenant != Some("eve") {
            let subscription = bus.subscribe(&BILLS, print.clone()).await?;
            if let Some(line) = lines.recv().await {
                println!("{line}");
            }
            subscription.unsubscribe(Duration::from_secs(10)).await;
        }
    }
    container.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
