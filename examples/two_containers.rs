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
use redstart::{Container, Delivery, Envelope, Error, Topic};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (store, orders) = (MemoryStore::new(), Topic::new("orders")?);
    let (billed, shipped) = (Arc::default(), Arc::default());
    let containers = [
        start(&store, "billing", &orders, &billed).await?,
        start(&store, "billing", &orders, &billed).await?,
        start(&store, "shipping", &orders, &shipped).await?,
    ];

    let bus = containers[0].bus();
    let envelopes = (0..20)
        .map(|id| Envelope::new("order.placed", &id))
        .collect::<Result<Vec<_>, _>>()?;
    for published in bus.publish_all(&orders, &envelopes).await {
        published?;
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
    orders: &Topic,
    count: &Arc<AtomicU32>,
) -> Result<Container, Error> {
    let container = Container::builder()
        .with_memory(store.clone())
        .with_service(service)
        .connect()
        .await?;
    let count = Arc::clone(count);
    let handler = move |_: u32, _: Delivery| {
        count.fetch_add(1, Ordering::Relaxed);
        async {}
    };
    let _subscription = container.bus().subscribe(orders, handler).await?;
    Ok(container)
}
