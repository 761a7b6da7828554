//! Follows a failing message: retries by a policy, a dead letter after the last attempt, its cause,
//! and a redrive once the cause is fixed.
//!
//! Output:
//!
//! ```text
//! attempt 1: account 17 is locked
//! attempt 2: account 17 is locked
//! attempt 3: account 17 is locked
//! 1 × exhausted: account # is locked
//! a redrive would take 1
//! redriven: 1
//! attempt 1: done
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redstart::dead_letters::{DeadLetterFilter, Reason, Sweep};
use redstart::extract::Attempt;
use redstart::{
    Container, Error, Group, Message, RetryPolicy, Router, State, SubscribeOptions, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    account: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Clone)]
struct App {
    locked: Arc<AtomicBool>,
    done: mpsc::UnboundedSender<u32>,
}

/// An error means: try again.
async fn bill(
    State(app): State<App>,
    order: Placed,
    Attempt(attempt): Attempt,
) -> Result<(), String> {
    let account = order.account;
    if app.locked.load(Ordering::Relaxed) {
        println!("attempt {attempt}: account {account} is locked");
        return Err(format!("account {account} is locked"));
    }
    let _ = app.done.send(attempt);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::in_memory().await?;
    let service = Group::new("redstart")?;
    let locked = Arc::new(AtomicBool::new(true));
    let (done, mut handled) = mpsc::unbounded_channel();
    let app = App {
        locked: Arc::clone(&locked),
        done,
    };
    // The default is five attempts over some 15 seconds.
    let retry = RetryPolicy::fixed(Duration::from_millis(10)).with_max_attempts(3);
    let options = SubscribeOptions::new().with_retry(retry);
    let bus = container.bus();
    let router = Router::with_state(app).on(bill);
    bus.subscribe_with(&ORDERS, options, router).await?;
    bus.send(&ORDERS, &Placed { account: 17 }).await?;

    let dead_letters = container.dead_letters();
    while dead_letters.newest(&ORDERS, &service).await?.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for cause in dead_letters.causes(&ORDERS, &service).await? {
        println!("{} × {}: {}", cause.count, cause.reason, cause.fingerprint);
    }

    locked.store(false, Ordering::Relaxed);
    let exhausted = DeadLetterFilter::default().with_reason(Reason::Exhausted);
    let sweep = Sweep::redrive(exhausted).with_operator("ann");
    let preview = dead_letters.preview(&ORDERS, &service, &sweep).await?;
    println!("a redrive would take {}", preview.matching);
    let report = dead_letters
        .sweep(&ORDERS, &service, sweep, &|_| {})
        .await?;
    println!("redriven: {}", report.progress.taken);

    // A redriven message begins again with its first attempt.
    if let Some(attempt) = handled.recv().await {
        println!("attempt {attempt}: done");
    }
    container.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
