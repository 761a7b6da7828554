//! Shows how containers share work: two containers of one service share a group; another service has a
//! group of its own and sees every message.
//!
//! Containers on clones of one memory store behave as processes on one server.
//!
//! Output:
//!
//! ```text
//! billing, two containers: 20 messages
//! shipping, one container: 20 messages
//! clean: true
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redstart::memory::MemoryStore;
use redstart::{Container, Error, Message, Topic};
use serde::{Deserialize, Serialize};

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store = MemoryStore::new();
    let (billed, shipped) = (Arc::default(), Arc::default());
    let containers = [
        start(&store, "billing", &billed).await?,
        start(&store, "billing", &billed).await?,
        start(&store, "shipping", &shipped).await?,
    ];

    let bus = containers[0].bus();
    let orders: Vec<_> = (0..20).map(|id| Placed { id }).collect();
    for sent in bus.send_all(&ORDERS, &orders).await {
        sent?;
    }
    while billed.load(Ordering::Relaxed) < 20 || shipped.load(Ordering::Relaxed) < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let mut clean = true;
    for container in containers {
        clean &= container.shutdown(Duration::from_secs(10)).await.is_clean();
    }
    println!(
        "billing, two containers: {} messages",
        billed.load(Ordering::Relaxed)
    );
    println!(
        "shipping, one container: {} messages",
        shipped.load(Ordering::Relaxed)
    );
    println!("clean: {clean}");
    Ok(())
}

/// What each process does: connect, subscribe, count.
async fn start(
    store: &MemoryStore,
    service: &str,
    count: &Arc<AtomicU32>,
) -> Result<Container, Error> {
    let container = Container::builder()
        .with_memory(store.clone())
        .with_service(service)
        .connect()
        .await?;
    let count = Arc::clone(count);
    let handler = move |_: Placed| {
        count.fetch_add(1, Ordering::Relaxed);
        async {}
    };
    container.bus().subscribe(&ORDERS, handler).await?;
    Ok(container)
}
