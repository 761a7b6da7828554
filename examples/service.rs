//! Shows a service: a worker that handles messages until a signal stops it, then shuts down cleanly.
//!
//! The messages are published before the worker subscribes; they wait for it. A service with a
//! server begins with `Container::from_env()` instead of `Container::in_memory()`.
//!
//! Output:
//!
//! ```text
//! order 1: 1250 cents
//! order 2: 990 cents
//! order 3: 40 cents
//! shutting down
//! clean: true
//! ```

use std::sync::Arc;
use std::time::Duration;

use redstart::{Container, Error, Message, SubscribeOptions, Topic};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::in_memory().await?;
    let bus = container.bus();
    for (id, cents) in [(1, 1250), (2, 990), (3, 40)] {
        bus.send(&ORDERS, &Placed { id, cents }).await?;
    }

    let last = Arc::new(Notify::new());
    let handled = Arc::clone(&last);
    let handler = move |order: Placed| {
        let handled = Arc::clone(&handled);
        async move {
            println!("order {}: {} cents", order.id, order.cents);
            if order.id == 3 {
                handled.notify_one();
            }
        }
    };
    // One handler at a time: first deliveries come in publish order.
    let options = SubscribeOptions::new().with_concurrency(1);
    bus.subscribe_with(&ORDERS, options, handler).await?;

    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        // A real service waits for the signal alone.
        () = last.notified() => {}
    }
    println!("shutting down");
    let report = container.shutdown(Duration::from_secs(10)).await;
    println!("clean: {}", report.is_clean());
    Ok(())
}
