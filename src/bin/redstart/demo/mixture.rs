//! Dead letters of several causes, for those who look at the demo in the console.

use redstart::extract::Payload;
use redstart::{Container, Delivery, Envelope, Group, Outcome, SubscribeOptions, Topic};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::failure::Failure;

const ORDERS: Topic = Topic::from_static("orders");
const BILLING: Group = Group::from_static("billing");
const COUNT: u32 = 120;
/// How long the consumer waits for its last messages before it goes on without them.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize, Serialize)]
struct Order {
    order: u32,
    cents: Option<u32>,
}

impl Order {
    fn of(order: u32) -> Self {
        // Every tenth order has no price, and so no handler can charge it.
        let cents = (!order.is_multiple_of(10)).then_some(1_000 + order);
        Self { order, cents }
    }

    /// What happens to the order while the bank is away, and when it is back.
    fn charge(&self, bank_is_back: bool) -> Outcome {
        match (self.cents, self.order % 3) {
            (None, _) => Outcome::dead_letter("an order without a price"),
            (Some(_), 0) if !bank_is_back => {
                Outcome::dead_letter(format!("card of order {} declined", self.order))
            }
            (Some(_), _) if !bank_is_back => Outcome::dead_letter(format!(
                "connect 10.0.0.{}:443: connection refused",
                self.order % 7 + 1
            )),
            _ => Outcome::Ack,
        }
    }
}

/// Lets orders die of three causes. Afterwards the bank is back: a redriven order succeeds, unless it
/// has no price.
pub(super) async fn prepare(container: &Container) -> Result<(), Failure> {
    let orders: Vec<Envelope> = (1..=COUNT)
        .map(|order| {
            let tenant = if order % 4 == 0 { "acme" } else { "globex" };
            let envelope = Envelope::new("order.placed", &Order::of(order))?;
            Ok(envelope
                .with_tenant(tenant)
                .with_key(format!("order-{order}")))
        })
        .collect::<Result<_, redstart::Error>>()?;
    let bus = container.bus();
    for result in bus.publish_all(&ORDERS, &orders).await {
        result?;
    }
    let bank_is_back = Arc::new(AtomicBool::new(false));
    let bank = Arc::clone(&bank_is_back);
    let handler = move |Payload(order): Payload<Order>, _: Delivery| {
        let outcome = order.charge(bank.load(Ordering::Relaxed));
        async move { outcome }
    };
    let options = SubscribeOptions::new().with_group(BILLING);
    bus.subscribe_with(&ORDERS, options, handler).await?;
    let topics = container.topics();
    let all_dead = async {
        loop {
            let status = topics.group(&ORDERS, &BILLING).await?;
            if status.dead >= u64::from(COUNT) {
                return Ok::<_, redstart::Error>(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if let Ok(looked) = tokio::time::timeout(PATIENCE, all_dead).await {
        looked?;
    }
    bank_is_back.store(true, Ordering::Relaxed);
    Ok(())
}
