//! Shows a coordinator: a component that subscribes when its container starts and stops with it.
//!
//! Output:
//!
//! ```text
//! billing started
//! order 7
//! billing stopped
//! ```

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use redstart::container::Coordinator;
use redstart::memory::MemoryStore;
use redstart::ports::BoxFuture;
use redstart::{Container, Error, Message, Subscription, Topic};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

struct Billing {
    handled: Arc<Notify>,
}

impl Coordinator for Billing {
    fn name(&self) -> &str {
        "billing"
    }

    fn start<'a>(
        &'a self,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, Box<dyn StdError + Send + Sync>>> {
        Box::pin(async move {
            let handled = Arc::clone(&self.handled);
            let handler = move |order: Placed| {
                println!("order {}", order.id);
                handled.notify_one();
                async {}
            };
            let subscription = container.bus().subscribe(&ORDERS, handler).await?;
            println!("billing started");
            // The container ends these subscriptions before it calls `stop`.
            Ok(vec![subscription])
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { println!("billing stopped") })
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let handled = Arc::new(Notify::new());
    let billing = Billing {
        handled: Arc::clone(&handled),
    };
    let container = Container::builder()
        .with_memory(MemoryStore::new())
        .with_coordinator(billing)
        .connect()
        .await?;
    container.bus().send(&ORDERS, &Placed { id: 7 }).await?;
    handled.notified().await;
    container.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
