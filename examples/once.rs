//! Shows `once`: a handler that fails after its effect does not repeat the effect at the next attempt.
//!
//! Output:
//!
//! ```text
//! attempt 1: charged the card, receipt-7
//! attempt 1: the printer is jammed
//! attempt 2: charged before, receipt-7
//! attempt 2: printed
//! ```

use std::sync::Arc;
use std::time::Duration;

use redstart::kv::{Once, once};
use redstart::{
    Container, Delivery, Envelope, Error, Kv, Outcome, RetryPolicy, SubscribeOptions, Topic,
};
use tokio::sync::Notify;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::in_memory().await?;
    let (bus, orders) = (container.bus(), Topic::new("orders")?);
    let printed = Arc::new(Notify::new());

    let handler = {
        let (kv, printed) = (container.kv(), Arc::clone(&printed));
        move |order: u32, delivery: Delivery| {
            let (kv, printed) = (kv.clone(), Arc::clone(&printed));
            async move {
                let attempt = delivery.attempt();
                match charge(&kv, order).await {
                    Ok(Once::Executed(receipt)) => {
                        println!("attempt {attempt}: charged the card, {receipt}");
                    }
                    Ok(Once::AlreadyDone(receipt)) => {
                        let receipt = receipt.unwrap_or_default();
                        println!("attempt {attempt}: charged before, {receipt}");
                    }
                    // Another process is charging this order now.
                    Ok(Once::InProgress) => return Outcome::snooze(Duration::from_secs(1)),
                    Err(error) => return Outcome::retry(error),
                }
                if attempt == 1 {
                    println!("attempt {attempt}: the printer is jammed");
                    return Outcome::retry("the printer is jammed");
                }
                println!("attempt {attempt}: printed");
                printed.notify_one();
                Outcome::Ack
            }
        }
    };
    let retry = RetryPolicy::fixed(Duration::from_millis(10));
    let options = SubscribeOptions::new().with_retry(retry);
    let _subscription = bus.subscribe_with(&orders, options, handler).await?;
    bus.publish(&orders, &Envelope::new("order.placed", &7)?)
        .await?;

    printed.notified().await;
    container.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// The key names the effect, not the attempt.
async fn charge(kv: &Kv, order: u32) -> Result<Once<String>, redstart::kv::OnceError<Error>> {
    let day = Duration::from_secs(86_400);
    let key = format!("charge:order-{order}");
    once(
        kv,
        &key,
        day,
        || async move { Ok(format!("receipt-{order}")) },
    )
    .await
}
