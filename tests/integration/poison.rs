//! Messages that kill their process, and the messages beside them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Delivery, RetryPolicy, SubscribeOptions, dead_letters::Reason};
use tokio::runtime::Runtime;

use crate::support::{Server, container, group, letters, publish, status, topic};

const MESSAGES: u32 = 400;
const POISON: u32 = 137;

/// What the processes of a test have seen.
#[derive(Debug, Default)]
struct Seen {
    poison_begun: AtomicU32,
    handled: AtomicU32,
}

/// Runs consumers one after the other, each on a runtime that is torn down, as by a SIGKILL, when
/// the poison message begins. Returns when a consumer has drained the group.
fn crash_until_drained(server: &Server, options: &SubscribeOptions, seen: &Arc<Seen>) {
    for _ in 0..12 {
        let runtime = Runtime::new().unwrap();
        let (crash, crashed) = mpsc::channel();
        let orders = topic("orders");
        let container = runtime.block_on(async {
            let container = container(server).await;
            let seen = Arc::clone(seen);
            let handler = move |Payload(n): Payload<u32>, _: Delivery| {
                let (seen, crash) = (Arc::clone(&seen), crash.clone());
                async move {
                    if n == POISON {
                        seen.poison_begun.fetch_add(1, Ordering::SeqCst);
                        let _ = crash.send(());
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    seen.handled.fetch_add(1, Ordering::SeqCst);
                }
            };
            let bus = container.bus();
            let made = bus.subscribe_with(&orders, options.clone(), handler).await;
            let _subscription = made.unwrap();
            container
        });
        loop {
            if crashed.recv_timeout(Duration::from_millis(20)).is_ok() {
                runtime.shutdown_background();
                break;
            }
            let billing = group("billing");
            let left = runtime.block_on(status(&container, &orders, &billing));
            if left.lag + left.in_flight + left.scheduled == 0 {
                runtime.block_on(container.shutdown(Duration::from_secs(5)));
                return;
            }
        }
    }
    panic!("the group does not drain: {seen:?}");
}

/// Publishes, crashes until the group has drained, and returns the attempts of each dead letter.
fn attempts_of_the_dead(options: &SubscribeOptions) -> (Vec<(Reason, u32)>, Arc<Seen>) {
    let (server, seen) = (Server::start(), Arc::<Seen>::default());
    let runtime = Runtime::new().unwrap();
    let orders = topic("orders");
    runtime.block_on(async {
        let container = container(&server).await;
        publish(&container, &orders, 0..MESSAGES).await;
        container.shutdown(Duration::from_secs(5)).await;
    });
    crash_until_drained(&server, options, &seen);
    let dead = runtime.block_on(async {
        let container = container(&server).await;
        let letters = letters(&container, &orders, &group("billing")).await;
        letters
            .iter()
            .map(|one| (one.reason, one.attempts))
            .collect()
    });
    (dead, seen)
}

#[test]
fn a_message_that_kills_its_process_dies_alone_after_its_attempts() {
    let options = SubscribeOptions::new()
        .with_prefetch(800)
        .with_lease(Duration::from_millis(300))
        .with_retry(RetryPolicy::default().with_max_attempts(8));
    let (dead, seen) = attempts_of_the_dead(&options);
    assert_eq!(dead, [(Reason::Crashed, 8)], "{seen:?}");
    assert_eq!(seen.poison_begun.load(Ordering::SeqCst), 8);
    assert!(seen.handled.load(Ordering::SeqCst) >= MESSAGES - 1);
}

#[test]
fn where_one_attempt_is_allowed_only_begun_messages_die() {
    let options = SubscribeOptions::new()
        .with_prefetch(800)
        .with_concurrency(4)
        .with_lease(Duration::from_millis(300))
        .with_retry(RetryPolicy::default().with_max_attempts(1));
    let (dead, seen) = attempts_of_the_dead(&options);
    assert!((1..=4).contains(&dead.len()), "{dead:?}");
    assert!(
        dead.iter().all(|one| *one == (Reason::Crashed, 1)),
        "{dead:?}"
    );
    assert_eq!(seen.poison_begun.load(Ordering::SeqCst), 1);
}
