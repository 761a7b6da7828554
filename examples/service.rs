//! Shows a service: a worker that handles messages until a signal stops it, then shuts down cleanly.
//!
//! The messages are published before the worker subscribes; they wait for it. A service with a
//! server begins with `Container::from_env()` instead of `Container::in_memory()`. At the last message
//! the program sends itself SIGTERM, as an orchestrator would.
//!
//! Output:
//!
//! ```text
//! order 1: 1250 cents
//! order 2: 990 cents
//! order 3: 40 cents
//! clean shutdown
//! ```

use std::process::ExitCode;
use std::time::Duration;

use redstart::{Container, Error, Message, SubscribeOptions, Topic};
use serde::{Deserialize, Serialize};

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(order: Placed) -> std::io::Result<()> {
    println!("order {}: {} cents", order.id, order.cents);
    if order.id == 3 {
        let process = std::process::id().to_string();
        let mut kill = std::process::Command::new("kill");
        kill.args(["-s", "TERM", &process]).status()?;
    }
    Ok(()) // an error or a panic means: try again
}

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let container = Container::in_memory().await?;
    let bus = container.bus();
    for (id, cents) in [(1, 1250), (2, 990), (3, 40)] {
        bus.send(&ORDERS, &Placed { id, cents }).await?;
    }

    // One handler at a time: first deliveries come in publish order.
    let options = SubscribeOptions::new().with_concurrency(1);
    // A real service subscribes first. This one must listen before its last handler sends the signal.
    let running = container.run_until_signal(Duration::from_secs(10));
    let subscribing = async { bus.subscribe_with(&ORDERS, options, bill).await };
    let (report, subscribed) = tokio::join!(running, subscribing);
    subscribed?;
    let report = report?;
    println!("{report}");
    Ok(report.into()) // exit code 0 for a clean shutdown, else 1
}
