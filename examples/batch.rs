//! Shows a batch handler: one insert for many messages, and an outcome for each.
//!
//! Output:
//!
//! ```text
//! inserted 3 of 4 pages in one call
//! dead letter: rejected, no path
//! ```

use std::time::Duration;

use redstart::{Container, Delivery, Envelope, Error, Group, Outcome, SubscribeOptions, Topic};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::builder()
        .with_memory(redstart::memory::MemoryStore::new())
        .with_service("sink")
        .connect()
        .await?;
    let (bus, clicks) = (container.bus(), Topic::new("clicks")?);
    for page in ["/cart", "/pay", "help", "/done"] {
        bus.publish(&clicks, &Envelope::new("click", page)?).await?;
    }

    let (inserts, mut inserted) = mpsc::unbounded_channel();
    let handler = move |batch: Vec<(String, Delivery)>| {
        let inserts = inserts.clone();
        async move {
            let outcomes: Vec<Outcome> = batch.iter().map(|(page, _)| check(page)).collect();
            let good = outcomes.iter().filter(|one| **one == Outcome::Ack).count();
            // A real sink writes all good messages with one statement here.
            let _ = inserts.send((good, batch.len()));
            outcomes
        }
    };
    // The handler is called with four messages, or with fewer when ten seconds have passed.
    let options = SubscribeOptions::new()
        .with_concurrency(1)
        .with_batch(4, Duration::from_secs(10));
    let _subscription = bus.subscribe_batch(&clicks, options, handler).await?;

    if let Some((good, all)) = inserted.recv().await {
        println!("inserted {good} of {all} pages in one call");
    }
    // The shutdown writes all outcomes.
    container.shutdown(Duration::from_secs(10)).await;
    let dead_letters = container.dead_letters();
    for cause in dead_letters.causes(&clicks, &Group::new("sink")?).await? {
        println!("dead letter: {}, {}", cause.reason, cause.fingerprint);
    }
    Ok(())
}

fn check(page: &str) -> Outcome {
    match page.starts_with('/') {
        true => Outcome::Ack,
        false => Outcome::dead_letter("no path"),
    }
}
