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
use redstart::{Container, Delivery, Envelope, Error, Group, RetryPolicy, SubscribeOptions, Topic};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::in_memory().await?;
    let (orders, service) = (Topic::new("orders")?, Group::new("redstart")?);
    let locked = Arc::new(AtomicBool::new(true));
    let (done, mut handled) = mpsc::unbounded_channel();

    let handler = {
        let locked = Arc::clone(&locked);
        move |account: u32, delivery: Delivery| {
            let (locked, done) = (Arc::clone(&locked), done.clone());
            async move {
                let attempt = delivery.attempt();
                if locked.load(Ordering::Relaxed) {
                    println!("attempt {attempt}: account {account} is locked");
                    return Err(format!("account {account} is locked"));
                }
                let _ = done.send(attempt);
                Ok(())
            }
        }
    };
    // The default is five attempts over some 15 seconds.
    let retry = RetryPolicy::fixed(Duration::from_millis(10)).with_max_attempts(3);
    let options = SubscribeOptions::new().with_retry(retry);
    let bus = container.bus();
    let _subscription = bus.subscribe_with(&orders, options, handler).await?;
    bus.publish(&orders, &Envelope::new("order.placed", &17)?)
        .await?;

    let dead_letters = container.dead_letters();
    while dead_letters.newest(&orders, &service).await?.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for cause in dead_letters.causes(&orders, &service).await? {
        println!("{} × {}: {}", cause.count, cause.reason, cause.fingerprint);
    }

    locked.store(false, Ordering::Relaxed);
    let exhausted = DeadLetterFilter::default().with_reason(Reason::Exhausted);
    let sweep = Sweep::redrive(exhausted).with_operator("ann");
    let preview = dead_letters.preview(&orders, &service, &sweep).await?;
    println!("a redrive would take {}", preview.matching);
    let report = dead_letters
        .sweep(&orders, &service, sweep, &|_| {})
        .await?;
    println!("redriven: {}", report.progress.taken);

    // A redriven message begins again with its first attempt.
    if let Some(attempt) = handled.recv().await {
        println!("attempt {attempt}: done");
    }
    container.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
