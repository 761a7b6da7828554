//! Shows deduplication: the second publish of an envelope within the window adds no entry.
//!
//! Output:
//!
//! ```text
//! first: duplicate false
//! again: duplicate true, same entry true
//! entries in the topic: 1
//! ```

use std::time::Duration;

use redstart::{Container, Envelope, Error, PublishOptions, Topic};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::in_memory().await?;
    let (bus, orders) = (container.bus(), Topic::new("orders")?);
    let envelope = Envelope::new("order.placed", &1250)?;

    // `ContainerBuilder::with_deduplication` sets the window for every publish of a container.
    let options = PublishOptions::new().with_deduplication(Duration::from_secs(600));
    let first = bus.publish_with(&orders, &envelope, options).await?;
    let again = bus.publish_with(&orders, &envelope, options).await?;
    println!("first: duplicate {}", first.duplicate);
    println!(
        "again: duplicate {}, same entry {}",
        again.duplicate,
        again.id == first.id
    );

    let entries = container
        .topics()
        .entries_after(&orders, None, 10)
        .await?
        .len();
    println!("entries in the topic: {entries}");
    Ok(())
}
