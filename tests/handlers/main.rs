//! Messages, handlers and routers on the store in memory: no server is needed.

mod arguments;
mod batches;
mod config;
mod errors;
mod kit;
mod middleware;
mod middleware_batches;
mod names;
mod progress;
mod publish_hooks;
mod publisher;
mod routing;
mod send;
mod sweeps;
mod timeouts;
#[cfg(feature = "tower")]
mod tower;

use std::time::Duration;

use redstart::testing::TestBus;
use redstart::{Group, Message, Topic};

use serde::{Deserialize, Serialize};

const ORDERS: Topic = Topic::from_static("orders");
const BILLING: Group = Group::from_static("billing");

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Cancelled {
    id: u32,
}

impl Message for Cancelled {
    const TYPE: &'static str = "order.cancelled";
}

/// A message as a handler saw it, for the test.
#[derive(Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn in_order(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.in_order();
        lines.sort();
        lines
    }
}

/// Reason, attempts, handler and error of each dead letter.
async fn letters(test: &TestBus) -> Vec<(String, u32, String, String)> {
    let letters = test.dead_letters(&ORDERS, &BILLING).await;
    letters
        .letters()
        .iter()
        .cloned()
        .map(|one| (one.reason.to_string(), one.attempts, one.handler, one.error))
        .collect()
}
