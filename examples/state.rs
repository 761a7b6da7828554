//! Shows a worker with state: a struct that implements `Handler` and keeps its state in fields.
//!
//! Output:
//!
//! ```text
//! ann: 1250
//! bob: 40
//! ann: 2240
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redstart::{Container, Delivery, Error, Handler, Message, SubscribeOptions, Topic};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    customer: String,
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

/// A real worker keeps a connection pool or a client here.
struct Totals {
    by_customer: Mutex<BTreeMap<String, u64>>,
    lines: mpsc::UnboundedSender<String>,
}

impl Handler for Totals {
    type Message = Placed;
    type Output = Result<(), Box<dyn std::error::Error + Send + Sync>>;

    async fn handle(&self, order: Placed, _: Delivery) -> Self::Output {
        let line = {
            let mut totals = self
                .by_customer
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let total = totals.entry(order.customer.clone()).or_default();
            *total += order.cents;
            format!("{}: {total}", order.customer)
        };
        // An error here makes the bus deliver the message again.
        self.lines.send(line)?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::in_memory().await?;
    let bus = container.bus();
    let (sender, mut lines) = mpsc::unbounded_channel();
    let totals = Totals {
        by_customer: Mutex::default(),
        lines: sender,
    };
    let options = SubscribeOptions::new().with_concurrency(1);
    bus.subscribe_with(&ORDERS, options, totals).await?;

    for (customer, cents) in [("ann", 1250), ("bob", 40), ("ann", 990)] {
        let customer = customer.to_owned();
        bus.send(&ORDERS, &Placed { customer, cents }).await?;
        if let Some(line) = lines.recv().await {
            println!("{line}");
        }
    }
    container.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
