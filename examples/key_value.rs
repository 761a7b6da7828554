//! Shows the key-value store: values, counters, compare-and-set, and recognising an id at its second use.
//!
//! Output:
//!
//! ```text
//! stock 42
//! cas from 41: false
//! cas from 42: true
//! updated to 39
//! first time: true
//! first time: false
//! ```

use std::time::Duration;

use redstart::kv::first_time;
use redstart::{Container, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let kv = Container::in_memory().await?.kv();
    kv.set_with_ttl("stock", &40, Duration::from_secs(3600))
        .await?;
    println!("stock {}", kv.incr("stock", 2).await?);

    for expected in [41, 42] {
        let swapped = kv.cas("stock", Some(&expected), &expected, None).await?;
        println!("cas from {expected}: {swapped}");
    }
    let take_three = |stock: Option<i64>| stock.unwrap_or_default() - 3;
    println!("updated to {}", kv.update("stock", None, take_three).await?);

    for _ in 0..2 {
        let window = Duration::from_secs(600);
        let first = first_time(&kv, "event-7", window).await?;
        println!("first time: {first}");
    }
    Ok(())
}
