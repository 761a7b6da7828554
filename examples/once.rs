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

use redstart::extract::{Attempt, FromRef};
use redstart::kv::{Once, OnceError, once};
use redstart::{
    Container, Error, Kv, Message, Outcome, RetryPolicy, Router, State, SubscribeOptions, Topic,
};
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

struct App {
    kv: Kv,
    printed: Arc<Notify>,
}

impl FromRef<App> for Kv {
    fn from_ref(app: &App) -> Self {
        app.kv.clone()
    }
}

impl FromRef<App> for Arc<Notify> {
    fn from_ref(app: &App) -> Self {
        Arc::clone(&app.printed)
    }
}

/// An error of `charge` is a retry.
async fn bill(
    State(kv): State<Kv>,
    State(printed): State<Arc<Notify>>,
    order: Placed,
    Attempt(attempt): Attempt,
) -> Result<Outcome, OnceError<Error>> {
    match charge(&kv, order.id).await? {
        Once::Executed(receipt) => println!("attempt {attempt}: charged the card, {receipt}"),
        Once::AlreadyDone(receipt) => {
            let receipt = receipt.unwrap_or_default();
            println!("attempt {attempt}: charged before, {receipt}");
        }
        // Another process is charging this order now.
        Once::InProgress => return Ok(Outcome::snooze(Duration::from_secs(1))),
    }
    if attempt == 1 {
        println!("attempt {attempt}: the printer is jammed");
        return Ok(Outcome::retry("the printer is jammed"));
    }
    println!("attempt {attempt}: printed");
    printed.notify_one();
    Ok(Outcome::Ack)
}

/// The key names the effect, not the attempt.
async fn charge(kv: &Kv, order: u32) -> Result<Once<String>, OnceError<Error>> {
    let day = Duration::from_secs(86_400);
    let key = format!("charge:order-{order}");
    let function = || async move { Ok(format!("receipt-{order}")) };
    once(kv, &key, day, function).await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::in_memory().await?;
    let printed = Arc::new(Notify::new());
    let app = App {
        kv: container.kv(),
        printed: Arc::clone(&printed),
    };
    let retry = RetryPolicy::fixed(Duration::from_millis(10));
    let options = SubscribeOptions::new().with_retry(retry);
    let router = Router::with_state(app).on(bill);
    let bus = container.bus();
    bus.subscribe_with(&ORDERS, options, router).await?;
    bus.send(&ORDERS, &Placed { id: 7 }).await?;

    printed.notified().await;
    container.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
